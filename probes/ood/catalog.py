"""The table of detectors: what each is called, needs and assumes, and who proposed it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorFacts:
    """One detector; its function has its name, in the module named."""

    module: str
    source: str
    needs_head: bool = False
    needs_text: bool = False
    """Whether it reads raw cosines to class texts."""
    needs_covariance: bool = False
    needs_positive: bool = False
    """Whether it was made for activations that are never negative."""
    grid: Mapping[str, tuple[float, ...]] | None = None
    """Option to the values that OpenOOD tunes over."""


_SHARES = (65.0, 70.0, 75.0, 80.0, 85.0, 90.0, 95.0)


def _logit(source: str, **grid: tuple[float, ...]) -> DetectorFacts:
    return DetectorFacts(module="logits", source=source, needs_head=True, grid=grid or None)


def _shaping(source: str, **grid: tuple[float, ...]) -> DetectorFacts:
    return DetectorFacts(
        module="shaping", source=source, needs_head=True, needs_positive=True, grid=grid or None
    )


def _geometry(source: str, **others: bool | Mapping[str, tuple[float, ...]]) -> DetectorFacts:
    return DetectorFacts(module="geometry", source=source, **others)  # type: ignore[arg-type]


DETECTORS: Mapping[str, DetectorFacts] = {
    "msp": _logit("arXiv:1610.02136"),
    "temperature": _logit("arXiv:1706.04599"),
    "maxlogit": _logit("arXiv:1911.11132"),
    "energy": _logit("arXiv:2010.03759"),
    "entropy": _logit("Shannon entropy of the softmax"),
    "gen": _logit(
        "Liu et al. 2023, CVPR (GEN)",
        gen_gamma=(0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0),
        gen_top=(10.0, 50.0, 100.0, 200.0, 500.0, 1000.0),
    ),
    "kl_matching": _logit("arXiv:1911.11132"),
    "openmax": _logit("arXiv:1511.06233"),
    "mcm": DetectorFacts(
        module="logits",
        source="arXiv:2211.13445",
        needs_text=True,
        grid={"mcm_temperature": (0.01, 1.0, 10.0)},
    ),
    "mahalanobis": _geometry("arXiv:1807.03888", needs_covariance=True),
    "relative_mahalanobis": _geometry("arXiv:2106.09022", needs_covariance=True),
    "gaussian": _geometry("arXiv:2103.12051 (SSD) with one component", needs_covariance=True),
    "knn": _geometry("arXiv:2204.06507", grid={"k": (50.0, 100.0, 200.0, 500.0, 1000.0)}),
    "vim": _geometry(
        "arXiv:2203.10807",
        needs_head=True,
        needs_covariance=True,
        grid={"subspace": (256.0, 1000.0)},
    ),
    "residual": _geometry("arXiv:2203.10807", needs_head=True, needs_covariance=True),
    "neco": _geometry("arXiv:2310.06823", needs_covariance=True),
    "react": _shaping("arXiv:2111.12797", react_percentile=(85.0, 90.0, 95.0, 99.0)),
    "dice": _shaping("arXiv:2111.09805", dice_percentile=(10.0, 30.0, 50.0, 70.0, 90.0)),
    "ash_p": _shaping("arXiv:2209.09858", ash_percentile=_SHARES),
    "ash_b": _shaping("arXiv:2209.09858", ash_percentile=_SHARES),
    "ash_s": _shaping("arXiv:2209.09858", ash_percentile=_SHARES),
    "scale": _shaping("arXiv:2310.00227", scale_percentile=_SHARES),
    "lts": _shaping("Djurisic et al. 2024 (LTS)"),
    "vra": _shaping("arXiv:2302.11716"),
    "she": _geometry("Zhang et al. 2023, ICLR (SHE)", needs_head=True),
    "gradnorm": _geometry("arXiv:2110.00218", needs_head=True, needs_positive=True),
    "nnguide": _geometry("arXiv:2309.14888", needs_head=True),
    "relation": _geometry(
        "arXiv:2301.12321",
        needs_head=True,
        grid={"relation_power": (1.0, 2.0, 4.0, 6.0, 8.0)},
    ),
    "fdbd": _geometry("arXiv:2312.11536", needs_head=True),
    "nci": _geometry(
        "arXiv:2311.01479", needs_head=True, grid={"nci_alpha": (1e-4, 1e-3, 1e-2, 1e-1)}
    ),
    "pnml": _geometry("arXiv:2110.09246", needs_head=True),
}
"""Larger scores mean more in-distribution, for each of them."""

DEFAULT = tuple(name for name, facts in DETECTORS.items() if not facts.needs_text)
