"""The cross entropy of a softmax over many words, from the scores of few.

    log(exp(s_t) + sum_{j in S, j != t} exp(s_j) / (|S| q_j)) - s_t

Letters: s score of a word, t the target, S the samples, q the probability that a word is drawn.
"""

from collections.abc import Callable
from math import log
from typing import Literal

import torch
from torch import Tensor, nn

from ketcore.shapes import check_int

Distribution = Literal["log_uniform", "uniform"] | Tensor


def sampled_loss(
    rows: Callable[[Tensor], Tensor],
    hidden: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    num_sampled: int,
    words: int,
    distribution: Distribution,
    ignore_index: int,
    reduction: str,
    generator: torch.Generator | None,
) -> Tensor:
    """The loss of `sampled_softmax_loss`; `rows` gives the rows of a table of so many words."""
    if not isinstance(targets, Tensor):
        raise TypeError(f"targets must be a tensor of integers, got {type(targets).__name__}")
    if targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
        raise TypeError(f"targets must have an integer dtype, got {targets.dtype}")
    if targets.device != hidden.device:
        devices = f"{targets.device}, {hidden.device}"
        raise TypeError(f"targets and hidden must lie on one device, got {devices}")
    targets = targets.long()
    if targets.shape != hidden.shape[:-1]:
        shapes = f"{tuple(targets.shape)} and {tuple(hidden.shape)}"
        raise ValueError(f"targets must have the shape of hidden without its last axis, got {shapes}")
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
    num_sampled = check_int("num_sampled", num_sampled, 1)
    sampled, log_probability = drawn(distribution, num_sampled, words, hidden.device, generator)
    flat, targets_of = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
    ignored = targets_of == ignore_index
    right = targets_of.masked_fill(ignored, 0)
    # The look-up would name ids.
    if _is_readable(right) and right.numel() and not 0 <= right.min() <= right.max() < words:
        bad = right[(right < 0) | (right >= words)][0]
        raise IndexError(f"targets must lie in [0, {words}) or be {ignore_index}, got {int(bad)}")
    score = (flat[:, None, :] @ rows(right)[:, :, None])[:, 0]
    others = nn.functional.linear(flat, rows(sampled))
    if bias is not None:
        score, others = score + bias[right, None].to(score.dtype), others + bias[sampled].to(others.dtype)
    others = others - (log_probability + log(num_sampled)).to(others.dtype)
    others = others.masked_fill(sampled == right[:, None], -torch.inf)
    choice = torch.zeros_like(right).masked_fill(ignored, ignore_index)
    scores = torch.cat([score, others], -1)
    loss = nn.functional.cross_entropy(scores, choice, ignore_index=ignore_index, reduction=reduction)
    return loss.reshape(targets.shape) if reduction == "none" else loss


def drawn(
    distribution: Distribution,
    count: int,
    words: int,
    device: torch.device,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    """Words drawn independently, `count` of them, and the logarithms of their probabilities.

    Examples
    --------
    >>> drawn("uniform", 3, 1, torch.device("cpu"), None)[1].exp().tolist()
    [1.0, 1.0, 1.0]
    """
    if isinstance(distribution, Tensor):
        return _by_frequency(distribution, count, words, device, generator)
    if distribution not in ("log_uniform", "uniform"):
        kinds = "'log_uniform', 'uniform' or a tensor"
        raise ValueError(f"distribution must be {kinds}, got {distribution!r}")
    # In float64, whose random numbers tell apart more words than there are.
    at = torch.rand(count, device=device, dtype=torch.float64, generator=generator)
    if distribution == "uniform":
        found = (at * words).long().clamp(max=words - 1)
        return found, torch.full_like(at, -log(words))
    # The distribution function of word i is log(i + 2) / log(words + 1).
    found = (torch.exp(at * log(words + 1)).long() - 1).clamp(0, words - 1)
    wide = found.double()
    return found, torch.log(torch.log1p(1 / (wide + 1)) / log(words + 1))


def _is_readable(tensor):
    """Whether looking at values costs little: on the host, and not while torch.compile traces."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def _by_frequency(frequency, count, words, device, generator):
    """Draws of words in proportion to a frequency, and the logarithms of their probabilities."""
    if frequency.shape != (words,):
        raise ValueError(f"distribution must have shape ({words},), got {tuple(frequency.shape)}")
    if frequency.is_complex() or frequency.device != device:
        facts = f"{frequency.dtype} on {frequency.device}"
        raise TypeError(f"distribution must be real and on {device}, got {facts}")
    wide = frequency.detach().double()
    total = wide.cumsum(0)
    if _is_readable(wide) and not (wide.min() >= 0 and 0 < total[-1] < torch.inf):
        raise ValueError("distribution must be finite, not negative, and not zero everywhere, got others")
    at = torch.rand(count, device=device, dtype=torch.float64, generator=generator) * total[-1]
    # A number that rounding brings to the total lies beyond the last word of a positive frequency.
    last = words - 1 - (wide > 0).flip(0).int().argmax()
    found = torch.minimum(torch.searchsorted(total, at, right=True), last)
    return found, torch.log(wide[found] / total[-1])
