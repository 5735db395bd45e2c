"""Detectors that read the head's logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featcache.probes.ood.patterns import class_tails

if TYPE_CHECKING:
    import torch

    from featcache.probes.ood.block import Block

_LEAST = 1e-12  # of a class's mean share: KL must stay finite


def msp(block: Block) -> torch.Tensor:
    """Log of the largest softmax probability, which ranks as it does but never saturates at 1."""
    return block.top[0] - block.energy


def temperature(block: Block) -> torch.Tensor:
    """`msp` of the logits divided by a temperature fitted on held-out ID rows."""
    scaled = block.logits / block.shared.temperature
    largest: torch.Tensor = scaled.max(dim=1).values
    return largest - scaled.logsumexp(dim=1)


def maxlogit(block: Block) -> torch.Tensor:
    """Return the largest logit."""
    return block.top[0]


def energy(block: Block) -> torch.Tensor:
    """T · logsumexp(logits / T)."""
    at = block.shared.options.temperature
    return block.energy if at == 1 else at * (block.logits / at).logsumexp(dim=1)


def entropy(block: Block) -> torch.Tensor:
    """Σ p log p, minus the entropy of the softmax."""
    return (block.shares * block.log_shares).sum(dim=1)


def gen(block: Block) -> torch.Tensor:
    """-Σ p^γ (1 - p)^γ over the M largest probabilities, from log p and log (1 - p)."""
    options = block.shared.options
    largest = block.log_shares.topk(min(options.gen_top, block.log_shares.shape[1]), dim=1).values
    rest = (-largest.expm1()).clamp_min(0).log()  # log(1 - p)
    return -(options.gen_gamma * (largest + rest)).exp().sum(dim=1)


def kl_matching(block: Block) -> torch.Tensor:
    """-min over classes of KL(p ‖ mean p of the train rows predicted as that class)."""
    means = block.shared.patterns.mean_shares.clamp_min(_LEAST)
    return -(entropy(block)[:, None] - block.shares @ means.log().T).min(dim=1).values


def openmax(block: Block) -> torch.Tensor:
    """Minus the log probability of 'unknown' after revising the largest logits.

    The logits of the α likeliest classes are cut by how extreme the distance to the class's mean
    logits is under a Weibull fit of the train rows' largest distances; what is cut goes to
    'unknown'.
    """
    import torch

    shared = block.shared
    ranks = min(shared.options.openmax_alpha, block.logits.shape[1])
    chosen = block.logits.topk(ranks, dim=1).indices  # (B, α)
    means = shared.patterns.mean_logits
    square = block.logits.square().sum(dim=1, keepdim=True) + means.square().sum(dim=1)
    apart = (square - 2 * block.logits @ means.T).clamp_min(0).sqrt().gather(1, chosen)
    tail = shared.options.openmax_tail
    tails = shared.kept.tensor(f"openmax {tail}", lambda: class_tails(shared, tail))  # (3, C)
    shape, scale, shift = tails[:, chosen]
    moved = (apart - shift + 1).clamp_min(0)
    extreme = -torch.expm1(-((moved / scale) ** shape))  # the Weibull distribution function
    fade = torch.arange(ranks, 0, -1, dtype=torch.float64, device=shared.device) / ranks
    own = block.logits.gather(1, chosen)
    cut = own * extreme * fade
    revised = block.logits.scatter(1, chosen, own - cut)
    unknown = cut.sum(dim=1)
    total: torch.Tensor = torch.cat([revised, unknown[:, None]], dim=1).logsumexp(dim=1)
    return total - unknown


def mcm(block: Block) -> torch.Tensor:
    """Log of the largest softmax of raw cosines to class texts, divided by τ."""
    text = block.shared.text
    assert text is not None
    scaled = block.unit @ text / block.shared.options.mcm_temperature
    largest: torch.Tensor = scaled.max(dim=1).values
    return largest - scaled.logsumexp(dim=1)
