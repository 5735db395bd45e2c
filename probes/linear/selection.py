"""Choosing the L2 strength: on held-out rows of train, never on the test set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from featcache.digest import Json
from featcache.probes.linear.options import LinearOptions
from featcache.probes.linear.scaling import Rows
from featcache.probes.linear.solver import LogisticPath, PathSolver

_SHARED = 4
"""Strengths that are tried before the search looks whether to go on."""

Score = Callable[[NDArray[np.float32], NDArray[np.generic]], float]
"""From logits (H, C) of held-out rows and their truth, (H,) or (H, C), to what is to be large."""


@dataclass(slots=True, kw_only=True)
class Fold:
    """One way to part train, solved as far as the search has come."""

    solver: PathSolver
    """Of the rows that are not held out."""
    held: Rows
    """Shape (H, D), as the solver sees them."""
    truth: NDArray[np.generic]
    """Of the held-out rows, in columns of the solver's classes."""
    best: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
    """Weights (D, C) and bias (C,) of the best strength so far."""

    def logits(
        self, weights: NDArray[np.float64], bias: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        """Return the logits of the held-out rows, shape (H, C), computed in float64."""
        found = np.empty((len(self.held), len(bias)), dtype=np.float32)
        for rows in self.held.blocks():
            found[rows] = self.held[rows].astype(np.float64) @ weights + bias
        return found


@dataclass(slots=True, kw_only=True)
class StrengthSearch:
    """What was tried, and how well it did on held-out rows."""

    folds: Sequence[Fold]
    options: LinearOptions
    score: Score
    tried: dict[float, float] = field(default_factory=dict)
    """Strength to score, averaged over all held-out rows."""
    solved: dict[float, dict[str, Json]] = field(default_factory=dict)
    """Strength to what its solver reports; of several folds the worst."""
    edges: list[str] = field(default_factory=list)
    """Which edges of the grid were extended: 'weak', 'strong'."""

    @property
    def n_held(self) -> int:
        """Held-out rows of all folds."""
        return sum(len(fold.held) for fold in self.folds)

    @property
    def best(self) -> float:
        """The strength of the best score, the stronger penalty on a tie."""
        return max(self.tried, key=lambda strength: (self.tried[strength], -strength))

    @property
    def at_edge(self) -> bool:
        """Whether the best strength is the strongest or weakest penalty tried."""
        return self.best in (min(self.tried), max(self.tried))

    def hand_on(self, solver: PathSolver) -> None:
        """Let a solver of other rows of the same classes start from the best classifier."""
        fold = self.folds[0]
        if fold.best is not None and np.array_equal(fold.solver.classes, solver.classes):
            solver.start_near(self.best, *fold.best)

    def reports(self) -> list[Json]:
        """Return gradient norm, iterations and convergence of each strength, in order."""
        return [{"strength": c, **self.solved[c]} for c in sorted(self.solved)]

    def run(self) -> float:
        """Try strengths as the options say, and return the best."""
        groups = _groups(self.options)
        for group in groups:
            self.attempt(group)
            if self._is_hopeless():
                break
        self._extend()
        if self.options.search == "bracket":
            self._bracket()
        return self.best

    def attempt(self, strengths: Sequence[float]) -> None:
        """Solve and score strengths, and keep the classifiers of the best."""
        total = np.zeros(len(strengths))
        paths: list[LogisticPath] = []
        for fold in self.folds:
            path = fold.solver.solve(strengths)
            scores = [
                self.score(fold.logits(weights, bias), fold.truth)
                for weights, bias in zip(path.weights, path.biases, strict=True)
            ]
            total += np.array(scores) * len(fold.held)
            paths.append(path)
        self.tried |= dict(zip(strengths, (total / self.n_held).tolist(), strict=True))
        for place, strength in enumerate(strengths):
            self.solved[strength] = {
                "grad_norm": max(float(path.grad_norm[place]) for path in paths),
                "iterations": max(int(path.iterations[place]) for path in paths),
                "converged": all(bool(path.converged[place]) for path in paths),
            }
        if self.best in strengths:
            place = list(strengths).index(self.best)
            for fold, path in zip(self.folds, paths, strict=True):
                fold.best = path.weights[place].copy(), path.biases[place].copy()

    def _extend(self) -> None:
        """Go on beyond an edge while the best strength lies there and the score changes."""
        grid = self.options.strengths
        low, high = np.log10(grid[0]), np.log10(grid[-1])
        step = (high - low) / (len(grid) - 1)
        room = self.options.extend_decades + 1e-9
        while self.at_edge:
            is_weak = self.best == max(self.tried)
            at = np.log10(self.best) + (step if is_weak else -step)
            if not low - room <= at <= high + room or (is_weak and self._is_hopeless()):
                return
            before, further = self.best, float(10**at)
            kept = [fold.best for fold in self.folds]
            self.attempt([further])
            if self.tried[further] == self.tried[before]:  # a plateau would lead on for ever
                del self.tried[further], self.solved[further]
                for fold, best in zip(self.folds, kept, strict=True):
                    fold.best = best
                return
            self.edges = sorted({*self.edges, "weak" if is_weak else "strong"})

    def _bracket(self) -> None:
        """Halve the spacing around the peak until it has the resolution asked for."""
        step = max(np.diff(np.log10(self.options.strengths)))  # decades
        low, high = min(self.tried), max(self.tried)
        while step * self.options.steps_per_decade > 1 + 1e-9:
            step /= 2
            peak = np.log10(self.best)
            around = [float(10 ** round(peak + side, 9)) for side in (-step, step)]
            self.attempt([c for c in around if low <= c <= high])  # never empty: step < high - low

    def _is_hopeless(self) -> bool:
        """Tell whether the weakest penalty tried lies too far below the best score to go on."""
        best, weakest = self.tried[self.best], self.tried[max(self.tried)]
        error = (max(best * (1 - best), 0) / self.n_held) ** 0.5
        limit = self.options.stop_standard_errors * error
        return self.options.stop_standard_errors > 0 and best - weakest > limit


def grid_warnings(best: float, tried: Sequence[float], *, is_extended: bool) -> list[str]:
    """Return in sentences that a grid was extended, or that its best strength is at an edge."""
    said, low, high = [], min(tried), max(tried)
    if is_extended:
        said.append(
            f"The best strength lay at an edge of the grid, which was extended to "
            f"{low:.3g} .. {high:.3g}."
        )
    if best in (low, high):
        said.append(f"The best strength, {best:.3g}, is at the edge of all that were tried.")
    return said


def warnings_of(search: StrengthSearch | None, path: LogisticPath) -> list[Json]:
    """Return in sentences what a reader of the score should know of the fits.

    Args:
        search: How the strength was chosen, if it was.
        path: The final fit, of one strength.
    """
    said: list[Json] = []
    if search is not None:
        said += grid_warnings(search.best, list(search.tried), is_extended=bool(search.edges))
        if short := [c for c, one in search.solved.items() if not one["converged"]]:
            said.append(
                f"{len(short)} of {len(search.solved)} strengths stopped short of the gradient "
                f"norm asked for, the first at {min(short):.3g}."
            )
    if not path.converged[0]:
        said.append(
            f"The classifier stopped at gradient norm {path.grad_norm[0]:.1e}, short of what was "
            "asked for."
        )
    return said


def _groups(options: LinearOptions) -> list[tuple[float, ...]]:
    """Return the strengths in the order of trial: all at once, or weak penalties one by one."""
    if not options.stop_standard_errors:
        return [options.strengths]
    first, rest = options.strengths[:_SHARED], options.strengths[_SHARED:]
    return [first, *((strength,) for strength in rest)]
