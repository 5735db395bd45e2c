"""N-LEEP: LEEP through the components of a Gaussian mixture, where there is no source head."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ShapeError
from featcache.probes.analysis.decomposition import Decomposition, compact, principal_components
from featcache.probes.analysis.source_head import leep
from featcache.probes.arrays import check_labels

_ROWS_PER_COMPONENT = 2  # with one row each, every component is one image and N-LEEP is 0


def n_leep(
    centred: Decomposition,
    labels: NDArray[np.int64],
    rng: np.random.Generator,
    *,
    components_per_class: int,
    variance: float,
    operations: float = float("inf"),
) -> tuple[float, bool]:
    """Return N-LEEP, and whether the mixture's fit converged (within sklearn's 100 steps).

    Components have full covariances. The value changes with the seed and with the scale of the
    features, to whose variances sklearn adds 1e-6.

    Args:
        centred: Of centred features, shape (N, D).
        labels: Shape (N,), class indices from 0.
        rng: Draws the start of k-means.
        components_per_class: Times the classes, so many components.
        variance: Share of the variance that principal components keep, in (0, 1).
        operations: Refused where a step takes more than rows · components · dims².

    Raises:
        ShapeError: If `labels` do not fit, if there are less than two rows per component, if all
            rows are equal, or if a step is too much work.

    Source: Li et al. 2021, arXiv:2011.11200; on sklearn's `GaussianMixture`.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    check_labels("labels", centred.left, labels)
    n_rows = len(labels)
    n_components = components_per_class * (int(compact(labels).max()) + 1)
    if n_rows < _ROWS_PER_COMPONENT * n_components:
        raise ShapeError(
            f"N-LEEP needs {_ROWS_PER_COMPONENT} rows for each of {n_components} components; got "
            f"{n_rows} rows. Raise the sample, or lower the components per class."
        )
    energy = np.cumsum(np.square(centred.values))
    dims = 1 + int(np.searchsorted(energy, variance * energy[-1], side="right"))
    rows = principal_components(centred, min(dims, len(energy)))
    if (work := n_rows * n_components * rows.shape[1] ** 2) > operations:
        raise ShapeError(
            f"A step of N-LEEP's fit must take at most {operations:.1g} operations; it would take "
            f"{work:.1g}. Raise `mixture_operations`, or lower the sample."
        )
    model = GaussianMixture(n_components, random_state=int(rng.integers(2**31)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(rows)
    return leep(model.predict_proba(rows), labels), bool(model.converged_)
