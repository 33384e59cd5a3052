"""``Renormalisation``: filters that would dominate are scaled back after every step of the optimizer.

Zeiler and Fergus saw a few filters of the first layer dominate, and kept each filter's RMS within 0.1 for
inputs of about [−128, 128]. The radius goes with the inputs' scale: for inputs of unit variance, and usual
initial weights, 0.1 holds down whole layers.

Limits: convolutions that are modules; filters of bare functions aren't seen. A module that standardises its
weight in its own ``forward`` isn't changed by scaling it. Counts begin anew when a training is resumed.
"""

from math import isfinite
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from convscope.core.errors import ConvscopeError
from convscope.sight.renormalising.counts import Counts
from convscope.sight.renormalising.filters import FilterBank, filter_banks
from convscope.sight.renormalising.result import Renormalised, RenormalisedLayer, findings_on
from convscope.tape import require_values


class Renormalisation:
    """Scales every filter whose RMS exceeds a radius back to it: w ← w · radius / RMS(w).

    A filter is what makes one output channel; see :mod:`convscope.sight.renormalising.filters` for grouped
    and transposed convolutions and weight normalisation. Weights are changed in place and without a graph,
    as an optimizer does it: they stay the same tensors, with their gradients and the optimizer's state. A
    weight that several modules share is scaled once; frozen ones (``requires_grad=False``) aren't touched.
    Filters within the radius keep their bits. Processes with equal weights scale them equally: nothing is
    communicated. Half-precision weights are measured in float32, and an RMS may pass the radius by their
    rounding (4 units in the last place).

    Args:
        model: the network, or its wrapper for several processes.
        radius: the largest RMS that a filter keeps.
        layers: ``"all"`` convolutions, the ``"first"`` that was registered as a module, or paths.
        input_rms: of the network's inputs, if the result shall say whether the radius fits them.

    Raises:
        ConvscopeError: no convolution; an unknown layer; a radius or RMS that isn't a positive number;
            weights on the meta device, sharded, or computed by another parametrisation than weight
            normalisation per filter (spectral norm divides its own scaling out again).

    Source: Zeiler and Fergus 2014 (arXiv 1311.2901), section 3.1.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        >>> optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
        >>> renormalisation = Renormalisation(net, radius=0.05)
        >>> with renormalisation.attach(optimizer):
        ...     net(torch.ones(2, 3, 5, 5)).sum().backward()
        ...     _ = optimizer.step()
        >>> bool((net[0].weight.square().mean((1, 2, 3)).sqrt() < 0.0500001).all())
        True
        >>> len(renormalisation.result().layers[0].times)
        4
    """

    def __init__(
        self,
        model: nn.Module,
        radius: float = 0.1,
        layers: str | list[str] | tuple[str, ...] = "all",
        input_rms: float | None = None,
    ) -> None:
        _check_positive("radius", radius)
        if input_rms is not None:
            _check_positive("input_rms", input_rms)
        if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            model = model.module
        require_values(model)
        self.radius, self.input_rms = float(radius), input_rms
        self._banks = [
            (bank, Counts(bank.tensor.device, bank.num_filters)) for bank in filter_banks(model, layers)
        ]

    def step(self) -> None:
        """Scale the filters back; call it after ``optimizer.step()``, unless attached to the optimizer."""
        for bank, counts in self._banks:
            self._keep_within(bank, counts)

    def attach(self, *optimizers: Optimizer) -> "Attachment":
        """Let every step of an optimizer be followed by one of this, for the weights that it steps.

        A step that a gradient scaler skips isn't one.

        Args:
            *optimizers: which together step all trainable weights of the chosen layers.

        Returns:
            what takes it off again: its ``remove()``, or the end of a ``with`` block.

        Raises:
            ConvscopeError: not an optimizer, or a trainable weight that none of them steps, as with master
                copies in another precision, which would undo the scaling.
        """
        for optimizer in optimizers:
            if not isinstance(optimizer, Optimizer) or not hasattr(optimizer, "_optimizer_step_post_hooks"):
                raise ConvscopeError(
                    f"optimizer of type {type(optimizer).__name__}",
                    "a torch.optim.Optimizer without a wrapper",
                    "pass the one inside, often its .optimizer",
                )
        stepped = [_weights_of(optimizer) for optimizer in optimizers]
        for bank, _ in self._banks:
            if bank.tensor.requires_grad and not any(id(bank.tensor) in each for each in stepped):
                raise ConvscopeError(
                    f"the weight of {bank.names[0]}, which the optimizer given doesn't step",
                    "the optimizers that step all chosen weights, not master copies of them",
                    "pass them all, or name the layers that this one steps",
                )
        return Attachment([each.register_step_post_hook(self._after) for each in optimizers])

    def result(self) -> Renormalised:
        """Return how many filters were scaled back so far, over time and each."""
        layers = tuple(_layer(bank, counts, self.radius) for bank, counts in self._banks)
        found = findings_on(self.radius, self.input_rms, layers)
        return Renormalised(self.radius, self.input_rms, layers, found)

    def _after(self, optimizer: Optimizer, *_: Any) -> None:
        weights = _weights_of(optimizer)
        for bank, counts in self._banks:
            if id(bank.tensor) in weights:
                self._keep_within(bank, counts)

    @torch.no_grad()
    def _keep_within(self, bank: FilterBank, counts: Counts) -> None:
        if not bank.tensor.requires_grad:
            return
        rms = bank.rms()
        exceeding = (rms > self.radius * (1 + bank.tolerance)) & rms.isfinite()
        bank.scale(torch.where(exceeding, self.radius / rms, 1))
        counts.add(rms, exceeding)


class Attachment:
    """A renormalisation's hooks on optimizers; a context manager."""

    def __init__(self, handles: list[Any]) -> None:
        self._handles = handles

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()

    def __enter__(self) -> "Attachment":
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def _weights_of(optimizer: Optimizer) -> set[int]:
    return {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}


@torch.no_grad()
def _layer(bank: FilterBank, counts: Counts, radius: float) -> RenormalisedLayer:
    first, current = counts.first, bank.rms()
    known = None if first is None else first[first.isfinite()]
    current = current[current.isfinite()]
    return RenormalisedLayer(
        name=bank.names[0],
        shared_with=bank.names[1:],
        num_filters=bank.num_filters,
        num_steps=counts.num_steps,
        frozen=not bank.tensor.requires_grad,
        clipped=counts.over_time(),
        steps_per_bin=counts.steps_per_bin,
        times=tuple(counts.times.tolist()),
        first_rms=float(known.median()) if known is not None and len(known) else None,
        first_share=float((first > radius).float().mean()) if first is not None else None,
        largest_rms=float(current.max()) if len(current) else float("nan"),
        not_finite=tuple(counts.unusable.nonzero().flatten().tolist()),
    )


def _check_positive(name: str, value: float) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not isfinite(value) or value <= 0:
        raise ConvscopeError(f"{name}={value!r}", "a positive number", "Zeiler and Fergus's radius is 0.1")
