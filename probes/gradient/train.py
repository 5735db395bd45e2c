"""Training many heads in one pass over the same batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featcache.probes.gradient.batch_norm import BatchNorm
from featcache.probes.gradient.heads import Head, HeadGroup, columns_of
from featcache.probes.gradient.options import GradientOptions
from featcache.probes.gradient.rows import RowReader, batches
from featcache.probes.gradient.schedule import Plan

N_STRETCHES = 10
"""Parts of a training over which losses are averaged for the record; one per step if shorter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedHeads:
    """Heads after training, in the order in which they were asked for."""

    groups: Sequence[HeadGroup]
    columns: Sequence[slice]
    """Of each group."""
    places: Sequence[tuple[int, int]]
    """Of each head: its group, and its number in the group."""
    norm: BatchNorm | None
    losses: NDArray[np.float64]
    """Shape (10, H): mean training loss in each tenth of the iterations (of each iteration if there
    are fewer); NaN or infinite where a head diverged."""
    is_finite: NDArray[np.bool_]
    """Shape (H,): whether a head did not diverge."""

    def top1(self, reader: RowReader, codes: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the accuracy of each head on the rows of `reader`, shape (H,).

        A row whose code is -1 is never right; a head that diverged has accuracy 0.
        """
        import torch

        hits = [np.zeros(len(group.heads)) for group in self.groups]
        width = max(group.parameters.shape[1] for group in self.groups)
        for part, read in reader.blocks(8 * width):
            rows = read if self.norm is None else self.norm.apply(read)
            target = torch.from_numpy(codes[part]).to(rows.device)
            for count, group, columns in zip(hits, self.groups, self.columns, strict=True):
                count += group.hits(rows[:, columns], target).cpu().numpy()
        shares = np.array([hits[group][number] for group, number in self.places]) / len(codes)
        return np.where(self.is_finite, shares, 0.0)

    def linear(self, number: int, dim: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return weights (D, C) and bias (C,) of a head on whole rows of `dim` dimensions.

        The running batch normalisation is folded in; columns that it does not read weigh 0.
        """
        group, place = self.places[number]
        found = self.groups[group].head(place)
        weights, bias = np.zeros((dim, found.shape[1])), found[-1].copy()
        weights[self.columns[group]] = found[:-1]
        if self.norm is not None:
            weights /= self.norm.scale.cpu().numpy()[:, None]
            bias -= self.norm.mean.cpu().numpy() @ weights
        return weights, bias


def train_heads(
    reader: RowReader,
    codes: NDArray[np.int64],
    n_classes: int,
    heads: Sequence[Head],
    options: GradientOptions,
    seed: int,
    *,
    device: str = "cpu",
) -> TrainedHeads:
    """Train all heads on the same batches; each ends where it would if it were trained alone.

    Heads start at the same weights if they read the same columns.

    Args:
        reader: The training rows.
        codes: Their classes from 0, shape (N,).
        n_classes: Columns of each head.
        heads: What is trained, at least one.
        options: The optimiser, its schedule and the preparation of the rows.
        seed: Of the starting weights and of the order of the rows.
        device: Torch device, the reader's.

    Raises:
        ShapeError: If a head's input does not fit the dimensions.

    Source: dinov2 `eval/linear.py`; mae `main_linprobe.py`; CLIP_benchmark `linear_probe.py`.
    """
    inputs = list(dict.fromkeys(head.input for head in heads))
    columns = [columns_of(name, reader.dim) for name in inputs]
    members = [[head for head in heads if head.input == name] for name in inputs]
    groups = [
        HeadGroup(group, part.stop - part.start, n_classes, options, seed, device)
        for group, part in zip(members, columns, strict=True)
    ]
    places = [(g := inputs.index(head.input), members[g].index(head)) for head in heads]
    norm = BatchNorm(reader.dim, device) if options.prepare == "batchnorm" else None
    losses = _run(reader, codes, groups, columns, norm, options, seed, device)
    finite = [group.is_finite() for group in groups]
    return TrainedHeads(
        groups=groups,
        columns=columns,
        places=places,
        norm=norm,
        losses=np.stack([losses[g][:, number] for g, number in places], axis=1),
        is_finite=np.array([finite[g][number] for g, number in places]),
    )


def _run(
    reader: RowReader,
    codes: NDArray[np.int64],
    groups: Sequence[HeadGroup],
    columns: Sequence[slice],
    norm: BatchNorm | None,
    options: GradientOptions,
    seed: int,
    device: str,
) -> list[NDArray[np.float64]]:
    """Run all iterations; return the losses of each group, shape (10, H)."""
    import torch

    plan = Plan.of(options, len(reader))
    factors = plan.rate_factors().tolist()
    targets = torch.from_numpy(codes).to(device)
    n_stretches = min(N_STRETCHES, plan.n_steps)
    losses = [
        torch.zeros(n_stretches, len(group.heads), dtype=torch.float64, device=device)
        for group in groups
    ]
    with torch.inference_mode():  # the gradient is written out, so that torch need not record
        # the weights have `seed` itself: the two draws must not be of one sequence
        for step, positions in enumerate(batches(plan, seed + 1)):
            rows, target = reader.at(positions), targets[positions.to(device)]
            if norm is not None:
                rows = norm.learn(rows)
            stretch = step * n_stretches // plan.n_steps
            for group, part, total in zip(groups, columns, losses, strict=True):
                total[stretch] += group.step(rows[:, part], target, factors[step])
    counts = np.bincount(np.arange(plan.n_steps) * n_stretches // plan.n_steps)
    return [total.cpu().numpy() / counts[:, None] for total in losses]
