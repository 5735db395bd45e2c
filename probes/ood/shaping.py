"""Detectors that reshape the activations before the head, and take the energy of what comes out.

They were made for networks whose activations are never negative.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from featcache.probes.ood.block import Block


def react(block: Block) -> torch.Tensor:
    """Cut activations at a percentile of the train activations."""
    limit = block.shared.percentile(block.shared.options.react_percentile)
    return _energy(block, block.inputs.clamp_max(limit))


def vra(block: Block) -> torch.Tensor:
    """Cut activations at a high and a low percentile of the train activations."""
    options, shared = block.shared.options, block.shared
    low, high = shared.percentile(options.vra_low), shared.percentile(options.vra_high)
    return _energy(block, block.inputs.clamp(low, high))


def dice(block: Block) -> torch.Tensor:
    """Keep the weights whose mean contribution lies above a percentile of all contributions."""
    shared = block.shared
    if "dice" not in shared.memo:
        shares = shared.mean_input[:, None] * shared.weights  # (D, C)
        place = shared.options.dice_percentile / 100 * (shares.numel() - 1)
        limit = shares.flatten().sort().values[int(place)]
        shared.memo["dice"] = shared.torch.where(shares > limit, shared.weights, 0)
    logits: torch.Tensor = block.inputs @ shared.memo["dice"] + shared.bias
    return logits.logsumexp(dim=1)


def ash_p(block: Block) -> torch.Tensor:
    """Keep the largest activations as they are, and drop the others."""
    return _energy(block, _pruned(block)[0])


def ash_b(block: Block) -> torch.Tensor:
    """Give the largest activations one value, so that the row's sum stays what it was."""
    pruned, kept = _pruned(block)
    total = block.inputs.sum(dim=1, keepdim=True)
    return _energy(block, (pruned != 0) * total / kept)


def ash_s(block: Block) -> torch.Tensor:
    """Keep the largest activations, times exp(sum before / sum after)."""
    pruned, _ = _pruned(block)
    ratio = _ratio(block.inputs.sum(dim=1), pruned.sum(dim=1))
    return _energy(block, pruned * ratio.exp()[:, None])


def scale(block: Block) -> torch.Tensor:
    """Multiply all activations by exp(their sum / sum of the largest)."""
    share = block.shared.options.scale_percentile / 100
    largest = block.inputs.topk(_kept(block, share), dim=1).values.sum(dim=1)
    ratio = _ratio(block.inputs.sum(dim=1), largest).exp()
    shared = block.shared
    logits = (block.logits - shared.bias) * ratio[:, None] + shared.bias
    return logits.logsumexp(dim=1)


def lts(block: Block) -> torch.Tensor:
    """Multiply the logits by (sum of positive activations / sum of the largest)²."""
    positive = block.inputs.clamp_min(0)
    count = max(1, int(block.shared.options.lts_share * block.inputs.shape[1]))
    ratio = _ratio(positive.sum(dim=1), positive.topk(count, dim=1).values.sum(dim=1)).square()
    return (block.logits * ratio[:, None]).logsumexp(dim=1)


def _energy(block: Block, inputs: torch.Tensor) -> torch.Tensor:
    return block.shared.logits(inputs).logsumexp(dim=1)


def _kept(block: Block, dropped: float) -> int:
    dim = block.inputs.shape[1]
    return max(1, dim - round(dim * dropped))


def _pruned(block: Block) -> tuple[torch.Tensor, int]:
    """Return the inputs with all but the largest set to 0, and how many are kept."""
    kept = _kept(block, block.shared.options.ash_percentile / 100)
    values, places = block.inputs.topk(kept, dim=1)
    empty: torch.Tensor = block.shared.torch.zeros_like(block.inputs)
    return empty.scatter(1, places, values), kept


def _ratio(total: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
    """Divide sums; where the part is nothing the ratio is 1, as for a row of zeros."""
    is_some = part.abs() > 0
    ones: torch.Tensor = total.new_ones(total.shape)
    return ones.where(~is_some, total / part.where(is_some, ones)).clamp(-30, 30)
