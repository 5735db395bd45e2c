"""Ridge regression: one eigendecomposition that serves every strength, leave-one-out included.

For rows x scaled and centred, with weights w that sum to W, and strength α:

- Weights are (XᵀwX + αI)⁻¹ Xᵀw(Y - ȳ). Where N > D + 1 this comes from the eigenvectors of XᵀwX,
  else from those of the Gram matrix of the rows √w x.
- The intercept is free, or belongs to a constant feature b that is penalised like the others.
  Either way it is one more eigenvector, √w / √W, with eigenvalue ∞ or W b².
- The residual of row i in a fit without row i is e_i / (1 - h_i), with h the hat matrix's diagonal.
  In the Gram form e and 1 - h are both sums over the eigenvectors with factors α / (λ + α), so
  neither cancels when α is small and the fit goes through every row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featcache.errors import OptionError, ShapeError
from featcache.probes.arrays import Features
from featcache.probes.closed_form.design import Design
from featcache.probes.closed_form.moments import outer_sum
from featcache.probes.closed_form.targets import ClassTargets
from featcache.probes.linear.scaling import Standardise

if TYPE_CHECKING:
    import torch

_FLOAT64_PRODUCTS = 1 << 33  # multiplications of a leave-one-out pass; more are done in float32
_LEAST_REST = 1e-12  # of 1 - h: a row that the others cannot predict must not divide by zero


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaveOneOut:
    """How well each training row is predicted by the others, for each of K strengths."""

    strengths: tuple[float, ...]
    accuracy: NDArray[np.float64]
    """Shape (K,), share of rows whose largest prediction is their own class, the smaller index on
    a tie."""
    squared_error: NDArray[np.float64]
    """Shape (K,), mean over rows and classes, not weighted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RidgeSystem:
    """Training rows, decomposed; see `decompose`."""

    design: Design
    values: NDArray[np.float64]
    """Shape (R,), eigenvalues of XᵀwX or of the Gram matrix."""
    loadings: NDArray[np.float64]
    """Shape (R, C)."""
    vectors: NDArray[np.float64]
    """Shape (D, R): weights are `vectors` · `loadings` / (`values` + α)."""
    row_vectors: NDArray[np.float64] | None
    """Shape (N, R), eigenvectors of the Gram matrix; None in the other form."""

    def solve(self, strength: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return weights (D, C) and intercept (C,) for rows as stored (or of unit norm).

        Raises:
            OptionError: If `strength` is not positive and finite.
        """
        _check_strengths([strength])
        design = self.design
        weights = self.vectors @ (self.loadings / (self.values + strength)[:, None])
        bias = design.intercept_shares([strength])[0] * design.target_mean
        bias -= design.centre @ weights
        weights = weights / design.scaling.scale[:, None]
        return weights, bias - design.scaling.shift @ weights

    def leave_one_out(self, strengths: Sequence[float]) -> LeaveOneOut:
        """Return the accuracy and the error of predictions by all other rows.

        Scaling and row weights stay those of all rows; only the regression is refitted. Needs
        two rows: a single one has no others. Above 2^33 multiplications the fitted values are
        float32, which moves a prediction by about a millionth of the targets' scale.

        Raises:
            OptionError: If a strength is not positive and finite, or if there is none.
            ShapeError: If there is one row.

        Source: Cook & Weisberg 1982, section 2.2; Rifkin & Lippert 2007, MIT-CSAIL-TR-2007-025;
            checked against scikit-learn's RidgeCV and against refits.
        """
        import torch

        targets = self.design.targets
        right, error = np.zeros(len(strengths)), np.zeros(len(strengths))
        for rows, residuals in self._residuals(strengths):
            error += residuals.square().sum(dim=2).double().sum(dim=0).cpu().numpy()
            wanted = self.design.wanted(rows, residuals.dtype)[:, None]
            predictions = torch.sub(wanted, residuals, out=residuals)
            right += targets.count_right(rows, predictions)
        return LeaveOneOut(
            strengths=tuple(strengths),
            accuracy=right / len(self.design),
            squared_error=error / (len(self.design) * targets.n_classes),
        )

    def _residuals(self, strengths: Sequence[float]) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield blocks of rows with the residuals of fits without them, shape (B, K, C)."""
        _check_strengths(strengths)
        if len(self.design) < 2:
            raise ShapeError(
                "Leave-one-out needs at least two rows; got one. Choose a strength beforehand."
            )
        if self.row_vectors is None:
            yield from self._residuals_of_rows(np.asarray(strengths))
        else:
            yield from self._residuals_of_gram(self.row_vectors, np.asarray(strengths))

    def _residuals_of_rows(
        self, strengths: NDArray[np.float64]
    ) -> Iterator[tuple[slice, torch.Tensor]]:
        import torch

        design = self.design
        shrink = 1 / (self.values[:, None] + strengths)  # (R, K)
        turned = self.loadings[:, None] * shrink[:, :, None]  # (R, K, C)
        kind = torch.float32 if len(design) * turned.size > _FLOAT64_PRODUCTS else design.dtype
        turn, filters = design.tensor(self.vectors), design.tensor(shrink)
        shares = design.intercept_shares(strengths.tolist())  # (K,)
        intercepts = shares[:, None] * design.target_mean  # (K, C)
        coefficients = design.tensor(turned.reshape(len(shrink), -1), kind)
        offset = design.tensor(intercepts.reshape(-1), kind)
        constant = design.tensor(shares / design.row_weights.sum())
        for rows in design.blocks(2 * coefficients.shape[1]):
            weights = design.tensor(design.row_weights[rows])[:, None]
            axes = design.rows(rows) @ turn  # (B, R)
            rest = 1 - weights * (constant + axes.square() @ filters)  # (B, K)
            rest = rest.clamp_min_(_LEAST_REST).to(kind)
            fitted = torch.addmm(offset, axes.to(kind), coefficients)
            fitted = fitted.view(len(axes), *intercepts.shape)
            fitted -= design.wanted(rows, kind)[:, None]
            yield rows, fitted.div_(rest.neg_()[:, :, None])

    def _residuals_of_gram(
        self, row_vectors: NDArray[np.float64], strengths: NDArray[np.float64]
    ) -> Iterator[tuple[slice, torch.Tensor]]:
        import torch

        design, exact = self.design, torch.float64
        kept = strengths / (self.values[:, None] + strengths)  # (R, K)
        turned = self.loadings[:, None] * kept[:, :, None]  # (R, K, C)
        filters = design.tensor(kept, exact)
        coefficients = design.tensor(turned.reshape(len(kept), -1), exact)
        lost = 1 - design.intercept_shares(strengths.tolist())  # (K,), of the constant
        offset = design.tensor(lost[:, None] * design.target_mean, exact)  # (K, C)
        constant = design.tensor(lost / design.row_weights.sum(), exact)
        for rows in design.blocks(2 * coefficients.shape[1]):
            left = design.tensor(row_vectors[rows], exact)
            root = design.tensor(np.sqrt(design.row_weights[rows]), exact)[:, None]
            rest = left.square() @ filters + root.square() * constant  # (B, K), 1 - h
            residuals = (left @ coefficients / root).view(len(left), *offset.shape) + offset
            yield rows, residuals.div_(rest.clamp_min_(torch.finfo(exact).tiny)[:, :, None])


def decompose(
    features: Features,
    targets: ClassTargets,
    *,
    standardise: Standardise = "none",
    row_weights: NDArray[np.float64] | None = None,
    bias_feature: float | None = None,
    epsilon: float = 0.0,
    device: str = "cpu",
) -> RidgeSystem:
    """Prepare ridge regression for any strength α: Σ w ‖y - Vᵀx - b‖² + α ‖V‖².

    Sets of up to 2^24 values are worked on in float64; in larger ones the products with the rows
    are float32, summed in float64. The eigendecomposition is float64. Constant dimensions get
    weight zero; N < D, repeated rows and repeated dimensions are fine.

    Args:
        features: Shape (N, D), any float dtype; kept, not copied.
        targets: Of the same rows.
        standardise: What is done to rows first.
        row_weights: Shape (N,), positive; all 1 if left out.
        bias_feature: None leaves the intercept free; a number stands for a constant feature of
            that value whose weight is penalised.
        epsilon: Added to each deviation of a `zscore`.
        device: Torch device of the products.

    Raises:
        ShapeError: If arrays do not fit together, are empty or not finite, or if a weight is not
            positive.

    Source: Hoerl & Kennard 1970; big_vision `evaluators/fewshot_lsr.py` for one decomposition in
        either form; checked against scikit-learn's Ridge.
    """
    design = Design.of(
        features,
        targets,
        standardise=standardise,
        row_weights=row_weights,
        bias_feature=bias_feature,
        epsilon=epsilon,
        device=device,
    )
    return _of_gram(design) if len(design) <= design.dim + 1 else _of_rows(design)


def _of_rows(design: Design) -> RidgeSystem:
    """Decompose XᵀwX."""
    import torch

    dim, n_classes = design.dim, design.targets.n_classes
    cross = torch.zeros(dim, n_classes, dtype=torch.float64, device=design.device)
    mean = design.tensor(design.target_mean)

    def rooted() -> Iterator[torch.Tensor]:
        for rows in design.blocks(2 * n_classes):
            root = design.tensor(np.sqrt(design.row_weights[rows]))[:, None]
            block = root * design.rows(rows)
            cross.add_(block.T @ (root * (design.wanted(rows) - mean)))
            yield block

    scatter = outer_sum(rooted(), dim, device=design.device)
    values, vectors = torch.linalg.eigh(design.tensor(scatter, torch.float64))
    return RidgeSystem(
        design=design,
        values=values.clamp_min(0).cpu().numpy(),
        loadings=(vectors.T @ cross).cpu().numpy(),
        vectors=vectors.cpu().numpy(),
        row_vectors=None,
    )


def _of_gram(design: Design) -> RidgeSystem:
    """Decompose the Gram matrix of the rows."""
    import torch

    every, exact = slice(0, len(design)), torch.float64
    root = design.tensor(np.sqrt(design.row_weights), exact)[:, None]  # (N, 1)
    rows = root * design.rows(every, exact)
    gram = rows @ rows.T  # (N, N)
    # The constant √w is in its null space. Lifted above all others it is the last eigenvector,
    # and the rest of a null space that may be larger is orthogonal to it.
    unit = root / root.norm()
    lift = 2 * float(gram.trace()) or 1.0
    values, vectors = torch.linalg.eigh(gram + lift * unit @ unit.T)
    values, vectors = values[:-1].clamp_min(0), vectors[:, :-1]
    mean = design.tensor(design.target_mean, exact)
    return RidgeSystem(
        design=design,
        values=values.cpu().numpy(),
        loadings=(vectors.T @ (root * (design.wanted(every, exact) - mean))).cpu().numpy(),
        vectors=(rows.T @ vectors).cpu().numpy(),
        row_vectors=vectors.cpu().numpy(),
    )


def _check_strengths(strengths: Sequence[float]) -> None:
    if len(strengths) == 0 or not all(np.isfinite(one) and one > 0 for one in strengths):
        raise OptionError(
            f"`strengths` must be positive finite numbers, at least one; got {list(strengths)!r}."
            " Use a tiny one for a fit that is hardly penalised."
        )
