"""featcache: extract features once, evaluate everything.

    import featcache

    featcache.extract(backbone="efficientnet_lite0", dataset="digits")
    result, _ = featcache.probe(task="knn", backbone="efficientnet_lite0", dataset="digits")
    features = featcache.open("3f9a1c")  # a key prefix, as `featcache ls features` prints it

Names are loaded on first use, so that `import featcache` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featcache.derived.view import DerivedSet as DerivedSet
    from featcache.errors import FeatcacheError as FeatcacheError
    from featcache.spec import ExtractionSpec as ExtractionSpec
    from featcache.store.feature_set import FeatureSet as FeatureSet
    from featcache.verbs.analyze import analyze as analyze
    from featcache.verbs.derive import derive as derive
    from featcache.verbs.derive import store_view as store_view
    from featcache.verbs.extract import BackboneRequest as BackboneRequest
    from featcache.verbs.extract import extract as extract
    from featcache.verbs.heads import native_head as native_head
    from featcache.verbs.heads import text_head as text_head
    from featcache.verbs.lookup import open_features as open
    from featcache.verbs.lookup import results as results
    from featcache.verbs.plan import plan as plan
    from featcache.verbs.probe import probe as probe
    from featcache.verbs.run import run as run

_TARGETS = {
    "BackboneRequest": "featcache.verbs.extract:BackboneRequest",
    "DerivedSet": "featcache.derived.view:DerivedSet",
    "ExtractionSpec": "featcache.spec:ExtractionSpec",
    "FeatcacheError": "featcache.errors:FeatcacheError",
    "FeatureSet": "featcache.store.feature_set:FeatureSet",
    "analyze": "featcache.verbs.analyze:analyze",
    "derive": "featcache.verbs.derive:derive",
    "extract": "featcache.verbs.extract:extract",
    "native_head": "featcache.verbs.heads:native_head",
    "open": "featcache.verbs.lookup:open_features",
    "plan": "featcache.verbs.plan:plan",
    "probe": "featcache.verbs.probe:probe",
    "results": "featcache.verbs.lookup:results",
    "run": "featcache.verbs.run:run",
    "store_view": "featcache.verbs.derive:store_view",
    "text_head": "featcache.verbs.heads:text_head",
}

__all__ = [
    "BackboneRequest",
    "DerivedSet",
    "ExtractionSpec",
    "FeatcacheError",
    "FeatureSet",
    "analyze",
    "derive",
    "extract",
    "native_head",
    "open",
    "plan",
    "probe",
    "results",
    "run",
    "store_view",
    "text_head",
]


def __getattr__(name: str) -> object:
    """Load a public name on first use."""
    if name not in _TARGETS:
        raise AttributeError(f"module 'featcache' has no attribute {name!r}")
    module, _, attribute = _TARGETS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    """List the public names."""
    return __all__
