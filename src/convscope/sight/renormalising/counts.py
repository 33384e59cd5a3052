"""How often filters were scaled back, over time: bounded memory, and no wait for the device.

Steps are counted into bins; when there are ``LARGEST_NUMBER`` of them, neighbours are joined, so that every
bin covers twice as many steps as before.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

LARGEST_NUMBER = 512


class Counts:
    """The counts of one weight's filters.

    Attributes:
        first: (f,) RMS before the first step's scaling; None before that.
        times: (f,) in how many steps each filter was scaled back.
        unusable: (f,) in how many steps its RMS wasn't finite.
        num_steps: steps counted.
        steps_per_bin: steps in a bin.
    """

    def __init__(self, device: torch.device, num_filters: int) -> None:
        self.first: Float[Tensor, " f"] | None = None
        self.times: Int[Tensor, " f"] = torch.zeros(num_filters, dtype=torch.int64, device=device)
        self.unusable: Int[Tensor, " f"] = torch.zeros_like(self.times)
        self.num_steps, self.steps_per_bin = 0, 1
        self._bins: list[Tensor] = []
        self._current = torch.zeros((), dtype=torch.int64, device=device)

    def add(self, rms: Float[Tensor, " f"], exceeding: Bool[Tensor, " f"]) -> None:
        """Count one step.

        Args:
            rms: before scaling.
            exceeding: which filters are scaled back.
        """
        if self.first is None:
            self.first = rms.clone()
        self.times += exceeding
        self.unusable += ~rms.isfinite()
        self._current = self._current + exceeding.sum()
        self.num_steps += 1
        if self.num_steps % self.steps_per_bin == 0:
            self._bins.append(self._current)
            self._current = torch.zeros_like(self._current)
        if len(self._bins) == LARGEST_NUMBER:
            self._bins = list(torch.stack(self._bins).view(-1, 2).sum(1).unbind())
            self.steps_per_bin *= 2

    def over_time(self) -> tuple[int, ...]:
        """Return the filters scaled back in each bin; the last bin may cover fewer steps."""
        rest = [self._current] if self.num_steps % self.steps_per_bin else []
        bins = [*self._bins, *rest]
        return tuple(torch.stack(bins).tolist()) if bins else ()
