"""Options of clustering."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from featcache.probes.options import check_at_least, check_choice

Normalise = Literal["l2", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusteringOptions:
    """Options of clustering."""

    n_clusters: int = 0
    """Clusters; 0 for as many as there are classes."""
    normalise: Normalise = "l2"
    """`l2`: rows of unit norm, so that distances are cosines; `none`: as they are."""
    restarts: int = 10
    """Seedings, of which the one of least inertia counts. 10: scikit-learn's KMeans before 1.4."""
    max_iter: int = 300
    """Lloyd's steps of a restart. 300: scikit-learn's KMeans."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_at_least("n_clusters", self.n_clusters, 0)
        check_choice("normalise", self.normalise, get_args(Normalise))
        check_at_least("restarts", self.restarts, 1)
        check_at_least("max_iter", self.max_iter, 1)
