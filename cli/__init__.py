"""The command line: one file per command, each parses, calls the library and prints."""

from __future__ import annotations


def main() -> None:
    """Run `featcache`."""
    from featcache.cli.app import app

    app()
