"""Options of the nearest-neighbour classifier."""

from __future__ import annotations

import math
from dataclasses import dataclass

from featcache.errors import OptionError
from featcache.probes.knn.approximate import INDEX_KINDS, IndexOptions
from featcache.probes.knn.space import METRICS, NORMALIZE
from featcache.probes.knn.votes import check_vote
from featcache.probes.options import check_choice, check_ks, check_range


@dataclass(frozen=True, slots=True, kw_only=True)
class KnnOptions:
    """Options of the nearest-neighbour classifier.

    Equal votes go to the smaller class index, neighbours of equal score are taken by id.
    """

    k: tuple[int, ...] = (10, 20, 100, 200)  # dino eval_knn.py
    primary_k: int = 20  # DINO, arXiv:2104.14294, section 4.1: consistently the best of the four
    temperature: tuple[float, ...] = (0.07,)  # InstDisc, arXiv:1805.01978; dino eval_knn.py
    primary_temperature: float = 0.07  # the same
    vote: str = "exp_sim"  # InstDisc; dino eval_knn.py
    """`exp_sim`, `softmax_topmax`, `inv_dist` or `uniform`; see `featcache.probes.knn.votes`."""
    metric: str = "cosine"  # InstDisc; dino eval_knn.py
    """`cosine`, `dot` or `euclidean`."""
    normalize: str = "l2"  # dino eval_knn.py
    """`l2` scales rows to unit norm, `none` takes them as they are."""
    exclude_self: str = "none"
    """`id` leaves out the train row with the query's own id, as for test rows = train rows."""
    exclude_ids: str = ""
    """Train rows that are left out, one id a line: near copies of test images."""
    index: str = "flat"
    """`flat` is exact; `ivf`, `hnsw`, `pq` and `ivfpq` are approximate, and use what follows."""
    nlist: int = 100  # FAISS wiki, "Faster search": its example
    nprobe: int = 10  # the same
    hnsw_m: int = 32  # FAISS IndexHNSWFlat
    ef_construction: int = 40  # FAISS HNSW.h
    ef_search: int = 64  # four times FAISS's 16, as many neighbours are wanted
    pq_m: int = 8  # FAISS wiki, "Lower memory footprint": its example
    pq_bits: int = 8  # the same

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_ks("k", self.k)
        _check_primary("primary_k", self.primary_k, "k", self.k)
        for value in self.temperature:
            check_range("temperature", value, 0, math.inf)
        _check_primary(
            "primary_temperature", self.primary_temperature, "temperature", self.temperature
        )
        if len(set(self.temperature)) != len(self.temperature):
            raise OptionError(
                f"`temperature` must be distinct numbers; got {list(self.temperature)}. "
                "Drop repeats."
            )
        check_choice("metric", self.metric, METRICS)
        check_choice("normalize", self.normalize, NORMALIZE)
        check_vote(self.vote, self.metric)  # type: ignore[arg-type]  # names from YAML, checked
        if self.metric == "cosine" and self.normalize == "none":
            raise OptionError(
                "`normalize` must be 'l2' with the metric 'cosine'; got 'none'. "
                "For products of rows as they are choose the metric 'dot'."
            )
        check_choice("exclude_self", self.exclude_self, ("none", "id"))
        check_choice("index", self.index, ("flat", *INDEX_KINDS))
        self.index_options()

    def index_options(self) -> IndexOptions:
        """Return the options of the approximate index, checked; those of `ivf` for `flat`."""
        return IndexOptions(
            kind="ivf" if self.index == "flat" else self.index,  # type: ignore[arg-type]
            nlist=self.nlist,
            nprobe=self.nprobe,
            hnsw_m=self.hnsw_m,
            ef_construction=self.ef_construction,
            ef_search=self.ef_search,
            pq_m=self.pq_m,
            pq_bits=self.pq_bits,
        )


def _check_primary(name: str, got: float, of: str, values: tuple[float, ...]) -> None:
    if got not in values:
        raise OptionError(
            f"`{name}` must be one of `{of}`; got {got!r} and {of} = {list(values)}. "
            f"Add it to `{of}`, or choose another."
        )
