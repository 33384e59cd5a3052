"""A network together with all that changes its weights in an optimizer step, and keeps state to do it."""

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from convscope.core.errors import ConvscopeError
from convscope.sight.renormalisation import Renormalisation
from convscope.train.config import TrainConfig
from convscope.train.learning.average import Average
from convscope.train.learning.optimizer import build_optimizer
from convscope.train.learning.scaling import Scaling


class Stateful(Protocol):
    """Something whose state is tensors by name, for a checkpoint."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state: always the same names, shapes and dtypes."""

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take up a state."""


class Learner:
    """Optimizer, loss scale, clipping, renormalisation and average of one network.

    Args:
        model: the network, on the training device.
        prepared: what is run in training: the network, or its wrapper for several processes.
        config: the settings.
        device: the training device.

    Raises:
        ConvscopeError: the network has no trainable parameter, or, with ``renormalise_radius``, no
            convolution.
    """

    def __init__(
        self, model: nn.Module, prepared: nn.Module, config: TrainConfig, device: torch.device
    ) -> None:
        self.model, self.prepared, self.config = model, prepared, config
        self.scaling = Scaling(device) if config.precision == "amp-fp16" else None
        self.optimizer = build_optimizer(model, config)
        self.average = Average(model, config.ema_decay) if config.ema_decay is not None else None
        radius = config.renormalise_radius
        self._renormalisation = Renormalisation(model, radius) if radius is not None else None

    @property
    def stateful(self) -> dict[str, Stateful]:
        """What belongs in a checkpoint beside the network and the optimizer."""
        parts: dict[str, Stateful | None] = {"scaling": self.scaling, "average": self.average}
        return {name: part for name, part in parts.items() if part is not None}

    @property
    def num_skipped(self) -> int:
        """Steps skipped so far because a gradient overflowed; reading it waits for the device."""
        return self.scaling.num_skipped if self.scaling is not None else 0

    def attached(self) -> AbstractContextManager[object]:
        """Return a context in which every step of the optimizer is followed by the renormalisation."""
        if self._renormalisation is None:
            return nullcontext()
        return self._renormalisation.attach(self.optimizer)

    def accumulating(self, *, is_last: bool) -> AbstractContextManager[object]:
        """Return the context of one micro-batch: only the last one's exchanges gradients with others."""
        if is_last or not isinstance(self.prepared, DistributedDataParallel):
            return nullcontext()
        return self.prepared.no_sync()

    def set_rate(self, rate: float) -> None:
        """Set the learning rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def backward(self, loss: Tensor) -> None:
        """Add a loss's gradients to those that are there."""
        if self.scaling is not None:
            loss = self.scaling.scaled(loss)
        torch.autograd.backward(loss)

    def update(self, number: int) -> None:
        """Change the weights by the gradients, and the average by the weights.

        Args:
            number: optimizer steps done, this one included (a skipped one counts).

        Raises:
            ConvscopeError: on several processes, a trainable parameter has no gradient.
        """
        if isinstance(self.prepared, DistributedDataParallel):
            self._require_gradients()
        if self.scaling is not None:
            self.scaling.unscale(self.optimizer)
        if self.config.clip_grad_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_grad_norm)
        if self.scaling is not None:
            self.scaling.step(self.optimizer)
        else:
            self.optimizer.step()
        if self.average is not None:
            self.average.update(number)

    def _require_gradients(self) -> None:
        """Distributed training waits for the gradient of every parameter, and averages none before."""
        named = self.model.named_parameters()
        idle = [name for name, p in named if p.requires_grad and p.grad is None]
        if idle:
            more = f" and {len(idle) - 3} more" if len(idle) > 3 else ""
            raise ConvscopeError(
                f"{type(self.model).__name__} on several processes: the loss doesn't depend on "
                f"{', '.join(idle[:3])}{more}",
                "a loss that every trainable parameter has a part in",
                "call requires_grad_(False) on these (an auxiliary head's, say), or train in one process",
            )
