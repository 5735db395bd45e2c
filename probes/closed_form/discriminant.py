"""Linear discriminant analysis: Gaussian classes with one covariance, shrunk or not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from featcache.digest import Json
from featcache.errors import OptionError
from featcache.probes.arrays import Features, check_features, check_labels
from featcache.probes.closed_form.moments import Moments, class_moments
from featcache.probes.closed_form.options import Priors, Shrinkage
from featcache.probes.linear.head import LinearHead
from featcache.probes.linear.row_space import row_space


def fit_lda(
    features: Features,
    labels: NDArray[np.int64],
    *,
    shrinkage: Shrinkage | float = "ledoit_wolf",
    priors: Priors = "empirical",
    device: str = "cpu",
) -> LinearHead:
    """Fit Gaussian classes that share a covariance; the logits are their log posteriors.

    Logits are W = Σ⁻¹ (μ_c - μ), b = -½ (μ_c - μ)ᵀ W - μᵀ W + log prior. This is the textbook's
    Σ⁻¹ μ_c less a term that all classes share, so that nothing cancels where μ is large.

    Σ is the pooled within-class scatter divided by N, the maximum likelihood estimate, whatever
    the priors. Per-class covariances weighted by the priors (scikit-learn's `lsqr` and `eigen`)
    are the same for empirical priors or equal class sizes. Dividing by N - C instead would multiply
    logits less log priors by (N - C) / N.

    Shrinkage moves Σ to (1 - s) Σ + s (tr Σ / D) I. `ledoit_wolf` and `oas` estimate s from the
    residuals x - μ_y as from N rows of known mean; with one dimension s has no effect and is 0.
    Eigenvalues below rounding (resolution · D · the largest) are raised to that floor, so that
    N < D, dead and repeated dimensions give finite weights; where no row differs from its class
    mean the unit matrix stands in. With N < D the work is done in the space of the rows.

    Args:
        features: Shape (N, D), any float dtype.
        labels: Shape (N,), class indices from 0; classes may be missing, or have one row.
        shrinkage: How s is found, or s itself in [0, 1].
        priors: Class shares of the rows, or all equal.
        device: Torch device of the products.

    Returns:
        The head, with the amount of shrinkage and of raised eigenvalues in `details`.

    Raises:
        ShapeError: If arrays do not fit together, are empty or not finite.
        OptionError: If `shrinkage` is out of range.

    Source: Hastie, Tibshirani & Friedman 2009, section 4.3; checked against scikit-learn's
        LinearDiscriminantAnalysis, LedoitWolf and OAS.
    """
    check_features("features", features)
    check_labels("labels", features, labels)
    n_rows, dim = features.shape
    if n_rows >= dim:
        moments = class_moments(features, labels, device=device)
        return lda_of_moments(moments, shrinkage=shrinkage, priors=priors)
    rows, basis, mean = row_space(features)
    moments = class_moments(rows, labels, device=device)
    head = lda_of_moments(moments, shrinkage=shrinkage, priors=priors, dim=dim)
    weights = basis @ head.weights  # the means lie in the row space, so nothing is lost
    return replace(head, weights=weights, bias=head.bias - mean @ weights)


def lda_of_moments(
    moments: Moments,
    *,
    shrinkage: Shrinkage | float = "ledoit_wolf",
    priors: Priors = "empirical",
    dim: int | None = None,
) -> LinearHead:
    """Fit `fit_lda`'s classifier to moments that are there already, for instance streamed ones.

    Args:
        moments: Of the training rows.
        shrinkage: As in `fit_lda`.
        priors: As in `fit_lda`.
        dim: The true number of dimensions, if `moments` are of a subspace outside which the
            rows do not differ.

    Raises:
        OptionError: If `shrinkage` is out of range.
    """
    dim = dim or len(moments.within)
    covariance = moments.within / moments.n_rows
    amount = shrinkage_amount(moments, shrinkage, dim)
    values, vectors = np.linalg.eigh(covariance)
    values = (1 - amount) * values + amount * np.trace(covariance) / dim
    rounding = float(np.finfo(np.float64).eps * np.abs(moments.means).max())
    if values[-1] <= (dim * rounding) ** 2:
        values, floor = np.ones(len(values)), 1.0
        n_floored = len(values)
    else:
        floor = moments.resolution * dim * values[-1]
        n_floored = int((values < floor).sum())
    apart = moments.means - moments.mean  # (C, D)
    weights = vectors @ ((vectors.T @ apart.T) / np.maximum(values, floor)[:, None])  # (D, C)
    shares = moments.counts / moments.n_rows
    prior = shares if priors == "empirical" else np.full(len(shares), 1 / len(shares))
    bias = np.log(prior) - 0.5 * np.einsum("cd,dc->c", apart, weights) - moments.mean @ weights
    details: dict[str, Json] = {
        "shrinkage": shrinkage if isinstance(shrinkage, str) else "fixed",
        "shrinkage_amount": amount,
        "raised_eigenvalues": n_floored,
        "priors": priors,
        "classes_in_train": len(moments.classes),
    }
    return LinearHead(
        classes=moments.classes, weights=weights, bias=bias, is_unit_norm=False, details=details
    )


def shrinkage_amount(moments: Moments, shrinkage: Shrinkage | float, dim: int) -> float:
    """Return the share s of the unit matrix in the shrunk within-class covariance.

    Only the scatter and Σ ‖x - μ_y‖⁴ are needed, since Σ_ij of the summed squares of products
    x_i x_j over rows is the sum of ‖x‖⁴: no array of N · D · D is ever made.

    Raises:
        OptionError: If a fixed share is not in [0, 1].

    Source: Ledoit & Wolf 2004, J. Multivariate Analysis 88(2); Chen et al. 2010, arXiv:0907.4698,
        eq. 23, without its factor 1 - 2/D, as in scikit-learn.
    """
    if not isinstance(shrinkage, str):
        if not 0 <= shrinkage <= 1:
            raise OptionError(
                f"`shrinkage` must be a name or a number from 0 to 1; got {shrinkage!r}. "
                "0 is the plain covariance, 1 a multiple of the unit matrix."
            )
        return float(shrinkage)
    if shrinkage == "none" or dim == 1:
        return 0.0
    n_rows = moments.n_rows
    square = float((moments.within**2).sum()) / n_rows**2  # ‖S‖², S = within / N
    mean_square = (float(np.trace(moments.within)) / n_rows / dim) ** 2  # (tr S / D)²
    spread = max(square - dim * mean_square, 0.0) / dim  # ‖S - (tr S / D) I‖² / D
    if shrinkage == "oas":
        lack = (n_rows + 1) * spread / dim
        return 1.0 if lack == 0 else min((square / dim**2 + mean_square) / lack, 1.0)
    noise = min((moments.fourth / n_rows - square) / (dim * n_rows), spread)
    return 0.0 if noise <= 0 else noise / spread
