"""Tensors that a recorded step touches and that aren't the simulation's: they come back as they were.

A step of the user's own may use an optimizer made over the real parameters: for the time of its ``step``
it works on their twins, with twins of its state. Other tensors with gradients, such as a criterion's
weights or a parameter in a plain list, get their ``.grad`` back. Nothing may write to a tensor that is
neither a parameter nor a buffer nor made in the step: in a simulation that is refused, in a real run its
content is put back.
"""

import threading
import weakref
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from convscope.core.errors import ConvscopeError
from convscope.core.preserved import same_bits

Twin = Callable[[torch.Tensor], torch.Tensor | None]


class OwnTensors:
    """A context manager around a recording.

    Args:
        originals: the network's real parameters.
        twin_of: returns the twin of a real parameter, or None for other tensors.
        copied: returns a twin of any tensor, for optimizer states.
        real: whether the step runs for real.
    """

    def __init__(
        self,
        originals: list[torch.Tensor],
        twin_of: Twin,
        copied: Callable[[torch.Tensor], torch.Tensor],
        *,
        real: bool,
    ) -> None:
        self._twin_of, self._copied, self._real = twin_of, copied, real
        self._gradients = {id(tensor): (tensor, tensor.grad) for tensor in originals}
        # Weak: a tensor that dies in the step needs nothing put back, and has to die when it would.
        self._contents: dict[int, tuple[weakref.ref[torch.Tensor], torch.Tensor]] = {}
        self._remapped: list[tuple[torch.optim.Optimizer, list[list[Any]], Any]] = []

    def __enter__(self) -> "OwnTensors":
        self._thread = threading.get_ident()
        for tensor, _ in self._gradients.values():
            tensor.grad = None
        self._hooks = (
            register_optimizer_step_pre_hook(lambda optimizer, *_: self._remap(optimizer)),
            register_optimizer_step_post_hook(lambda optimizer, *_: self._restore(optimizer)),
        )
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
        for entry in list(self._remapped):
            self._restore(entry[0])
        for reference, content in self._contents.values():
            tensor = reference()
            if tensor is not None and not same_bits(tensor, content):
                with torch.no_grad():
                    tensor.copy_(content)
        for tensor, gradient in self._gradients.values():
            tensor.grad = gradient

    def met(self, tensor: torch.Tensor) -> None:
        """Note a tensor from outside that an operator is about to read.

        Its ``.grad`` is put back at the end; after a real run its content, too, since some operators write to
        tensors without saying so.
        """
        if tensor.requires_grad and tensor.is_leaf and id(tensor) not in self._gradients:
            self._gradients[id(tensor)] = (tensor, tensor.grad)
            tensor.grad = None
        if self._real:
            self._keep_content(tensor)

    def written(self, tensor: torch.Tensor, address: str) -> None:
        """Note that an operator is about to write to a tensor from outside.

        Raises:
            ConvscopeError: in a simulation, where it can't be undone.
        """
        if self._real:
            self._keep_content(tensor)
            return
        raise ConvscopeError(
            f"operator {address} writes to a tensor that is neither a parameter nor a buffer of the network",
            "a step that leaves other tensors alone",
            "register it as a buffer, or make the loss's module part of the network; or record for real",
        )

    def _keep_content(self, tensor: torch.Tensor) -> None:
        kept = self._contents.get(id(tensor))
        if kept is None or kept[0]() is not tensor:
            self._contents[id(tensor)] = (weakref.ref(tensor), tensor.detach().clone())

    def _remap(self, optimizer: torch.optim.Optimizer) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if threading.get_ident() != self._thread or not any(self._twin_of(p) is not None for p in parameters):
            return
        before = [group["params"] for group in optimizer.param_groups]
        self._remapped.append((optimizer, before, optimizer.state))
        states: defaultdict[Any, Any] = defaultdict(dict)
        for parameter, state in optimizer.state.items():
            twin = self._twin_of(parameter) if isinstance(parameter, torch.Tensor) else None
            states[parameter if twin is None else twin] = {
                name: self._copied(item) if isinstance(item, torch.Tensor) else item
                for name, item in state.items()
            }
        for group in optimizer.param_groups:
            twins = [(self._twin_of(parameter), parameter) for parameter in group["params"]]
            group["params"] = [parameter if twin is None else twin for twin, parameter in twins]
        optimizer.state = states

    def _restore(self, optimizer: torch.optim.Optimizer) -> None:
        for entry in [entry for entry in self._remapped if entry[0] is optimizer]:
            self._remapped.remove(entry)
            for group, own in zip(optimizer.param_groups, entry[1]):
                group["params"] = own
            optimizer.state = entry[2]
