"""Options of out-of-distribution detection."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from featcache.digest import Json
from featcache.errors import OptionError
from featcache.probes.linear.options import LinearOptions
from featcache.probes.ood.catalog import DEFAULT, DETECTORS
from featcache.probes.options import check_at_least, check_choice, check_range

Tune = Literal["none", "openood"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OodOptions:
    """Options of out-of-distribution detection; defaults are OpenOOD v1.5's where it has them."""

    detectors: tuple[str, ...] = DEFAULT
    primary: str = "knn"
    """Its AUROC, averaged over OOD sets, is the primary metric."""
    groups: Mapping[str, Json] = field(default_factory=dict)
    """Name of a group, such as near and far, to the OOD datasets in it."""
    full_spectrum: tuple[str, ...] = ()
    """Datasets given as OOD that are ID under a shift: they count as ID in `fs.` metrics."""
    tune: Tune = "none"
    """`openood`: also choose hyper-parameters by AUROC against `tuning_sets`, for `tuned.` metrics.
    It has seen a kind of OOD data, so it is never the primary number."""
    tuning_sets: tuple[str, ...] = ()
    contaminated: Mapping[str, Json] = field(default_factory=dict)
    """OOD dataset to why the backbone may have been trained on it, beside what is known of both."""
    k: int = 50  # OpenOOD v1.5 knn.yml
    k_class_share: float = 0.1
    """`k` is at most this share of the mean class size: the k-th neighbour of a typical row must
    be of its own class. 0.1 leaves 50 as it is from 500 rows per class on (CIFAR, ImageNet)."""
    temperature: float = 1.0  # Liu et al. 2020, arXiv:2010.03759
    eigenvalue_floor: float = 2.0**-22
    """Share of the largest variance; float16 rounds values to 2^-11, so less is rounding noise."""
    gen_gamma: float = 0.1
    gen_top: int = 100
    openmax_tail: int = 20
    openmax_alpha: int = 3
    mcm_temperature: float = 1.0
    subspace: int = 0
    """Dimensions of the principal space of `vim` and `residual`; 0: 1000 from D = 2048 on, 512 from
    768 on, else D / 2."""  # haoqiwang/vim
    neco_dims: int = 100  # Ammar et al. 2024, arXiv:2310.06823
    react_percentile: float = 90.0
    dice_percentile: float = 90.0
    ash_percentile: float = 90.0
    scale_percentile: float = 85.0
    lts_share: float = 0.05
    vra_low: float = 10.0
    vra_high: float = 90.0
    nnguide_k: int = 10  # Park et al. 2023; OpenOOD has 100 of a hundredth of train
    relation_threshold: float = 0.03
    relation_power: float = 1.0
    nci_alpha: float = 1e-4
    head: LinearOptions = field(default_factory=LinearOptions)
    """How a head is fitted on the ID train rows, where none is given."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        if not self.detectors or len(set(self.detectors)) != len(self.detectors):
            raise OptionError(
                f"`detectors` must be distinct names, at least one; got {list(self.detectors)}."
            )
        for name in self.detectors:
            check_choice("detectors", name, list(DETECTORS))
        check_choice("primary", self.primary, self.detectors)
        check_choice("tune", self.tune, get_args(Tune))
        for name, sets in self.groups.items():
            if not isinstance(sets, list | tuple) or not sets:
                raise OptionError(f"`groups.{name}` must be a list of datasets; got {sets!r}.")
        if (self.tune != "none") != bool(self.tuning_sets):
            raise OptionError(
                "`tune: openood` and `tuning_sets` must come together; got "
                f"{self.tune!r} and {list(self.tuning_sets)}. Give both, or neither."
            )
        self._check_numbers()

    def _check_numbers(self) -> None:
        for name in ("k", "gen_top", "openmax_tail", "openmax_alpha", "neco_dims", "nnguide_k"):
            check_at_least(name, getattr(self, name), 1)
        for name in ("subspace", "vra_low", "relation_threshold", "nci_alpha"):
            check_at_least(name, getattr(self, name), 0)
        for name in ("k_class_share", "temperature", "gen_gamma", "mcm_temperature"):
            check_range(name, getattr(self, name), 0, math.inf)
        for name in ("react_percentile", "dice_percentile", "ash_percentile", "scale_percentile"):
            check_range(name, getattr(self, name), 0, 100)
        check_range("relation_power", self.relation_power, 0, math.inf)
        check_range("eigenvalue_floor", self.eigenvalue_floor, 0, 1)
        check_range("lts_share", self.lts_share, 0, 1)
        check_range("vra_high", self.vra_high, self.vra_low, 100)
