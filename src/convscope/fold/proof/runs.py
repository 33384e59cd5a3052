"""Runs of a network on trials: its outputs, its values at module calls, and if it writes to its inputs."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from convscope.fold.proof.trials import Trial
from convscope.probe import Probe, probing

Listener = Callable[[str, Tensor], Tensor | None]
"""Is told a module call's address and value; what it returns, if not None, takes the value's place."""


@dataclass(frozen=True)
class Run:
    """What a run has shown.

    Attributes:
        trial: the inputs.
        outputs: all tensors in the network's outputs.
        values: what module calls returned, by their addresses.
        is_whole: whether these are whole, or here and there only.
        writes: whether the network wrote to its inputs.
    """

    trial: Trial
    outputs: list[Tensor]
    values: dict[str, Tensor]
    is_whole: bool
    writes: bool


class Runner:
    """Runs one network; made by :func:`running`."""

    def __init__(self, probe: Probe, addresses: Sequence[str], dtype: torch.dtype | None) -> None:
        self._probe, self._dtype = probe, dtype
        self._values: dict[str, Tensor] = {}
        self._listener: Listener | None = None
        self._is_whole = True
        for address in addresses:
            probe.at_module(address, self._keep)

    def __call__(self, trial: Trial, is_whole: bool, listener: Listener | None = None) -> Run:
        """Return what a run shows; whatever the network raises is raised."""
        self._values, self._is_whole, self._listener = {}, is_whole, listener
        network = self._probe.model
        args, kwargs = trial.call(_device(network), self._dtype)
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        versions = [tensor._version for tensor in inputs]
        torch.manual_seed(0)
        outputs = [tensor.detach().clone() for tensor in tensors_of(network(*args, **kwargs))]
        writes = [tensor._version for tensor in inputs] != versions
        return Run(trial, outputs, self._values, is_whole, writes)

    @property
    def reached(self) -> tuple[str, ...]:
        """The addresses that the last run came by, in order, also if it failed."""
        return tuple(self._values)

    @property
    def failed_in(self) -> str:
        """The address of the innermost module call that an exception left in the last run."""
        return self._probe.attribution.failed_in

    def _keep(self, address: Any, result: Any) -> Tensor | None:
        if result is None:  # the module has failed
            return None
        tensor = _first(result)
        self._values[str(address)] = tensor.detach().clone() if self._is_whole else _sample(tensor)
        if self._listener is None or not isinstance(result, Tensor):
            return None
        return self._listener(str(address), result)


@contextlib.contextmanager
def running(network: nn.Module, addresses: Sequence[str], dtype: torch.dtype | None) -> Iterator[Runner]:
    """Yield what runs a network in evaluation mode, without gradients.

    Args:
        network: it is as it was afterwards, unless its own code changes it.
        addresses: of module calls whose results are read on the way.
        dtype: of floating inputs and of new tensors; None leaves them as they were given.
    """
    with probing(network) as probe, _default_dtype(dtype), torch.no_grad():
        yield Runner(probe, addresses, dtype)


def tensors_of(outputs: Any) -> list[Tensor]:
    """Return all tensors in a network's outputs: containers are walked, other objects by attribute."""
    tensors = []
    for leaf in tree_leaves(outputs):
        if isinstance(leaf, Tensor):
            tensors.append(leaf)
        elif hasattr(leaf, "__dict__") and not isinstance(leaf, type):
            tensors += [item for item in tree_leaves(vars(leaf)) if isinstance(item, Tensor)]
    return [torch.view_as_real(tensor) if tensor.is_complex() else tensor for tensor in tensors]


def _sample(tensor: Tensor) -> Tensor:
    """Some positions of a value, all of its channels."""
    if tensor.dim() < 3:
        return tensor.detach().clone()
    step = [1, 1, *(max(1, size // 4) for size in tensor.shape[2:])]
    return tensor.detach()[tuple(slice(None, None, each) for each in step)].clone()


@contextlib.contextmanager
def _default_dtype(dtype: torch.dtype | None) -> Iterator[None]:
    """New tensors are made in ``dtype``, so that constants in a network's code don't lose digits."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype or default)
    try:
        yield
    finally:
        torch.set_default_dtype(default)


def _device(network: nn.Module) -> torch.device:
    return next((t.device for t in (*network.parameters(), *network.buffers())), torch.device("cpu"))


def _first(result: Any) -> Tensor:
    tensor: Tensor = result[0] if isinstance(result, tuple | list) else result
    return tensor
