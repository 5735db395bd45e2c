"""Mutators of valid input, and a loop that counts what a reader makes of the mutants.

Plain seeded Python: a hundred times as many inputs a second as a library that also shrinks them.
A reader may take an input or raise a `FeatcacheError`. Anything else is a find: another exception,
a wrong answer (an `AssertionError` of the target), more than `MORE_BYTES` of memory at once, or
more than `HUNG_S` seconds.
"""

import json
import random
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featcache.errors import FeatcacheError

HUNG_S = 10.0
MORE_BYTES = 1 << 30


def nested(depth):
    return [nested(depth - 1)] if depth else []


HOSTILE = (
    None,
    True,
    False,
    -1,
    0,
    1,
    1.5,
    1e308,
    float("nan"),
    float("inf"),
    10**15,
    10**30,
    10**4000,
    2**63,
    "",
    "NaN",
    "-Infinity",
    "../../x",
    "/etc/x",
    "a\0b",
    "x" * 20_000,
    "\udc80",
    "\U0001f600\u202e",
    "object",
    "float64",
    nested(40),
    nested(100),
    {},
    [],
    [{}],
    [{"path": "x", "bytes": 1, "blake3": "0" * 64}],
    {"\udc80": 1},
    {"": None},
    ["x", 1],
)

TOKENS = (
    b'"',
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"\\",
    b"\0",
    b"\xff",
    b"\xed\xb2\x80",
    b"\xef\xbb\xbf",
    b'"\\udc80"',
    b"null",
    b"true",
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"-",
    b".5",
    b"9" * 5000,
    b"[" * 100,
    b"[" * 5000,
    b'{"a":' * 2000,
    b"\n",
    b"=",
    b"#",
)


def mutated_bytes(data: bytes, rng: random.Random) -> bytes:
    """Return `data` after one to four random edits."""
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice((1, 1, 2, 8, 64)))
        kind = rng.randrange(6)
        if kind == 0 and at < len(data):
            data = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
        elif kind == 1:
            data = data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
        elif kind == 2:
            data = data[:at] + data[end:]
        elif kind == 3:
            data = data[:at] + rng.choice(TOKENS) + data[at:]
        elif kind == 4:
            data = data[:at] + data[at:end] * 2 + data[end:]
        elif rng.random() < 0.3:  # seldom, since little is left to be read afterwards
            data = data[:at]
    return data


def mutated_json(value: Any, rng: random.Random) -> Any:
    """Return a copy of a JSON value in which one to three nodes were replaced, removed or added."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = list(_places(value))
        value = _edited(value, rng.choice(places), rng) if places else rng.choice(HOSTILE)
    return value


def mutated_text(value: Any, rng: random.Random) -> bytes:
    """Return the JSON text of `value`, mutated as a value, as bytes, or both."""
    kind = rng.randrange(4)
    if kind < 3:
        value = mutated_json(value, rng)
    text = json.dumps(value, indent=2 if rng.random() < 0.5 else None).encode()
    return text if kind < 2 else mutated_bytes(text, rng)


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else ()
    for name, item in enumerate(value) if isinstance(value, list) else items:
        yield (*path, name)
        if len(path) < 10:  # a hostile value may be nested deeper than is worth walking
            yield from _places(item, (*path, name))


def _edited(value: Any, path: tuple[Any, ...], rng: random.Random) -> Any:
    """Copy what leads to the node and change that alone; the rest is shared with `value`."""
    name, *rest = path
    copy = value.copy()
    if rest:
        copy[name] = _edited(value[name], tuple(rest), rng)
        return copy
    kind = rng.randrange(10)
    if kind == 0:
        del copy[name]
    elif kind == 1 and isinstance(copy, dict):
        copy[rng.choice((*copy, "more", "", "../x", "\udc80"))] = rng.choice(HOSTILE)
    elif kind == 1:
        copy.insert(name, rng.choice((copy[name], *HOSTILE)))
    elif kind < 5:
        copy[name] = _confused(copy[name], rng)
    else:
        copy[name] = rng.choice(HOSTILE)
    return copy


def _confused(value: Any, rng: random.Random) -> Any:
    """Return something that looks like `value` and is not."""
    if isinstance(value, bool) or value is None:
        return rng.choice((0, 1, "", "null", [value]))
    if isinstance(value, int | float):
        if not abs(value) < 2**64:  # no float has so many digits, and NaN compares with nothing
            return -value
        near = (float(value), value + 1, -value, value * 2, bool(value), str(value), [value])
        return rng.choice(near)
    if isinstance(value, str):
        near = (value + "x", value[:-1], value.upper(), value + "\0", [value], {value: 1})
        return rng.choice(near)
    return rng.choice(([value], list(value), str(value)[:100]))


@dataclass(frozen=True)
class Target:
    """One reader of input that may be hostile."""

    name: str
    make: Callable[[random.Random], Any]
    """Returns a mutant."""
    read: Callable[[Any], object]
    """Reads it, and asserts what must be true of an input that is taken."""
    share: float = 1.0
    """Inputs it gets, as a ratio to other targets; what touches the disk gets less."""


@dataclass
class Outcome:
    """What became of the inputs of one target."""

    target: str
    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    others: int = 0
    first: str = ""
    """The first input that was neither taken nor refused, and what it raised."""


class Hung(BaseException):
    """An input took too long; not an `Exception`, so that no reader takes it for its own."""


def fuzz(target: Target, inputs: int, seed: int) -> Outcome:
    """Give a target mutants of a seeded generator, and count what it makes of them."""
    rng = random.Random(f"{target.name} {seed}")
    outcome = Outcome(target.name, inputs)
    with bounded():
        for number in range(inputs):
            mutant = target.make(rng)
            signal.setitimer(signal.ITIMER_REAL, HUNG_S)
            try:
                target.read(mutant)
                outcome.accepted += 1
            except FeatcacheError as error:
                outcome.refused += bool(str(error))
            except (Exception, Hung) as error:
                outcome.others += 1
                if not outcome.first:
                    outcome.first = f"input {number}: {error!r:.500} from {mutant!r:.2000}"
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
    return outcome


@contextmanager
def bounded() -> Iterator[None]:
    """Refuse this process memory beyond `MORE_BYTES` more, touched or not, and hear the alarm."""

    def hung(_signal: int, _frame: object) -> None:
        raise Hung(f"more than {HUNG_S} s")

    before = signal.signal(signal.SIGALRM, hung)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    statm = Path("/proc/self/statm")
    if statm.exists():
        used = int(statm.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MORE_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGALRM, before)
