"""Ghost batch normalisation: a large batch is normalised as several small ones, the ghost batches.

The noise of small batches' statistics regularises; batches that are large for the sake of speed lose it. Here
consecutive samples, ``ghost_batch_size`` at a time, share statistics, and running averages move as if each
ghost batch were a batch of its own. With k of them and η the momentum that is, step by step, the published

    μ ← (1 − η)^k μ + η Σᵢ (1 − η)^(k − i) μᵢ,   i = 1, …, k

where the weights add up to 1 (as printed, the exponents of algorithm 1 don't make them do so).
"""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from convscope.core.errors import ConvscopeError
from convscope.norm.axes import GHOST, along, legend
from convscope.norm.engine.function import normalise_by, statistics
from convscope.norm.engine.running import Averages, move, unbiased
from convscope.norm.engine.statistics import Moments
from convscope.norm.layers.batch import BatchLayer
from convscope.norm.layers.checks import check_counts, check_several_values
from convscope.norm.naming import named


class GhostLayer(BatchLayer):
    """What the classes share: the batch in parts."""

    ghost_batch_size: int = 32

    def __init__(self, num_features: int, *, ghost_batch_size: int = 32, **kwargs: Any) -> None:
        super().__init__(num_features, **kwargs)
        self.ghost_batch_size = ghost_batch_size
        self._check_size()

    def extra_repr(self) -> str:
        """Return the settings for the module's printed form."""
        return f"{super().extra_repr()}, ghost_batch_size={self.ghost_batch_size}"

    def _by_batch(self, x: Tensor, mask: Tensor | None) -> Tensor:
        self._check_size()  # again: the class of a layer can change, and its attributes
        # Not divmod(): torch.compile, with batches of any size, has none.
        parts, left = x.shape[0] // self.ghost_batch_size, x.shape[0] % self.ghost_batch_size
        if parts and left * math.prod(x.shape[2:]) == 1:  # has no variance: it joins the part before
            parts, left = parts - 1, left + self.ghost_batch_size
        if not (parts and left):
            y, found = self._by_parts(x, mask, max(parts, 1))
            self._move(found)
            return y
        sizes = [x.shape[0] - left, left]
        masks = [mask, mask] if mask is None or mask.shape[0] == 1 else mask.split_with_sizes(sizes)
        pieces = zip(x.split_with_sizes(sizes), masks, (parts, 1), strict=True)
        (y, found), (y_left, found_left) = (self._by_parts(*piece) for piece in pieces)
        self._move(found, found_left)  # only now: a piece that is refused leaves the averages alone
        return torch.cat([y, y_left])

    def _by_parts(self, x: Tensor, mask: Tensor | None, parts: int) -> tuple[Tensor, Moments]:
        """Return a batch normalised in parts of equal size, and their statistics."""
        size, axes = x.shape[0] // parts, legend(x.dim(), parted=True)
        dims = GHOST.dims(axes)
        # view() may change the stride of a single sample, and flatten() too.
        split = x[None] if parts == 1 else x.view(parts, size, *x.shape[1:])
        if mask is not None:
            mask = mask.expand(x.shape[0], *mask.shape[1:]).view(parts, size, *mask.shape[1:])
        else:
            check_several_values(self, x, size * math.prod(x.shape[2:]), "channel of a ghost batch")
        found = statistics(split, dims, mask)
        if mask is not None:
            check_counts(self, x, found.count, "channel of a ghost batch")
        weight, bias = along(self.weight, axes), along(self.bias, axes)
        y = normalise_by(split, weight, bias, found, dims, self.eps, mask)
        return y[0] if parts == 1 else y.flatten(0, 1), found

    def _move(self, *pieces: Moments) -> None:
        """Move the running averages, one part after the other."""
        if not (self.training and self.track_running_stats):
            return
        averages = Averages(self.running_mean, self.running_var, self.num_batches_tracked)
        for found in pieces:
            variances = unbiased(found.variance, found.count)
            for mean, variance in zip(found.mean, variances, strict=True):
                move(self, averages, mean.flatten(), variance.flatten(), self.warm_start)

    def _check_size(self) -> None:
        if not isinstance(self.ghost_batch_size, int) or self.ghost_batch_size < 1:
            raise ConvscopeError(
                f"{named(self)} with ghost_batch_size={self.ghost_batch_size!r}",
                "a whole number of samples, at least 1",
                "choose for example 32",
            )


class GhostBatchNorm1d(GhostLayer, nn.BatchNorm1d):
    """Ghost batch normalisation of features (N, C) or sequences (N, C, L).

    See :class:`GhostBatchNorm2d` for arguments and semantics.

    Example:
        >>> x = torch.tensor([[1.0], [3.0], [10.0], [30.0]])
        >>> GhostBatchNorm1d(1, eps=0.0, ghost_batch_size=2)(x).flatten().tolist()
        [-1.0, 1.0, -1.0, 1.0]
    """

    _shapes: ClassVar = {2: "(N, C)", 3: "(N, C, L)"}


class GhostBatchNorm2d(GhostLayer, nn.BatchNorm2d):
    """Ghost batch normalisation of maps (N, C, H, W): names and state dict of ``torch.nn.BatchNorm2d``.

    Args:
        num_features: C.
        ghost_batch_size: how many samples share statistics.
        **kwargs: by name, ``eps``, ``momentum``, ``affine``, ``track_running_stats``, ``device``,
            ``dtype`` and ``warm_start`` as in :class:`convscope.norm.BatchNorm2d`.

    The samples that are left over at the end make a smaller ghost batch; a single value per channel, of
    which there is no variance, joins the ghost batch before it. A batch of up to ``ghost_batch_size`` is one.
    ``num_batches_tracked`` counts ghost batches. At test time it is batch norm; without running statistics
    test time takes the statistics of ghost batches too.

    Raises:
        ConvscopeError: ``ghost_batch_size`` isn't a whole number of at least 1; in ``forward`` what
            :class:`convscope.norm.BatchNorm2d` refuses, of a ghost batch.

    Source:
        Hoffer, Hubara and Soudry, "Train longer, generalize better", arXiv 1705.08741, algorithm 1.

    Not covered: statistics of several processes; what :class:`convscope.norm.BatchNorm2d` doesn't cover.

    Example:
        >>> layer = GhostBatchNorm2d(3, ghost_batch_size=4)
        >>> y = layer(torch.randn(10, 3, 5, 5))
        >>> layer.num_batches_tracked.item()  # 4 + 4 + 2
        3
    """

    _shapes: ClassVar = {4: "(N, C, H, W)"}


class GhostBatchNorm3d(GhostLayer, nn.BatchNorm3d):
    """Ghost batch normalisation of volumes (N, C, D, H, W).

    See :class:`GhostBatchNorm2d` for arguments and semantics.

    Example:
        >>> GhostBatchNorm3d(2)(torch.randn(2, 2, 3, 4, 5)).shape
        torch.Size([2, 2, 3, 4, 5])
    """

    _shapes: ClassVar = {5: "(N, C, D, H, W)"}
