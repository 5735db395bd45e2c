"""Write `docs/cli.md` from the commands' `--help`, or check that it is up to date.

Usage: python -m tests.cli.reference [--check]
"""

import os
import sys
from pathlib import Path

os.environ |= {"NO_COLOR": "1", "TERM": "dumb", "TERMINAL_WIDTH": "100"}

from typer.models import CommandInfo
from typer.testing import CliRunner

from featcache.cli.app import app

TARGET = Path(__file__).parents[2] / "docs" / "cli.md"


def commands() -> list[tuple[str, ...]]:
    """Return every command of the application, in its own order."""
    groups = [
        ((), app),
        *(((one.name or "",), one.typer_instance) for one in app.registered_groups),
    ]
    found: list[tuple[str, ...]] = [()]
    for prefix, group in groups:
        assert group is not None
        found += [(*prefix, _name(one)) for one in group.registered_commands]
    return found


def _name(command: CommandInfo) -> str:
    assert command.callback is not None
    return command.name or command.callback.__name__.replace("_", "-")


def reference() -> str:
    parts = ["# Command line\n\nWritten from each command's `--help` by `make docs`.\n"]
    for command in commands():
        out = CliRunner().invoke(app, [*command, "--help"])
        assert out.exit_code == 0, out.output
        text = "\n".join(line.rstrip() for line in out.output.strip().splitlines())
        parts.append(f"## featcache {' '.join(command)}".rstrip() + f"\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    if "--check" not in sys.argv:
        TARGET.write_text(reference(), encoding="utf-8")
    elif not TARGET.exists() or TARGET.read_text(encoding="utf-8") != reference():
        sys.exit(f"{TARGET.name} must be what --help says; it is not. Run: make docs")
