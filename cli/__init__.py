"""The command line: one file per command, each parses, calls the library and prints."""

from __future__ import annotations

import atexit
import os
import sys

_SELDOM = 100_000  # new objects between two looks for cycles: imports make many and free none


def main() -> None:
    """Run `featcache`."""
    from gc import set_threshold  # `gc` is a command of ours

    set_threshold(_SELDOM)
    from featcache.cli.app import app

    try:
        app()
    except SystemExit as ended:
        if "torch" in sys.modules and isinstance(ended.code, int):
            _leave(ended.code)
        raise


def _leave(code: int) -> None:
    """End the process now: to take PyTorch's modules down one by one needs half a second."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # nobody reads it any more
            code = code or 1
    os._exit(code)
