"""How long heads are trained, and how their learning rate moves meanwhile."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featcache.probes.gradient.options import GradientOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The length of a training on a number of rows."""

    n_rows: int
    batch: int
    """Rows per iteration; the last of an epoch may have fewer."""
    n_steps: int
    n_warmup: int
    """Iterations in which the learning rate rises."""
    per_epoch: int
    """Iterations of an epoch; 0: batches run on over the ends of the shuffles."""

    @classmethod
    def of(cls, options: GradientOptions, n_rows: int) -> Plan:
        """Count the iterations that `options` ask for on `n_rows` rows.

        Counted in iterations, a batch may be larger than the rows, and then has some repeatedly.
        """
        if options.iterations:
            return cls(
                n_rows=n_rows,
                batch=options.batch,
                n_steps=options.iterations,
                n_warmup=0,
                per_epoch=0,
            )
        batch = min(options.batch, n_rows)
        full, rest = divmod(n_rows, batch)
        per_epoch = full + (rest > 0 and not options.drop_last)
        return cls(
            n_rows=n_rows,
            batch=batch,
            n_steps=per_epoch * options.epochs,
            n_warmup=per_epoch * options.warmup_epochs,
            per_epoch=per_epoch,
        )

    def rate_factors(self) -> NDArray[np.float64]:
        """Return what the learning rate is multiplied by in each iteration, shape (n_steps,).

        With w of T iterations as warm-up: t / w for t < w, then (1 + cos(π (t - w) / (T - w))) / 2.
        It starts at 0 if there is a warm-up, else at 1, and would reach 0 in iteration T.

        Source: Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5; mae `util/lr_sched.py`, whose
        fraction of an epoch is t / iterations per epoch.
        """
        steps = np.arange(self.n_steps)
        falling = (steps - self.n_warmup) / (self.n_steps - self.n_warmup)
        return np.where(
            steps < self.n_warmup,
            steps / max(self.n_warmup, 1),
            (1 + np.cos(np.pi * falling)) / 2,
        )
