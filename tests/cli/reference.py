"""Write `docs/cli.md` from the commands' `--help`, or check that it is up to date.

Usage: python -m tests.cli.reference [--check]
"""

import os
import sys
from pathlib import Path

os.environ |= {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb", "TERMINAL_WIDTH": "100"}

from typer.testing import CliRunner

from featcache.cli.app import app

TARGET = Path(__file__).parents[2] / "docs" / "cli.md"
COMMANDS = (
    (),
    ("quickstart",),
    ("extract",),
    ("probe",),
    ("report",),
    ("ls",),
    ("cache", "info"),
    ("cache", "verify"),
    ("cache", "explain"),
)


def reference() -> str:
    parts = ["# Command line\n\nWritten from each command's `--help` by `make docs`.\n"]
    for command in COMMANDS:
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
