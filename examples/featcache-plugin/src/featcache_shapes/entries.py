"""What featcache finds here: names, and where what they stand for is."""

from featcache.registry import Entry


def backbones() -> dict[str, Entry]:
    """Return our backbones; the facts are what `featcache ls backbones` shows."""
    facts = {
        "architecture": "fixed filters",
        "objective": "none",
        "data": "none",
        "params_m": 0.0,
        "resolution": 64,
        "licence": "Apache-2.0",
        "citation": "Sobel and Feldman 1968",
        "default_tap": "pooled",
    }
    return {"edges": Entry("featcache_shapes.network:open_backbone", facts)}


def datasets() -> dict[str, Entry]:
    """Return our datasets."""
    facts = {
        "description": "Circles, squares and stripes, 64 x 64, drawn by a formula",
        "classes": 3,
        "licence": "CC0-1.0",
        "citation": "none",
    }
    return {"shapes": Entry("featcache_shapes.drawings:SOURCE", facts)}


def protocols() -> dict[str, Entry]:
    """Return our protocols; here kNN of featcache with options of our own."""
    facts = {
        "task": "knn",
        "options": {"k": [1, 3], "primary_k": 3, "vote": "uniform"},
        "citation": "none",
        "note": "One and three neighbours, each with one vote.",
    }
    return {"shapes-knn@1": Entry("featcache.probes.knn.task:run_knn", facts)}
