"""Options of copy detection."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from featcache.errors import OptionError
from featcache.probes.options import check_at_least, check_choice
from featcache.probes.retrieval.options import WhiteningOptions

Background = Literal["none", "other"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NormalisationOptions:
    """Scores less what a query has with anything: β times its mean similarity to a background."""

    neighbours: int = 0
    """Nearest background rows averaged over; 0 for none. 3: SSCD, arXiv:2202.10261."""
    beta: float = 1.0
    """Weight. 1: ibid."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_at_least("normalisation.neighbours", self.neighbours, 0)
        check_at_least("normalisation.beta", self.beta, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyOptions:
    """Options of copy detection: test rows are queries, train rows are references."""

    candidates: int = 500_000
    """Pairs of all queries that are listed. 500 000: the challenge of DISC21."""
    ground_truth: str = ""
    """JSON file `{query id: [reference id, ...]}` of the true matches; a query that it lacks has
    none. The same class if empty, where unlabelled queries have none."""
    exclude: str = ""
    """JSON file `{query id: [reference id, ...]}` of pairs that are not scored."""
    background: Background = "none"
    """`other`: rows of other datasets that hold no copies, for whitening and normalisation."""
    whitening: WhiteningOptions = field(default_factory=WhiteningOptions)
    normalisation: NormalisationOptions = NormalisationOptions()
    transductive: bool = False
    """Whether a whitening may be fitted on the references; metrics are then named
    `transductive.<metric>`."""

    def __post_init__(self) -> None:
        """Refuse values out of range, and steps that lack their rows."""
        check_at_least("candidates", self.candidates, 1)
        check_choice("background", self.background, get_args(Background))
        check_choice("whitening.fit", self.whitening.fit, ("none", "background", "gallery"))
        uses = self.whitening.fit == "background" or self.normalisation.neighbours > 0
        if uses and self.background == "none":
            raise OptionError(
                "A whitening or normalisation by a background needs `background: other`; got "
                "'none'. Give other datasets, or leave the step out."
            )
        if self.whitening.fit == "gallery" and not self.transductive:
            raise OptionError(
                "A whitening fitted on the references needs `transductive: true`; got false. "
                "Say so, or fit it on a background."
            )
