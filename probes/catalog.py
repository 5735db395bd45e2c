"""The registry of protocols, and the built-in ones: one YAML file each under `protocols/`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from typing import TYPE_CHECKING

from featcache.probes.protocol import RUNNERS
from featcache.registry import Entry, Registry

if TYPE_CHECKING:
    from featcache.probes.protocol import Protocol
    from featcache.probes.tasks import TaskInputs
    from featcache.results import Outcome

Runner = Callable[["Protocol", "TaskInputs"], "Outcome"]

PROTOCOLS: Registry[Runner] = Registry(
    "protocol", "featcache.probes", list_command="featcache ls protocols"
)


def entries() -> dict[str, Entry]:
    """Return the built-in protocols; an entry's facts are its YAML file.

    A plug-in returns the like from its own `featcache.probes` entry point. The target of its
    entry is a function (protocol, inputs) -> Outcome; with a built-in task's own function the
    options are validated as that task's.
    """
    import yaml

    found = {}
    for file in resources.files("featcache.probes.protocols").iterdir():
        if file.name.endswith(".yaml"):
            facts = yaml.safe_load(file.read_text(encoding="utf-8"))
            found[file.name.removesuffix(".yaml")] = Entry(RUNNERS[facts["task"]], facts)
    return dict(sorted(found.items()))
