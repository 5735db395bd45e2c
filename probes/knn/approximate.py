"""Approximate search, on request only: an index that looks at part of the bank."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from featcache.errors import OptionError, ShapeError
from featcache.probes.arrays import Features, check_pair, row_blocks
from featcache.probes.knn.flat import BANK_BYTES, load_faiss
from featcache.probes.knn.neighbours import ExactSearch, check_k, no_rows
from featcache.probes.knn.space import Metric, Normalize, Space, make_space
from featcache.probes.options import check_at_least, check_choice, check_range

IndexKind = Literal["ivf", "hnsw", "pq", "ivfpq"]
INDEX_KINDS: tuple[IndexKind, ...] = get_args(IndexKind)
RECALL_SAMPLE = 1000
"""Queries at most that the recall is measured on."""

PQ_WARNING = (
    "Product quantisation distorts distances, and so the weights of the votes: compare such "
    "scores with each other only."
)

_QUERY_BYTES = 1 << 27


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexOptions:
    """How an approximate index is built and searched; a kind ignores what it does not have."""

    kind: IndexKind = "ivf"
    nlist: int = 100  # FAISS wiki, "Faster search": its example
    """Cells of ivf and ivfpq."""
    nprobe: int = 10  # FAISS wiki, "Faster search": its example
    """Cells that a query looks into."""
    hnsw_m: int = 32  # FAISS IndexHNSWFlat
    """Links of each row in hnsw."""
    ef_construction: int = 40  # FAISS HNSW.h
    ef_search: int = 64  # four times FAISS's 16, as many neighbours are wanted
    """Rows that an hnsw query keeps in view, at least k."""
    pq_m: int = 8  # FAISS wiki, "Lower memory footprint": its example
    """Parts of a row in pq and ivfpq; must divide D."""
    pq_bits: int = 8  # the same
    """Bits of the code of each part."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_choice("index", self.kind, INDEX_KINDS)
        for name in ("nlist", "nprobe", "ef_construction", "ef_search", "pq_m"):
            check_at_least(name, getattr(self, name), 1)
        check_at_least("hnsw_m", self.hnsw_m, 2)
        check_range("pq_bits", self.pq_bits, 0, 17)


class ApproximateSearch:
    """A bank under an approximate index, built by one thread so that a seed gives one index."""

    def __init__(
        self,
        bank: Features,
        options: IndexOptions,
        *,
        metric: Metric = "cosine",
        normalize: Normalize = "l2",
        seed: int = 0,
        bank_bytes: int = BANK_BYTES,
    ) -> None:
        """Build the index, on the CPU.

        Args:
            bank: Shape (N, D).
            options: Of the index.
            metric: As for `nearest_rows`.
            normalize: As for `nearest_rows`.
            seed: Of the index's clustering and levels.
            bank_bytes: Bytes of float32 rows for the exact search of queries that find too few.

        Raises:
            OptionError: If the index cannot be built for such a bank.
            ShapeError: If a row cannot be compared.
        """
        self._bank = bank
        self._arguments: dict[str, Any] = {
            "metric": metric,
            "normalize": normalize,
            "bank_bytes": bank_bytes,
        }
        self._space = make_space(bank, metric=metric, normalize=normalize)
        self._options = options
        self._index = _build(bank, self._space, options, seed)
        self._exact: ExactSearch | None = None
        self.n_rows, self.metric = len(bank), metric
        self.n_completed = 0
        """Queries whose cells held fewer than k rows, and that were searched exactly instead."""

    @property
    def exact(self) -> ExactSearch:
        """The same bank, searched exactly."""
        if self._exact is None:
            self._exact = ExactSearch(self._bank, **self._arguments)
        return self._exact

    def nearest(
        self, queries: Features, k: int, own_rows: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Find about the k nearest rows to each query.

        Sorted by (score as the index has it, row). A query that finds fewer is searched exactly.

        Args:
            queries: Shape (M, D).
            k: 1 <= k <= N, or N - 1 where `own_rows` leaves a row out.
            own_rows: Shape (M,), the row that each query must not find; -1 for none.

        Returns:
            Scores and rows, shape (M, k).

        Raises:
            OptionError: If k is out of range.
            ShapeError: If D differs, or if a row cannot be compared.
        """
        if len(queries):
            check_pair("bank", self._bank, "queries", queries)
        own = no_rows(len(queries)) if own_rows is None else own_rows
        has_own = bool((own >= 0).any())
        check_k(k, self.n_rows - has_own)
        scores = np.empty((len(queries), k), dtype=np.float32)
        rows = np.empty((len(queries), k), dtype=np.int64)
        width = 12 * queries.shape[1] + 48 * (k + has_own)
        for block in row_blocks(len(queries), width, _QUERY_BYTES):
            found, places = self._found(queries[block], k + has_own)
            found[(places < 0) | (places == own[block, None])] = -np.inf
            order = np.lexsort((places, -found), axis=1)[:, :k]
            scores[block] = np.take_along_axis(found, order, 1)
            rows[block] = np.take_along_axis(places, order, 1)
        lacking = np.flatnonzero(np.isneginf(scores[:, -1]))
        if len(lacking):
            self.n_completed += len(lacking)
            scores[lacking], rows[lacking] = self.exact.nearest(queries[lacking], k, own[lacking])
        return scores, rows

    def _found(
        self, queries: Features, width: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        found, places = self._index.search(self._space.rows("queries", queries), width)
        if self._space.is_distance:
            squares = found if self._space.searches_l2 else 2 - 2 * found
            found = -np.sqrt(np.maximum(squares, 0))
        return found, places


def recall_vs_flat(
    search: ApproximateSearch,
    queries: Features,
    ks: Sequence[int],
    rng: np.random.Generator,
    own_rows: NDArray[np.int64] | None = None,
) -> dict[int, float]:
    """Measure which share of the exact k nearest rows an index finds.

    Args:
        search: The index.
        queries: Shape (M, D), M >= 1; at most 1,000 are drawn.
        ks: Each at least 1; above the rows to be found it counts those.
        rng: Draws the queries.
        own_rows: Shape (M,), the row that each query must not find; -1 for none.

    Returns:
        For each k the mean share.
    """
    drawn = np.sort(rng.permutation(len(queries))[:RECALL_SAMPLE])
    own = None if own_rows is None else own_rows[drawn]
    most = search.n_rows - (own is not None and bool((own >= 0).any()))
    sample, k = queries[drawn], min(max(ks), most)
    completed = search.n_completed
    _, got = search.nearest(sample, k, own)
    search.n_completed = completed
    _, wanted = search.exact.nearest(sample, k, own)
    return {
        one: float(
            np.mean(
                [
                    len(np.intersect1d(a, b, assume_unique=True)) / min(one, most)
                    for a, b in zip(got[:, :one], wanted[:, :one], strict=True)
                ]
            )
        )
        for one in ks
    }


def _build(bank: Features, space: Space, options: IndexOptions, seed: int) -> Any:  # noqa: ANN401
    faiss = load_faiss()
    _check_fits(bank, options)
    dim = bank.shape[1]
    metric = faiss.METRIC_L2 if space.searches_l2 else faiss.METRIC_INNER_PRODUCT
    if options.kind == "hnsw":
        index = faiss.IndexHNSWFlat(dim, options.hnsw_m, metric)
        index.hnsw.efConstruction = options.ef_construction
        index.hnsw.efSearch = options.ef_search
        index.hnsw.rng = faiss.RandomGenerator(seed)
    elif options.kind == "pq":
        index = faiss.IndexPQ(dim, options.pq_m, options.pq_bits, metric)
        _seed(index.pq.cp, seed)
    else:
        coarse = faiss.IndexFlat(dim, metric)
        if options.kind == "ivf":
            index = faiss.IndexIVFFlat(coarse, dim, options.nlist, metric)
        else:
            index = faiss.IndexIVFPQ(
                coarse, dim, options.nlist, options.pq_m, options.pq_bits, metric
            )
            _seed(index.pq.cp, seed)
        _seed(index.cp, seed)
        index.nprobe = min(options.nprobe, options.nlist)
    with _one_thread(faiss):
        if not index.is_trained:
            index.train(space.rows("bank", bank))
        for block in row_blocks(len(bank), 4 * dim):
            index.add(space.rows("bank", bank[block]))
    return index


def _check_fits(bank: Features, options: IndexOptions) -> None:
    rows, dim = bank.shape
    has_codes = options.kind in ("pq", "ivfpq")
    least = max(
        options.nlist if options.kind in ("ivf", "ivfpq") else 1,
        2**options.pq_bits if has_codes else 1,
    )
    if rows < least:
        raise ShapeError(
            f"The index {options.kind!r} must have at least {least} rows to learn from; got "
            f"{rows}. Lower `nlist` or `pq_bits`, or search exactly with `index: flat`."
        )
    if has_codes and dim % options.pq_m:
        raise OptionError(
            f"`pq_m` must divide the {dim} dimensions of the features; got {options.pq_m}. "
            "Choose a divisor."
        )


def _seed(clustering: Any, seed: int) -> None:  # noqa: ANN401  faiss is untyped
    clustering.seed = seed
    clustering.min_points_per_centroid = 1  # `_check_fits` says what is too few


@contextmanager
def _one_thread(faiss: Any) -> Iterator[None]:  # noqa: ANN401  faiss is untyped
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
