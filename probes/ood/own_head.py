"""The classifier of an OOD run that was given none: a linear probe on the ID train rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from featcache.fit_store import Fit
from featcache.probes.arrays import Features
from featcache.probes.calibration.temperature import fit_temperature
from featcache.probes.linear.head import LinearHead
from featcache.probes.linear.options import LinearOptions
from featcache.probes.linear.probe import fit_and_hold_out


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnHead:
    """A fitted head with the temperature of its logits."""

    head: LinearHead
    temperature: float
    """Fitted on rows that were held out while the strength was chosen; 1 without any."""
    is_capped: bool
    """Whether the temperature lies at the end of its range."""
    is_new: bool
    """Whether it was fitted in this run."""

    @classmethod
    def fitted(
        cls,
        features: Features,
        labels: NDArray[np.int64],
        options: LinearOptions,
        rng: np.random.Generator,
        *,
        device: str,
    ) -> Self:
        """Fit a head on features of shape (N, D) and labels of shape (N,)."""
        fit = fit_and_hold_out(features, labels, options, rng, device=device)
        temperature, is_capped = 1.0, False
        if len(fit.held_labels):
            found = fit_temperature(fit.held_logits, fit.held_labels)
            temperature, is_capped = found.value, found.is_capped
        return cls(head=fit.head, temperature=temperature, is_capped=is_capped, is_new=True)

    @classmethod
    def of_fit(cls, fit: Fit) -> Self | None:
        """Return the head that an earlier run fitted, if it did."""
        if "own" not in fit.details:
            return None
        facts = fit.details["own"]
        head = LinearHead(
            classes=fit.arrays["own.classes"].astype(np.int64),
            weights=fit.arrays["own.weights"].astype(np.float64),
            bias=fit.arrays["own.bias"].astype(np.float64),
            is_unit_norm=facts["is_unit_norm"],
            details=facts["details"],
        )
        return cls(
            head=head,
            temperature=facts["temperature"],
            is_capped=facts["is_capped"],
            is_new=False,
        )

    def to_fit(self) -> Fit:
        """Return what `of_fit` reads."""
        arrays = {
            "own.classes": self.head.classes,
            "own.weights": self.head.weights,
            "own.bias": self.head.bias,
        }
        facts = {
            "is_unit_norm": self.head.is_unit_norm,
            "details": self.head.details,
            "temperature": self.temperature,
            "is_capped": self.is_capped,
        }
        return Fit(arrays=arrays, details={"own": facts})
