"""Read a published pickle that holds plain data, without running anything that it names.

A pickle is a program. Python's own unpickler lets it call any function it can import; this one
knows only those that numpy's arrays and numbers are written with, and puts its own in their place,
so that not even numpy's code runs on what the file says. Anything else is refused.
"""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from featcache.errors import DatasetError

Plain = Any
"""dict, list, tuple, str, int, float, bool, None, or an array of numbers; nested."""

_MAX_DEPTH = 16
_KINDS = "biuf"
_OPEN = object()  # stands for a container that is not done yet


class PlainDataError(DatasetError):
    """A pickle names something else than plain data."""


def load_plain(path: Path) -> Plain:
    """Return what a pickle of plain data holds.

    Pickles of Python 2 are read too; their text must be Latin-1.

    Args:
        path: The file.

    Returns:
        Containers, text, numbers and numpy arrays of numbers; a numpy scalar becomes a number.

    Raises:
        PlainDataError: If it names, calls or holds anything else, or is no whole pickle.
    """
    try:
        with path.open("rb") as file:
            loaded = _Reader(file, encoding="latin1").load()
        return _plain(loaded, {}, 0)
    except PlainDataError as error:
        raise PlainDataError(
            f"A pickle that comes from elsewhere must hold containers, text and numbers alone; "
            f"{str(path)!r} {error}. Do not open it with Python; fetch the published file again."
        ) from None
    except (
        pickle.UnpicklingError,
        AttributeError,
        EOFError,
        IndexError,
        KeyError,
        OSError,
    ) as error:
        raise PlainDataError(_broken(path, error)) from error
    except (MemoryError, OverflowError, RecursionError, TypeError, ValueError) as error:
        raise PlainDataError(_broken(path, error)) from error


def _broken(path: Path, error: Exception) -> str:
    return f"{str(path)!r} must be a whole pickle; it is not: {error}. Fetch it again."


def _refuse(what: str) -> NoReturn:
    raise PlainDataError(what)


class _Array:
    """Stands for an array until its shape, type and bytes are there."""

    __slots__ = ("value",)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _version, shape, dtype, is_fortran, data = state
        self.value = _array(dtype, shape, data, "F" if is_fortran else "C")


class _DType:
    """Stands for the type of an array."""

    __slots__ = ("value",)

    def __init__(self, code: str) -> None:
        self.value = np.dtype(code) if isinstance(code, str) and code[:1] in _KINDS else None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if self.value is not None and state[1] in ("<", ">"):
            self.value = self.value.newbyteorder(state[1])


def _array(dtype: object, shape: Any, data: Any, order: Any) -> NDArray[Any]:  # noqa: ANN401
    if not isinstance(dtype, _DType) or dtype.value is None:
        _refuse("holds an array of something else than numbers")
    raw = data.encode("latin1") if isinstance(data, str) else data
    if not isinstance(raw, bytes) or math.prod(shape) * dtype.value.itemsize != len(raw):
        _refuse("holds an array whose bytes do not fit its shape")
    return np.frombuffer(raw, dtype.value).reshape(shape, order=order).copy()


class _Call:
    """A function that a pickle may name; it has no attributes that a pickle could set."""

    __slots__ = ("name",)
    name: str

    def __init__(self, name: str) -> None:
        object.__setattr__(self, "name", name)

    def __setattr__(self, name: str, value: object) -> None:
        _refuse(f"sets {name!r} of what it must only call")

    def __call__(self, *given: Any) -> object:  # noqa: ANN401
        if self.name == "dtype":
            return _DType(given[0])
        if self.name == "_reconstruct":
            return _Array()
        if self.name == "scalar":
            return _array(given[0], (), given[1], "C").item()
        if self.name == "bytes" and not given:
            return b""
        if self.name == "encode" and given[1:] in ((), ("latin1",)) and isinstance(given[0], str):
            return given[0].encode("latin1")
        _refuse(f"calls {self.name!r}")


_ALLOWED = {
    (module, name): _Call(name)
    for module, name in (
        ("numpy", "dtype"),
        ("numpy", "ndarray"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy.core.multiarray", "scalar"),
        ("numpy._core.multiarray", "scalar"),
        ("_codecs", "encode"),
        ("builtins", "bytes"),
        ("__builtin__", "bytes"),
    )
}
"""What an array, its type and a scalar are written with; `ndarray` is named and never called, and
`bytes` makes the bytes of an empty array."""


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401
        if (module, name) not in _ALLOWED:
            _refuse(f"names {module}.{name}")
        return _ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> NoReturn:  # noqa: ANN401
        _refuse(f"refers to {pid!r}, which is outside of it")


def _plain(value: Any, seen: dict[int, Plain], depth: int) -> Plain:  # noqa: ANN401
    """Put arrays in the place of what stands for them; refuse what is no plain data.

    Each object is visited once, so that one which refers to itself many times costs no more.
    """
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, _Array) and hasattr(value, "value"):
        return value.value
    if depth > _MAX_DEPTH:
        _refuse(f"is nested more than {_MAX_DEPTH} deep")
    if id(value) not in seen:
        seen[id(value)] = _OPEN
        if isinstance(value, dict):
            seen[id(value)] = {
                _plain(key, seen, depth + 1): _plain(one, seen, depth + 1)
                for key, one in value.items()
            }
        elif isinstance(value, list | tuple):
            seen[id(value)] = type(value)(_plain(one, seen, depth + 1) for one in value)
        else:
            _refuse(f"holds a {type(value).__name__.strip('_')}")
    elif seen[id(value)] is _OPEN:
        _refuse("holds something that holds itself")
    return seen[id(value)]
