"""What one layer is given in passes over the data, and what it normalises by meanwhile."""

import inspect
import math
from collections import deque
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from convscope.core.errors import ConvscopeError
from convscope.norm.engine.merging import Summary, merged
from convscope.norm.layers.checks import masked
from convscope.norm.recalibration.layers import Norm, fill
from convscope.norm.recalibration.pools import Pool


class LayerInputs:
    """A layer under recalibration: its old statistics, and the pools that its inputs go into.

    Attributes:
        norm: the layer.
        deployed: inputs in the network as its buffers are.
        by_latest: inputs where layers normalise by the latest samples.
        place: of the first call among those of all layers; infinite before it.
    """

    def __init__(self, norm: Norm) -> None:
        self.norm, self.place = norm, math.inf
        self._old = norm.mean.detach().clone(), norm.variance.detach().clone()
        self._calls, self._calls_of_runs = 0, set[int]()
        self._mask: Tensor | None = None
        if "mask" in inspect.signature(norm.layer.forward).parameters:
            # Padding is out of the statistics, and the operator isn't told of it. The probe takes this off.
            norm.layer.register_forward_pre_hook(self._note_mask, with_kwargs=True)
        self.begin_pass()

    @property
    def is_reused(self) -> bool:
        """Whether the layer was called several times in a run."""
        return max(self._calls_of_runs, default=0) > 1

    @property
    def is_done(self) -> bool:
        """Whether this run has come to the last call of the layer, if all runs so far had as many."""
        return self._calls_of_runs == {self._calls}

    def begin_pass(self) -> None:
        """Empty the pools."""
        self.deployed, self.by_latest = Pool(), Pool()
        self._latest: deque[tuple[int, Summary]] = deque()

    def begin_run(self) -> None:
        """Count calls from 0."""
        self._calls = 0

    def count(self) -> None:
        """Count a call."""
        self._calls += 1

    def end_run(self) -> None:
        """Take note of the calls of a run that went to its end."""
        self._calls_of_runs.add(self._calls)

    def put_back(self) -> None:
        """Let the layer normalise by its old statistics."""
        for buffer, old in zip((self.norm.mean, self.norm.variance), self._old, strict=True):
            buffer.copy_(old)

    def measure(self, x: Tensor) -> None:
        """Take in an input (N, C, *)."""
        self.deployed.add(x, self._mask_for(x))

    def normalise_by_latest(self, x: Tensor, window: int) -> None:
        """Take in an input, and let it be normalised by itself and the latest before it.

        Args:
            x: the input (N, C, *).
            window: how many samples there should be at least, all in all.

        Raises:
            ConvscopeError: the input has NaN or infinite values, or a statistic beyond the buffers' range.
        """
        values = self.by_latest.add(x, self._mask_for(x))
        if not bool(values.mean.isfinite().all() and values.squares.isfinite().all()):
            raise ConvscopeError(
                f"{self.norm.path} given NaN or infinite values, the first batch norm that was",
                "finite activations",
                "look for NaN in the weights before it, or for overflow in half precision",
            )
        self._latest.append((len(x), values))
        latest = self._within(window)
        if latest is not None:
            fill(self.norm, latest.mean, latest.variance)

    def _within(self, window: int) -> Summary | None:
        """Forget inputs beyond the window, and return the others' statistics; None while a variance lacks.

        One value has none: then the window is wider, and the first input of all stays with the old ones.
        """
        num_samples = least = 0
        for place in reversed(range(len(self._latest))):
            samples, values = self._latest[place]
            num_samples, least = num_samples + samples, least + int(values.count.min())
            if num_samples >= window and least > 1:
                for _ in range(place):
                    self._latest.popleft()
                break
        return merged([values for _, values in self._latest]) if least > 1 else None

    def _note_mask(self, _: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self._mask = args[1] if len(args) > 1 else kwargs.get("mask")

    def _mask_for(self, x: Tensor) -> Tensor | None:
        mask, self._mask = self._mask, None
        return masked(self.norm.layer, x, mask)
