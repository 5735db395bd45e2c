from __future__ import annotations

import numpy as np
import pytest

from featcache.probes.gradient.options import GradientOptions
from featcache.probes.gradient.search import grid, is_at_edge, search, untuned

DECAYS = tuple(np.logspace(-6, 2, 97).tolist())
BISECT = GradientOptions(
    learning_rates=(0.1,), weight_decays=DECAYS, search="bisect", iterations=0, epochs=1
)


def reference(accuracy):
    """The sweep as it is described: seven starts, spans 8, 4, 2, 1, the first of a tie."""

    def peak(numbers):
        best, most = 0, 0
        for number in numbers:
            if accuracy[number] > most:
                best, most = number, accuracy[number]
        return best

    place = peak(range(0, 97, 16))
    for span in (8, 4, 2, 1):
        place = peak([max(place - span, 0), place, min(place + span, 96)])
    return place


def tuned(accuracy):
    rounds = []

    def attempt(heads):
        numbers = [DECAYS.index(head.weight_decay) for head in heads]
        rounds.append(numbers)
        return [accuracy[number] for number in numbers]

    head, tried = search(BISECT, attempt)
    assert set(tried) == {grid(BISECT)[number] for numbers in rounds for number in numbers}
    return DECAYS.index(head.weight_decay), rounds


@pytest.mark.parametrize("seed", range(30))
def test_bisection_ends_where_a_plain_loop_does_also_with_ties(seed):
    rng = np.random.default_rng(seed)
    peak, width = rng.integers(97), rng.uniform(5, 40)
    smooth = np.exp(-(((np.arange(97) - peak) / width) ** 2)) + 0.05 * rng.random(97)
    accuracy = np.round(smooth, 1 + seed % 3) + 0.01
    got, rounds = tuned(accuracy)
    assert got == reference(accuracy)
    assert rounds[0] == list(range(0, 97, 16))
    flat = [number for numbers in rounds for number in numbers]
    assert len(flat) == len(set(flat)) <= 7 + 4 * 2


def test_bisection_reaches_both_ends():
    assert tuned(np.linspace(1, 0.1, 97))[0] == 0
    assert tuned(np.linspace(0.1, 1, 97))[0] == 96


def test_a_grid_is_tried_at_once_and_the_first_of_a_tie_wins():
    options = GradientOptions(inputs=("cls1", "cls4"), learning_rates=(0.1, 1.0, 10.0))
    calls = []

    def attempt(heads):
        calls.append(len(heads))
        return [0.2, 0.7, 0.1, 0.7, 0.6, 0.7]

    head, tried = search(options, attempt)
    assert calls == [6]
    assert (head.input, head.learning_rate) == ("cls1", 1.0)
    assert list(tried.values()) == [0.2, 0.7, 0.1, 0.7, 0.6, 0.7]


def test_an_edge_is_one_of_a_list_of_several():
    options = GradientOptions(learning_rates=(0.1, 1.0, 10.0), weight_decays=(0.0,))
    assert [is_at_edge(head, options) for head in grid(options)] == [True, False, True]
    assert is_at_edge(grid(BISECT)[-1], BISECT)
    assert not is_at_edge(grid(BISECT)[1], BISECT)


def test_untuned_heads_have_the_middle_rate_and_no_decay():
    assert untuned(GradientOptions()).learning_rate == 1e-3
    assert untuned(BISECT).weight_decay == 0
    assert untuned(GradientOptions(weight_decays=(0.3,))).weight_decay == 0.3
