from __future__ import annotations

import numpy as np
import pytest
import torch

from featcache.probes.gradient.options import GradientOptions
from featcache.probes.gradient.rows import batches
from featcache.probes.gradient.schedule import Plan


def epochs(n_rows, batch, n_epochs, *, warmup=0, drop_last=False):
    options = GradientOptions(
        iterations=0, epochs=n_epochs, batch=batch, warmup_epochs=warmup, drop_last=drop_last
    )
    return Plan.of(options, n_rows)


def iterations(n_rows, batch, count):
    return Plan.of(GradientOptions(iterations=count, batch=batch), n_rows)


def test_without_warm_up_the_rate_falls_as_torchs_cosine_annealing_to_zero():
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 50, eta_min=0)
    expected = []
    for _ in range(50):
        expected.append(scheduler.get_last_lr()[0])
        optimiser.step()
        scheduler.step()
    got = iterations(10, 4, 50).rate_factors()
    np.testing.assert_allclose(got, expected, atol=1e-12)
    assert got[0] == 1
    assert got[-1] == pytest.approx(np.sin(np.pi / 100) ** 2)


def test_with_warm_up_the_rate_is_that_of_fractions_of_epochs():
    plan = epochs(103, 10, 9, warmup=2)
    assert (plan.per_epoch, plan.n_steps) == (11, 99)
    time = np.array([step / 11 + epoch for epoch in range(9) for step in range(11)])
    falling = (1 + np.cos(np.pi * (time - 2) / (9 - 2))) / 2
    np.testing.assert_allclose(
        plan.rate_factors(), np.where(time < 2, time / 2, falling), atol=1e-12
    )


@pytest.mark.parametrize(
    ("drop_last", "sizes"), [(False, [4, 4, 3] * 2), (True, [4, 4] * 2)], ids=["keep", "drop"]
)
def test_an_epoch_has_each_row_at_most_once_and_the_next_is_shuffled_anew(drop_last, sizes):
    got = [one.tolist() for one in batches(epochs(11, 4, 2, drop_last=drop_last), seed=3)]
    assert [len(one) for one in got] == sizes
    middle = len(got) // 2
    first, second = ([row for one in half for row in one] for half in (got[:middle], got[middle:]))
    for epoch in (first, second):
        assert len(set(epoch)) == len(epoch)
        assert set(epoch) <= set(range(11))
    assert drop_last or sorted(first) == list(range(11))
    assert first != second


def test_without_epochs_shuffles_are_joined_and_every_batch_is_full():
    got = list(batches(iterations(7, 5, 14), seed=0))
    assert {len(one) for one in got} == {5}
    joined = torch.cat(got).view(10, 7)
    assert (joined.sort(dim=1).values == torch.arange(7)).all()
    assert len({tuple(one) for one in joined.tolist()}) > 5


def test_fewer_rows_than_a_batch_make_one_batch_an_epoch_or_repeat():
    for drop_last in (True, False):
        plan = epochs(6, 16384, 3, drop_last=drop_last)
        assert (plan.batch, plan.n_steps) == (6, 3)
    (batch,) = batches(iterations(6, 15, 1), seed=0)
    assert torch.bincount(batch, minlength=6).tolist().count(3) == 3  # 6 + 6 + 3


def test_the_same_seed_gives_the_same_batches_and_another_one_others():
    first, again, other = (
        torch.cat(list(batches(iterations(20, 8, 9), seed=seed))) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
