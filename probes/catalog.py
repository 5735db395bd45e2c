"""The registry of protocols, and the built-in ones: one YAML file each under `protocols/`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from typing import TYPE_CHECKING

from featcache.probes.options import check_choice
from featcache.probes.protocol import Protocol
from featcache.probes.tasks import TASKS, TaskInputs
from featcache.registry import Entry, Registry, read_yaml

if TYPE_CHECKING:
    from featcache.result_store import Outcome

Runner = Callable[[Protocol, TaskInputs], "Outcome"]

PROTOCOLS: Registry[Runner] = Registry(
    "protocol", "featcache.probes", list_command="featcache ls protocols"
)


def entries() -> dict[str, Entry]:
    """Return the built-in protocols; an entry's facts are its YAML file.

    A plug-in returns the like from its own `featcache.probes` entry point. The target of its
    entry is a function (protocol, inputs) -> Outcome; with a built-in task's own function the
    options are validated as that task's.
    """
    found = {}
    for file in resources.files("featcache.probes.protocols").iterdir():
        if file.name.endswith(".yaml"):
            facts = read_yaml(file.read_text(encoding="utf-8"))
            found[file.name.removesuffix(".yaml")] = Entry(TASKS[facts["task"]].runner, facts)
    return dict(sorted(found.items()))


def load_protocol(name: str) -> Protocol:
    """Return the protocol registered as `name`, such as `knn@1`.

    Raises:
        UnknownNameError: If there is none; the message gives the nearest names.
        OptionError: If it has an option that its task does not take.
    """
    return Protocol.from_entry(name, PROTOCOLS.get(name))


def default_protocol(task: str) -> Protocol:
    """Return the protocol that a task uses where none is named.

    Raises:
        OptionError: If there is no such task.
    """
    check_choice("task", task, list(TASKS))
    return load_protocol(TASKS[task].default_protocol)
