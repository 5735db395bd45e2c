"""Options of the analysis of feature sets."""

from __future__ import annotations

from dataclasses import dataclass

from featcache.errors import OptionError
from featcache.probes.options import check_at_least, check_range


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisOptions:
    """How many rows are looked at, and the parameters of the published scores."""

    sample: int = 10_000
    """Rows that everything is computed from, drawn by seed among those all backbones have."""
    pair_sample: int = 2_000
    """Of these, rows whose N²/2 pairs are ranked (PARC, RSA) or summed (uniformity)."""
    neighbours: int = 10
    """Of the leave-one-out vote and of mutual neighbours. 10: platonic-rep's `topk`."""
    temperature: float = 0.07
    """Of the vote: cosine / temperature. 0.07: DINO's `eval_knn.py`."""
    epsilon: float = 1e-4
    """Distortion of TransRate, for features of unit mean square norm. 1e-4: its listing."""
    bhattacharyya_dims: int = 64
    """Principal components that GBC sees; 0 for all dimensions. 64: the paper's choice."""
    parc_dims: int = 32
    """Principal components that PARC sees; 0 for all dimensions. 32: dbolya/parc."""
    mixture_components: int = 5
    """Gaussians of N-LEEP per class. 5: Li et al. 2021."""
    mixture_variance: float = 0.8
    """Share of the variance that N-LEEP's principal components keep. 0.8: Li et al. 2021."""
    mixture_operations: float = 5e10
    """N-LEEP is skipped where one step of its fit takes more than rows · components · dims²;
    5e10 is about ten seconds a step on two cores."""
    energy_share: float = 0.005
    """Share of the rows, those of lowest energy, that ETran's energy is the mean of."""
    batch_rows: int = 256
    """Rows of a batch in minibatch CKA. 256: Nguyen et al. 2021."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_at_least("sample", self.sample, 4)  # debiased CKA is undefined below
        check_at_least("pair_sample", self.pair_sample, 4)
        check_at_least("neighbours", self.neighbours, 1)
        check_at_least("bhattacharyya_dims", self.bhattacharyya_dims, 0)
        check_at_least("parc_dims", self.parc_dims, 0)
        check_at_least("mixture_components", self.mixture_components, 1)
        check_at_least("batch_rows", self.batch_rows, 4)
        check_range("mixture_variance", self.mixture_variance, 0, 1)
        for name in ("temperature", "epsilon", "mixture_operations"):
            check_range(name, getattr(self, name), 0, float("inf"))
        if not 0 < self.energy_share <= 1:
            raise OptionError(
                f"`energy_share` must be above 0 and at most 1; got {self.energy_share!r}. "
                "1 takes the mean over all rows."
            )
