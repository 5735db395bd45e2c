"""Which heads are tried, in which order, and which of them wins."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

from featcache.digest import Json
from featcache.probes.gradient.heads import Head
from featcache.probes.gradient.options import N_BISECT_STARTS, GradientOptions

Attempt = Callable[[Sequence[Head]], Sequence[float]]
"""From heads to their accuracies."""


def grid(options: GradientOptions) -> list[Head]:
    """Return every combination: inputs as listed, then learning rates, then weight decays."""
    combinations = itertools.product(options.inputs, options.learning_rates, options.weight_decays)
    return [
        Head(input=name, learning_rate=rate, weight_decay=decay)
        for name, rate, decay in combinations
    ]


def untuned(options: GradientOptions) -> Head:
    """Return the head for rows of which none can be held out.

    The first input, the middle learning rate, and no weight decay unless the options have one
    alone: CLIP_benchmark has none without a validation split.
    """
    decays, rates = options.weight_decays, options.learning_rates
    return Head(
        input=options.inputs[0],
        learning_rate=rates[len(rates) // 2],
        weight_decay=decays[0] if len(decays) == 1 else 0.0,
    )


def search(options: GradientOptions, attempt: Attempt) -> tuple[Head, dict[Head, float]]:
    """Try heads, and return the best with the accuracy of each that was tried.

    Of a tie the first wins, in the order of `grid`. No head is tried twice.

    Args:
        options: What is tried, and how the search goes on.
        attempt: Trains heads together and scores them.
    """
    heads, tried = grid(options), dict[Head, float]()

    def best(numbers: Sequence[int]) -> int:
        new = [head for number in numbers if (head := heads[number]) not in tried]
        if new:
            tried.update(zip(new, attempt(new), strict=True))
        return max(numbers, key=lambda number: tried[heads[number]])  # the first of a tie

    if options.search == "grid":
        return heads[best(range(len(heads)))], tried
    last = len(heads) - 1
    stride = last // (N_BISECT_STARTS - 1)
    peak, span = best(range(0, last + 1, stride)), stride // 2
    while span:
        peak = best([max(peak - span, 0), peak, min(peak + span, last)])
        span //= 2
    return heads[peak], tried


def is_at_edge(head: Head, options: GradientOptions) -> bool:
    """Tell whether a head is at an end of the learning rates or the weight decays, if several."""
    rates, decays = options.learning_rates, options.weight_decays
    return (len(rates) > 1 and head.learning_rate in (rates[0], rates[-1])) or (
        len(decays) > 1 and head.weight_decay in (decays[0], decays[-1])
    )


def describe(head: Head, **more: Json) -> Mapping[str, Json]:
    """Return a head, and more about it, as plain JSON."""
    return {
        "input": head.input,
        "learning_rate": head.learning_rate,
        "weight_decay": head.weight_decay,
        **more,
    }
