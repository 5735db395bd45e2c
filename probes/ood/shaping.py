"""Detectors that reshape the activations before the head, and take the energy of what comes out.

They were made for networks whose activations are never negative.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from featcache.probes.ood.block import how_many

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
    percentile = shared.options.dice_percentile

    def compute() -> torch.Tensor:
        shares = shared.mean_input[:, None] * shared.weights  # (D, C)
        limit = shares.flatten().sort().values[int(percentile / 100 * (shares.numel() - 1))]
        found: torch.Tensor = shared.torch.where(shares > limit, shared.weights, 0)
        return found

    kept: torch.Tensor = shared.once(f"dice {percentile!r}", compute)
    return (block.inputs @ kept + shared.bias).logsumexp(dim=1)


def ash_p(block: Block) -> torch.Tensor:
    """Keep the largest activations as they are, and drop the others."""
    return (block.pruned_product + block.shared.bias).logsumexp(dim=1)


def ash_b(block: Block) -> torch.Tensor:
    """Give the largest activations one value, so that the row's sum stays what it was."""
    pruned, kept = block.pruned
    total = block.inputs.sum(dim=1, keepdim=True)
    return _energy(block, (pruned != 0) * total / kept)


def ash_s(block: Block) -> torch.Tensor:
    """Keep the largest activations, times exp(sum before / sum after)."""
    ratio = _ratio(block.inputs.sum(dim=1), block.pruned[0].sum(dim=1)).exp()
    return (block.pruned_product * ratio[:, None] + block.shared.bias).logsumexp(dim=1)


def scale(block: Block) -> torch.Tensor:
    """Multiply all activations by exp(their sum / sum of the largest)."""
    kept = how_many(block.inputs, block.shared.options.scale_percentile)
    largest = block.inputs.topk(kept, dim=1).values.sum(dim=1)
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


def _ratio(total: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
    """Divide sums; where the part is nothing the ratio is 1, as for a row of zeros."""
    is_some = part.abs() > 0
    ones: torch.Tensor = total.new_ones(total.shape)
    return ones.where(~is_some, total / part.where(is_some, ones)).clamp(-30, 30)
