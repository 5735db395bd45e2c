"""Blocks of rows on several threads: NumPy lets go of the interpreter's lock while it computes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

N_THREADS = min(8, os.cpu_count() or 1)
"""More only wait for memory."""


def each_block(work: Callable[[slice], None], blocks: Iterable[slice]) -> None:
    """Call `work` once for each block, in any order; blocks must not touch each other's results.

    Args:
        work: Writes the results of one block.
        blocks: Few of them are worked off one after another.

    Raises:
        Exception: The first that `work` raises, in the order of the blocks.
    """
    waiting = list(blocks)
    if len(waiting) < N_THREADS:
        for block in waiting:
            work(block)
        return
    with ThreadPoolExecutor(N_THREADS) as pool:
        for _ in pool.map(work, waiting):
            pass
