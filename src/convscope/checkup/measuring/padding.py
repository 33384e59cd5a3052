"""Padding, as a network's inputs show it: constant ends of samples that aren't all of one length.

A batch of sequences or images of different sizes is filled up with a constant. What is filled up is told from
content by four things: whole rows, columns or steps at an end hold one constant per channel, exactly; its
length differs between samples; it is over a tenth of the batch; and the constant is rare in what is left,
which it isn't where it is a background, as around a handwritten digit.

Limits: what the padding's neighbours make of it isn't followed: a mask is carried to a layer's map by
position alone, so that it is off by the receptive field at the boundary.

Axis letters: N samples, C channels, S positions, A spatial axes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from convscope.checkup.measuring.batches import Batch
from convscope.checkup.measuring.population import Moments
from convscope.checkup.observed import PaddedInputs

_LEAST_SHARE = 0.1
_BACKGROUND = 0.05  # of the content at most may look like padding
_CANDIDATES = 3
_CHUNK_VALUES = 2**22


@dataclass(frozen=True, eq=False)
class Content:
    """The part of every sample that isn't padding: a box.

    Attributes:
        sizes: spatial sizes of the network's inputs.
        low, high: (N, A): first position of the content along each axis, and the first one behind it.
    """

    sizes: tuple[int, ...]
    low: Tensor
    high: Tensor

    @property
    def padded_share(self) -> float:
        """Part of the batch's positions that is padding."""
        inside = (self.high - self.low).double() / torch.tensor(self.sizes).double()
        return 1 - float(inside.prod(1).mean())

    def mask(self, shape: tuple[int, ...]) -> Tensor | None:
        """Return which positions of a layer's inputs are content, (N, *S) on the CPU; None if unknown.

        A position of a smaller map stands for the middle of the part of the input that it lies over. Samples
        whose positions lie one after another in the first axis, (N · L, C), are known as well.

        Args:
            shape: of the layer's inputs, (N, C, *S) or (N · L, C).
        """
        samples = len(self.low)
        if len(self.sizes) == 1 and len(shape) == 2 and shape[0] == samples * self.sizes[0]:
            return self._inside(self.sizes).flatten()
        if shape[0] != samples or len(shape) != 2 + len(self.sizes):
            return None
        partly = (self.low.amax(0) > 0) | (self.high.amin(0) < torch.tensor(self.sizes))
        if any(size == 1 for size, padded in zip(shape[2:], partly.tolist(), strict=True) if padded):
            return None  # positions have been pooled
        return self._inside(shape[2:])

    def _inside(self, sizes: tuple[int, ...]) -> Tensor:
        inside = torch.ones(len(self.low), *sizes, dtype=torch.bool)
        for axis, size in enumerate(sizes):
            middle_S = ((torch.arange(size) + 0.5) * self.sizes[axis] / size).floor()
            along_NS = (middle_S >= self.low[:, axis, None]) & (middle_S < self.high[:, axis, None])
            inside &= along_NS.reshape(-1, *(size if other == axis else 1 for other in range(len(sizes))))
        return inside


def content_of(batch: Batch) -> Content | None:
    """Return where the content of a batch's samples is; None if no padding can be told.

    Looked at are the first inputs of shape (N, C, L) or (N, L, C), (N, C, H, W), and whole numbers (N, L).
    """
    leaves = [leaf for leaf in tree_leaves((batch.args, batch.kwargs)) if isinstance(leaf, Tensor)]
    found = [content for x_NCS in _readings(leaves) for content in _candidates(x_NCS)]
    return max(found, key=lambda content: content.padded_share, default=None)


def _readings(leaves: list[Tensor]) -> Iterator[Tensor]:
    """The inputs as (N, C, *S), in every way that their axes may be meant."""
    for x in leaves:
        if x.dim() == 2 and not x.is_floating_point() and x.dtype != torch.bool:
            yield x.unsqueeze(1)
        if x.dim() in (3, 4):
            yield x
        if x.dim() == 3:
            yield x.movedim(2, 1)


def _candidates(x_NCS: Tensor) -> Iterator[Content]:
    if x_NCS.shape[0] < 2 or x_NCS[0, 0].numel() < 2:
        return
    flat_NCS = x_NCS.detach().flatten(2)
    corners_MC = torch.cat((flat_NCS[:, :, -1], flat_NCS[:, :, 0]))
    constants_KC, counts_K = torch.unique(corners_MC, dim=0, return_counts=True)
    for index in counts_K.argsort(descending=True)[:_CANDIDATES].tolist():
        content = _content(x_NCS, constants_KC[index])
        if content is not None:
            yield content


def _content(x_NCS: Tensor, constant_C: Tensor) -> Content | None:
    """The boxes that are left when whole rows of a constant are taken off the ends."""
    axes = x_NCS.dim() - 2
    same_NS = (x_NCS == constant_C.reshape(-1, *[1] * axes)).all(1).cpu()
    low_A, high_A = [], []
    for axis in range(axes):
        others = [1 + other for other in range(axes) if other != axis]
        row_NS = same_NS.all(dim=others) if others else same_NS
        size = row_NS.shape[1]
        low_N, behind_N = _run(row_NS), _run(row_NS.flip(1))
        empty_N = low_N == size  # a sample of nothing but the constant
        low_A.append(low_N.masked_fill(empty_N, 0))
        high_A.append((size - behind_N).masked_fill(empty_N, size))
    content = Content(tuple(x_NCS.shape[2:]), torch.stack(low_A, 1), torch.stack(high_A, 1))
    extent_NA = content.high - content.low
    num_rows = int((torch.tensor(content.sizes) - extent_NA).sum())
    # A single position always is its own constant.
    if num_rows < 2 or bool((extent_NA == extent_NA[0]).all()) or content.padded_share <= _LEAST_SHARE:
        return None
    inside_NS = content._inside(content.sizes)
    return None if float(same_NS[inside_NS].double().mean()) > _BACKGROUND else content


def _run(same_NS: Tensor) -> Tensor:
    """How many positions from the start on are True, (N,)."""
    return same_NS.long().cumprod(1).sum(1)


class PaddedSums:
    """Statistics of all positions beside those of the content, over batches."""

    def __init__(self) -> None:
        self._all, self._content = Moments(), Moments()

    def add(self, x_NCS: Tensor, batch: Moments, mask_NS: Tensor | None) -> None:
        """Take in one batch: its inputs, the moments of all positions, and which are content (None: all)."""
        self._all.merge(batch.count, batch.mean, batch.m2)
        content = batch if mask_NS is None else _of_content(x_NCS, mask_NS)
        self._content.merge(content.count, content.mean, content.m2)

    def facts(self, eps: float) -> PaddedInputs | None:
        """Return what padding does to the statistics; None if there is none.

        Args:
            eps: the layer's ε, below which a variance doesn't count.
        """
        if self._content.count == self._all.count or self._content.count < 2:
            return None
        all_C, content_C = self._all.m2 / self._all.count, self._content.m2 / self._content.count
        shift_C = (self._all.mean - self._content.mean).abs() / (content_C + eps).sqrt()
        return PaddedInputs(
            share=1 - self._content.count / self._all.count,
            mean_shift=float(shift_C.max()),
            variance_shift=float(((all_C + eps) / (content_C + eps)).log().abs().max()),
        )


def _of_content(x_NCS: Tensor, mask_NS: Tensor) -> Moments:
    """Moments of the positions that are content, few samples at a time."""
    found = Moments()
    samples = max(1, _CHUNK_VALUES // max(1, x_NCS[0].numel()))
    chunks = zip(torch.split(x_NCS.detach(), samples), torch.split(mask_NS, samples), strict=True)
    for chunk_NCS, inside_NS in chunks:
        values_CM = chunk_NCS.movedim(1, -1)[inside_NS.to(chunk_NCS.device)].double().T
        count = values_CM.shape[1]
        if count:
            m2_C, mean_C = torch.var_mean(values_CM, dim=1, correction=0)
            found.merge(count, mean_C.cpu(), m2_C.cpu() * count)
    return found
