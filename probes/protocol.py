"""A protocol: a method with all its options, what features it requires, and its source."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from featcache.digest import Json, canonical_json
from featcache.errors import OptionError
from featcache.probes.options import check_choice, parse_options
from featcache.probes.tasks import TASKS
from featcache.registry import Entry, load_target
from featcache.spec import ExtractionSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Requires:
    """What a feature set must be; what is left out may be anything."""

    taps: tuple[str, ...] = ()
    """The tap must be one of these."""
    transform: Mapping[str, Json] = field(default_factory=dict)
    """Fields of the transform, each with the one value it must have."""
    numerics: Mapping[str, Json] = field(default_factory=dict)
    """Fields of the numerics, each with the list of values it may have."""
    train_rows: int = 0
    """How many train rows there must be; 0: any number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How a task is scored, under a name with a version; never edited once published."""

    name: str
    task: str
    options: Mapping[str, Json]
    """Every option of a built-in method, defaults included, so that a record is complete."""
    requires: Requires = Requires()
    selection: str = ""
    """How hyper-parameters are chosen, and on which rows."""
    citation: str = ""
    published: tuple[Mapping[str, Json], ...] = ()
    """Published scores: dataset, backbone, metric, value, tolerance, source."""
    note: str = ""
    runner: str = ""
    """`module:function` from (protocol, inputs) to an Outcome; the task's own if empty."""

    def __post_init__(self) -> None:
        """Check the task and, for a built-in method, each option; fill in the defaults."""
        check_choice("task", self.task, list(TASKS))
        if not self.runner:
            object.__setattr__(self, "runner", TASKS[self.task].runner)
        if self.runner == TASKS[self.task].runner:
            complete = dataclasses.asdict(parse_options(self._options_class, self.options))
            object.__setattr__(self, "options", _plain(complete))

    @classmethod
    def from_entry(cls, name: str, entry: Entry) -> Protocol:
        """Build the protocol that a registry entry describes.

        Raises:
            OptionError: If the entry's facts have a name that no protocol has, or options the
                task does not take.
        """
        fields = {item.name for item in dataclasses.fields(cls)} - {"name", "runner"}
        for field_name in entry.facts:
            check_choice(f"{name}: field", field_name, sorted(fields))
        facts = dict(entry.facts)
        requires = facts.pop("requires", {})
        for field_name in requires:
            known = [item.name for item in dataclasses.fields(Requires)]
            check_choice(f"{name}: requires", field_name, known)
        if missing := {"task", "options"} - facts.keys():
            raise OptionError(
                f"A protocol must state its task and options; {name!r} lacks "
                f"{' and '.join(sorted(missing))}. Add them."
            )
        return cls(
            **{**facts, "published": tuple(facts.get("published", ()))},
            name=name,
            requires=Requires(**{**requires, "taps": tuple(requires.get("taps", ()))}),
            runner=entry.target,
        )

    @property
    def needs_train(self) -> bool:
        """Whether train rows are needed: by the task, as a gallery, or to fit a whitening on."""
        fitted_on = self.options.get("whitening", {}).get("fit")
        return (
            TASKS[self.task].needs_train
            or self.options.get("gallery") == "train"
            or fitted_on == "train"
        )

    @property
    def needs_direction(self) -> bool:
        """Whether a zero row is refused: of a task where options decide it, by them."""
        by_task = TASKS[self.task].needs_direction
        if self.runner != TASKS[self.task].runner:
            return by_task
        return bool(getattr(self.parsed_options(), "needs_direction", by_task))

    def parsed_options(self) -> Any:  # noqa: ANN401  the task's own dataclass
        """Return the options of a built-in method as its dataclass."""
        return parse_options(self._options_class, self.options)

    @property
    def _options_class(self) -> type[Any]:
        return cast("type[Any]", load_target(TASKS[self.task].options))


def check(protocol: Protocol, spec: ExtractionSpec) -> list[str]:
    """List in sentences where a feature set is not what a protocol requires.

    Args:
        protocol: What is to be run.
        spec: What the features are.

    Returns:
        One sentence per field: the field, what is required, what was got. Empty if all fit.
    """
    requires, found = protocol.requires, []
    if requires.taps and spec.tap not in requires.taps:
        found.append(f"`tap` must be {_either(requires.taps)}; got {spec.tap!r}.")
    for name, wanted in requires.transform.items():
        got = spec.transform.get(name)
        if canonical_json(got) != canonical_json(wanted):
            found.append(f"`transform.{name}` must be {wanted!r}; got {got!r}.")
    numerics = dataclasses.asdict(spec.numerics)
    for name, allowed in requires.numerics.items():
        if numerics.get(name) not in allowed:
            got = numerics.get(name)
            found.append(f"`numerics.{name}` must be {_either(allowed)}; got {got!r}.")
    return found


def _either(allowed: Sequence[object]) -> str:
    return " or ".join(repr(item) for item in allowed)


def _plain(value: Json) -> Json:
    """Turn tuples into lists, as JSON has no tuples."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
