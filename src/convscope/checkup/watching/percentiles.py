"""Percentiles of one channel of each layer over training: 15 %, 50 % and 85 %.

Of batch norms, both what they get and what they put out, which a non-linearity reads; in a network without
them, of what convolutions and linear layers put out.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from convscope.checkup.observed.run import Percentiles

_LEVELS = (0.15, 0.5, 0.85)
_MOST_VALUES = 4096
_MOST_SAMPLES = 512

Side = Literal["input", "output"]
_Key = tuple[str, Side]


class PercentileLog:
    """Gathers values of the current step, and percentiles of past ones.

    When there are 512 samples, every second one is given up, and only every second step sampled from then
    on, so that memory doesn't grow with training.

    Attributes:
        channels: the channel of each layer that is looked at, by path; chosen at a layer's first sample if it
            isn't in here, so that a run which goes on can go on with the same ones.
    """

    def __init__(self) -> None:
        self.channels: dict[str, int] = {}
        self._values: dict[_Key, Tensor] = {}
        self._found: dict[_Key, list[tuple[int, tuple[float, float, float]]]] = {}
        self._stride, self._samples = 1, 0

    @torch.no_grad()
    def add(self, path: str, layer: nn.Module, side: Side, values: Tensor) -> None:
        """Take values of a layer's first call in a step.

        Args:
            path: of the layer.
            layer: a linear layer has its channels last, any other one in the second dimension.
            side: which side of the layer they are on.
            values: the whole tensor; at most 4,096 of them are looked at.
        """
        if (path, side) in self._values or values.dim() < 2 or not values.is_floating_point():
            return
        dim = values.dim() - 1 if isinstance(layer, nn.Linear) else 1
        if path not in self.channels:
            self.channels[path] = _typical(values.detach(), dim)
        if self.channels[path] < values.shape[dim]:
            self._values[path, side] = _some(values.detach().select(dim, self.channels[path]))

    @torch.no_grad()
    def step_ends(self, steps: int) -> None:
        """Turn the values of a step into percentiles; ``steps`` had been made when they were taken."""
        if not self._values:
            return
        if self._samples % self._stride == 0:
            for key, levels in _quantiles(self._values).items():
                self._found.setdefault(key, []).append((steps, levels))
        self._samples += 1
        if self._samples // self._stride >= _MOST_SAMPLES:
            self._found = {key: samples[::2] for key, samples in self._found.items()}
            self._stride *= 2
        self._values.clear()

    def found(self) -> tuple[Percentiles, ...]:
        """Return the percentiles so far, in the order in which the layers first ran."""
        rows = []
        for (path, side), samples in self._found.items():
            steps, levels = zip(*samples, strict=True)
            low, middle, high = zip(*levels, strict=True)
            rows.append(Percentiles(path, self.channels[path], side, steps, low, middle, high))
        return tuple(rows)

    def latest(self) -> dict[_Key, tuple[float, float, float]]:
        """Return the last percentiles of each layer and side."""
        return {key: samples[-1][1] for key, samples in self._found.items()}


def _typical(values: Tensor, dim: int) -> int:
    """The channel whose variance is the median of all."""
    others = [other for other in range(values.dim()) if other != dim]
    return int(values.float().var(others, correction=0).nan_to_num().argsort()[values.shape[dim] // 2])


def _some(channel: Tensor) -> Tensor:
    """At most 4,096 values from all over a channel, as a copy."""
    while channel.numel() > _MOST_VALUES:
        longest = max(range(channel.dim()), key=lambda dim: channel.shape[dim])
        channel = channel[(slice(None),) * longest + (slice(None, None, 2),)]
    return channel.float().reshape(-1).clone()


def _quantiles(values: dict[_Key, Tensor]) -> dict[_Key, tuple[float, float, float]]:
    """Percentiles of all tensors; those with equally many values are sorted together."""
    by_length: dict[tuple[int, torch.device], list[_Key]] = {}
    for key, tensor in values.items():
        by_length.setdefault((len(tensor), tensor.device), []).append(key)
    found = {}
    for (length, device), keys in by_length.items():
        if not length:
            continue
        levels = torch.tensor(_LEVELS, device=device)
        rows = torch.quantile(torch.stack([values[key] for key in keys]), levels, dim=1).T.tolist()
        found.update({key: (low, middle, high) for key, (low, middle, high) in zip(keys, rows, strict=True)})
    return {key: found[key] for key in values if key in found}
