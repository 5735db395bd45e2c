from __future__ import annotations

import pytest

from featcache.probes.arrays import row_blocks
from featcache.probes.knn.threads import N_THREADS, each_block


@pytest.mark.parametrize("n", [0, 1, N_THREADS, 50])
def test_each_block_is_worked_off_once(n):
    seen = []
    each_block(lambda block: seen.append(block.start), row_blocks(n, 1, 1))
    assert sorted(seen) == list(range(n))


def test_the_first_error_in_the_order_of_the_blocks_is_raised():
    def fail(block):
        if block.start >= 7:
            raise ValueError(str(block.start))

    with pytest.raises(ValueError, match="^7$"):
        each_block(fail, row_blocks(50, 1, 1))
