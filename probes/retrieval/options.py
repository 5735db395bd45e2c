"""Options of retrieval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from featcache.errors import OptionError
from featcache.probes.options import check_at_least, check_choice, check_ks

Gallery = Literal["test", "train"]
Ties = Literal["id", "pessimistic", "average"]
Convention = Literal["standard", "revisited", "bob"]
Setting = Literal["easy", "medium", "hard"]
Empty = Literal["drop", "zero"]
Fit = Literal["none", "train", "gallery", "background"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WhiteningOptions:
    """PCA whitening of unit-norm features, scaled to unit norm again afterwards."""

    fit: Fit = "none"
    """The rows it is fitted on; `gallery`, and `train` where that is the gallery, see what is
    searched. `background` is for copy detection."""
    power: float = 0.5
    """Variances are divided out as λ^-power. 0.5: full whitening, as FAISS PCAW; 0: plain PCA."""
    dimension: int = 0
    """Axes kept; 0 for all that carry variance."""
    shrinkage: float = 0.0
    """Share of the mean variance mixed into each; above 0 where rows are few."""
    floor: float = 1e-6
    """Variances are at least this share of the largest: noise is lifted 1000 times at most."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_choice("whitening.fit", self.fit, get_args(Fit))
        check_at_least("whitening.power", self.power, 0)
        check_at_least("whitening.dimension", self.dimension, 0)
        if not 0 <= self.shrinkage <= 1 or not 0 <= self.floor <= 1:
            raise OptionError(
                "`whitening.shrinkage` and `whitening.floor` must be within 0 and 1; got "
                f"{self.shrinkage!r} and {self.floor!r}. Choose values in between."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpansionOptions:
    """Rows plus their nearest neighbours."""

    neighbours: int = 0
    """How many; 0 for none. 10: Radenović et al. 2019, arXiv:1711.02512."""
    alpha: float = 3.0
    """Exponent of the similarity that weighs them. 3: ibid."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_at_least("neighbours", self.neighbours, 0)
        check_at_least("alpha", self.alpha, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankingOptions:
    """k-reciprocal re-ranking."""

    k1: int = 0
    """Neighbours; 0 for no re-ranking. 20: Zhong et al. 2017, arXiv:1701.08398."""
    k2: int = 6
    """Rows that weights are averaged over. 6: ibid."""
    weight: float = 0.3
    """Share of the cosine distance. 0.3: ibid."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_at_least("reranking.k1", self.k1, 0)
        check_at_least("reranking.k2", self.k2, 1)
        if not 0 <= self.weight <= 1:
            raise OptionError(
                f"`reranking.weight` must be within 0 and 1; got {self.weight!r}. Choose a value "
                "in between."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalOptions:
    """Options of retrieval."""

    k: tuple[int, ...] = (1, 5, 10)
    gallery: Gallery = "test"
    """`test`: each query searches the other test rows; `train`: it searches the train rows."""
    exclude_self: bool = True
    """Whether a test row cannot find itself; GPR1200 lets it."""
    exclude: str = ""
    """JSON file `{query id: [gallery id, ...]}` of near duplicates that a query cannot find."""
    ground_truth: str = ""
    """JSON file of what is relevant, see `read_ground_truth`; the same class if empty."""
    setting: Setting = "medium"
    """Which setting of a ground truth file gives the primary metric."""
    convention: Convention = "standard"
    """See `ranking_columns`: rectangular average precision, or that of Oxford and Paris."""
    ties: Ties = "id"
    """Order of equal similarities: by id, relevant ones last, or the mean over all orders."""
    without_relevant: Empty = "drop"
    """Queries without a relevant item are left out, or count 0. Unlabelled rows never count."""
    domains: bool = False
    """Whether to report each domain, the part of an id before its first slash; none where ids
    have no slash."""
    whitening: WhiteningOptions = WhiteningOptions()
    query_expansion: ExpansionOptions = ExpansionOptions()
    database_augmentation: ExpansionOptions = ExpansionOptions()
    reranking: RerankingOptions = RerankingOptions()
    transductive: bool = False
    """Whether steps are allowed that learn from what is searched, or from all queries together;
    their metrics are named `transductive.<metric>`."""

    def __post_init__(self) -> None:
        """Refuse values out of range, and steps that look at the test rows unasked."""
        check_ks("k", self.k)
        check_choice("gallery", self.gallery, get_args(Gallery))
        check_choice("setting", self.setting, get_args(Setting))
        check_choice("convention", self.convention, get_args(Convention))
        check_choice("ties", self.ties, get_args(Ties))
        check_choice("without_relevant", self.without_relevant, get_args(Empty))
        check_choice("whitening.fit", self.whitening.fit, ("none", "train", "gallery"))
        if self.ties == "average" and self.convention != "standard":
            raise OptionError(
                f"`ties: average` needs `convention: standard`; got {self.convention!r}. Use "
                "pessimistic, or id."
            )
        if self.gallery == "test" and self.reranking.k1 and self.query_expansion.neighbours:
            raise OptionError(
                "`reranking` with `query_expansion` needs `gallery: train`, as an expanded query "
                "is no row of its own gallery any more; got `gallery: test`. Leave one out."
            )
        steps = self.transductive_steps()
        if steps and not self.transductive:
            raise OptionError(
                "A step that learns from the gallery or from all queries needs `transductive: "
                f"true`; got {', '.join(steps)}. Say so, or fit the whitening on other rows."
            )

    def transductive_steps(self) -> tuple[str, ...]:
        """Return the steps in use that no single query with its gallery could take."""
        own = self.gallery == "test"
        whitening = self.whitening.fit
        found = {
            f"whitening.fit: {whitening}": whitening == "gallery"
            or (whitening == "train" and not own),
            "database_augmentation": own and self.database_augmentation.neighbours > 0,
            "reranking": self.reranking.k1 > 0,
        }
        return tuple(name for name, is_used in found.items() if is_used)
