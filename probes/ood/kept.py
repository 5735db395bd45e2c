"""Statistics that are computed once: held for a run, and handed from one run to the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

    Array = NDArray[np.generic]

Record = TypeVar("Record")


class Kept:
    """Statistics by name; a name holds every option that decides the value."""

    def __init__(self, arrays: Mapping[str, Array] | None = None, *, device: str = "cpu") -> None:
        """Start from what an earlier run on the same rows and head handed on."""
        self._arrays: dict[str, Array] = dict(arrays or {})
        self._tensors: dict[str, torch.Tensor] = {}
        self._records: dict[str, Any] = {}
        self._device = device

    @property
    def arrays(self) -> Mapping[str, Array]:
        """What to hand on to the next run."""
        return self._arrays

    def tensor(self, name: str, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Return a tensor on the device, computed if it is not known yet."""
        import torch

        if name not in self._tensors:
            if name in self._arrays:
                self._tensors[name] = torch.as_tensor(self._arrays[name], device=self._device)
            else:
                self._tensors[name] = compute()
                self._arrays[name] = _plain(self._tensors[name])
        return self._tensors[name]

    def record(
        self,
        name: str,
        kind: type[Record],
        compute: Callable[[], Record],
        *,
        load: Callable[[Array], Any] = np.asarray,
    ) -> Record:
        """Return a dataclass of arrays and numbers, computed if it is not known yet.

        Args:
            name: What it is called.
            kind: Its class.
            compute: Makes it.
            load: Makes of a stored array what the class holds.
        """
        if name not in self._records:
            parts = {one.name: f"{name}.{one.name}" for one in fields(kind)}  # type: ignore[arg-type]
            if set(parts.values()) <= self._arrays.keys():
                stored = {part: self._arrays[place] for part, place in parts.items()}
                self._records[name] = kind(
                    **{part: load(one) if one.ndim else one.item() for part, one in stored.items()}
                )
            else:
                self._records[name] = compute()
                for part, place in parts.items():
                    self._arrays[place] = _plain(getattr(self._records[name], part))
        found: Record = self._records[name]
        return found


def _plain(value: Any) -> Array:  # noqa: ANN401
    """Return an array, a tensor on any device, or a number as an array."""
    return np.asarray(value.cpu() if hasattr(value, "cpu") else value)
