"""Weights from a file: read without running code in it, fitted without leaving a tensor out."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from featcache.backbones.renamers import get_renamer
from featcache.digest import Json
from featcache.errors import CheckpointError

_WRAPPERS = ("state_dict", "model", "model_state_dict", "teacher", "student", "model_ema", "net")
"""Entries under which training scripts keep a model's tensors."""
_LISTED = 10
_COUNTER = "num_batches_tracked"
_CONVERT = (
    "Where you trust it, convert it once: "
    "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """What was done to load a file; part of the backbone's identity."""

    renamer: str
    wrapper: str | None
    """The entry of the file that held the tensors; None if they were at the top."""
    dropped: tuple[str, ...]
    """Groups of tensors (first two parts of their keys) that were not used, sorted."""

    def to_json(self) -> dict[str, Json]:
        """Return the fields as plain JSON."""
        return {"renamer": self.renamer, "wrapper": self.wrapper, "dropped": list(self.dropped)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Tensors of a file under the model's key names."""

    path: Path
    tensors: Mapping[str, torch.Tensor]
    renamer: str
    wrapper: str | None
    dropped: tuple[str, ...]
    """Keys of the file that the renamer left out."""

    def load_into(self, module: nn.Module, *, droppable: Iterable[str] = ()) -> LoadReport:
        """Copy every tensor into `module`, which must need all of them and no other.

        Args:
            module: Filled in place.
            droppable: Prefixes, such as the classifier's, of keys that the module may lack.

        Raises:
            CheckpointError: If a key is missing, unexpected or of another shape.
        """
        wanted = module.state_dict()
        prefixes = tuple(f"{prefix}." for prefix in droppable)
        extra = [key for key in self.tensors if key not in wanted]
        dropped = [key for key in extra if prefixes and key.startswith(prefixes)]
        kept = {key: value for key, value in self.tensors.items() if key in wanted}
        problems = {
            "missing": [key for key in wanted if key not in kept and not key.endswith(_COUNTER)],
            "unexpected": [key for key in extra if key not in dropped],
            "wrong shape": [
                f"{key} (file {tuple(value.shape)}, model {tuple(wanted[key].shape)})"
                for key, value in kept.items()
                if value.shape != wanted[key].shape
            ],
        }
        if any(problems.values()):
            raise CheckpointError(_mismatch(self.path, self.renamer, problems))
        module.load_state_dict(kept, strict=False)
        groups = {".".join(key.split(".")[:2]) for key in (*self.dropped, *dropped)}
        return LoadReport(renamer=self.renamer, wrapper=self.wrapper, dropped=tuple(sorted(groups)))


def load_checkpoint(module: nn.Module, path: Path, renamer: str = "none") -> LoadReport:
    """Load a file into a module, all tensors or an error.

    Args:
        module: Filled in place.
        path: A safetensors file, or one of `torch.save` that holds tensors only.
        renamer: Name of the rule that translates the file's keys.

    Raises:
        CheckpointError: If the file cannot be read, or does not fit the module.
        UnknownNameError: If there is no such renamer.
    """
    return read_checkpoint(path, renamer, module).load_into(module)


def read_checkpoint(path: Path, renamer: str, module: nn.Module) -> Checkpoint:
    """Read a file and rename its keys to those of `module`, without loading them yet.

    Raises:
        CheckpointError: If the file cannot be read without running code in it, holds no
            tensors or several models, or if two keys get one name.
        UnknownNameError: If there is no such renamer.
    """
    rule = get_renamer(renamer)
    tensors, wrapper = _unwrap(_read(path), path, rule.wrapper)
    names = rule.rename(tensors.keys(), module.state_dict().keys())
    renamed = {new: tensors[old] for old, new in names.items()}
    if not renamed or len(renamed) < len(names):
        raise CheckpointError(
            f"Renamer {renamer!r} must give each tensor a name of its own; of {len(tensors)} keys "
            f"in {str(path)!r} it made {len(renamed)}, e.g. from {min(tensors)!r}. "
            "Choose another renamer."
        )
    dropped = tuple(sorted(tensors.keys() - names.keys()))
    return Checkpoint(path=path, tensors=renamed, renamer=renamer, wrapper=wrapper, dropped=dropped)


def _read(path: Path) -> Any:  # noqa: ANN401  what a file holds is not known before
    """Return what the file holds; never unpickles anything but tensors and plain containers."""
    if not path.is_file():
        got = "a directory" if path.is_dir() else "nothing there"
        raise CheckpointError(
            f"A checkpoint must be a file; got {got} at {str(path)!r}. Check the path."
        )
    try:
        with path.open("rb") as file:
            head = file.read(16)
        if path.suffix == ".safetensors" or head[8:9] == b"{":
            from safetensors.torch import load_file

            return load_file(path, device="cpu")
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if _was_refused(error):
            raise CheckpointError(
                f"A checkpoint must hold tensors only; {str(path)!r} needs code to be unpickled "
                f"and was refused, because that code could do anything. {_CONVERT}"
            ) from error
        reason = "the file is empty" if not path.stat().st_size else _first_line(error)
        raise CheckpointError(
            f"A checkpoint must be a whole safetensors or torch file; {str(path)!r} cannot be "
            f"read ({type(error).__name__}: {reason}). Download it again."
        ) from error


def _was_refused(error: Exception) -> bool:
    text = str(error)
    if isinstance(error, pickle.UnpicklingError):
        return "Unsupported" in text or "GLOBAL" in text
    return "weights_only=True" in text or "TorchScript" in text


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "no message")[:160]


def _unwrap(
    loaded: Any,  # noqa: ANN401
    path: Path,
    wrapper: str | None,
) -> tuple[dict[str, torch.Tensor], str | None]:
    """Return the tensors and the entry that held them; one level of wrapping is looked through."""
    if isinstance(loaded, Mapping) and _is_state_dict(loaded):
        return dict(loaded), None
    found = [
        name
        for name in _WRAPPERS
        if isinstance(loaded, Mapping)
        and isinstance(loaded.get(name), Mapping)
        and _is_state_dict(loaded[name])
    ]
    if wrapper in found:
        found = [str(wrapper)]
    if len(found) != 1:
        holds = sorted(map(str, loaded))[:_LISTED] if isinstance(loaded, Mapping) else type(loaded)
        problem = f"several models ({', '.join(found)})" if found else f"no state dict ({holds})"
        raise CheckpointError(
            f"A checkpoint must hold one state dict, at the top or under one of "
            f"{', '.join(_WRAPPERS)}; {str(path)!r} holds {problem}. Save the one you mean: "
            "safetensors.torch.save_file(state_dict, 'weights.safetensors')"
        )
    return dict(loaded[found[0]]), found[0]


def _is_state_dict(value: Mapping[Any, Any]) -> bool:
    return bool(value) and all(
        isinstance(name, str) and isinstance(item, torch.Tensor) for name, item in value.items()
    )


def _mismatch(path: Path, renamer: str, problems: Mapping[str, list[str]]) -> str:
    parts = []
    for kind, keys in problems.items():
        if keys:
            more = f", … and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
            parts.append(f"{len(keys)} {kind}: {', '.join(sorted(keys)[:_LISTED])}{more}")
    return (
        f"A checkpoint must have exactly the architecture's tensors; {str(path)!r} has, after "
        f"renamer {renamer!r}, {'; '.join(parts)}. Choose the right architecture or --renamer."
    )
