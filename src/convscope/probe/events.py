"""A user's own loop, told as events: forward passes, layers within them, backward passes, optimizer steps.

Answers: what runs when, in which mode, and does a gradient come back? Made to cost next to nothing, so it
sees modules and not operators, and it is the user's loop that calls the network, not we.

The hooks are PyTorch's global ones for modules: the network itself carries none, so that copies, checkpoints
and comparisons of it within the loop are what they would be without us. The optimizer carries two; outputs
carry one each for as long as their graph lives.

Limits: the modules of the network itself, not replicas that DataParallel makes of it; nothing within compiled
or traced code, nor within runs of a probe or a recording.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.optim import Optimizer
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack
from torch.utils._pytree import tree_leaves

from convscope.core.address import ROOT
from convscope.probe.probe import Probe

_MANY_HANDLES = 256
_NO_BACKWARD = -1  # PyTorch's own number for it


@dataclass(eq=False)
class ForwardPass:
    """A run of the network, or of a part of it that was called on its own.

    Attributes:
        number: from 0, in order of their beginning.
        path: of the outermost module that was called.
        training: the mode of the whole network.
        has_gradients: whether gradients were enabled when it began.
        backward: number of the backward pass that it runs within, as activation checkpointing has it; −1 in a
            forward pass.
        will_be_recomputed: whether it is the first run of a reentrant checkpoint, in which gradients are off.
        input_trains: whether one of its tensors requires a gradient: an input to be differentiated, or a
            value from another network.
        inputs: its positional arguments; empty again when it is over.
        can_be_reached: whether an output could be told from which backward would be seen.
    """

    number: int
    path: str
    training: bool
    has_gradients: bool
    backward: int
    will_be_recomputed: bool
    input_trains: bool
    inputs: tuple[Any, ...] = ()
    can_be_reached: bool = False

    @property
    def recomputed(self) -> bool:
        """Whether it runs within a backward pass."""
        return self.backward != _NO_BACKWARD

    @property
    def trains(self) -> bool:
        """Whether gradients may come of it."""
        return self.has_gradients or self.will_be_recomputed


@dataclass(eq=False)
class LayerCall:
    """One run of a layer.

    Attributes:
        path: of the layer.
        layer: the module.
        input: its first argument.
        within: the forward pass that it belongs to.
        recomputed: whether it runs within a backward pass.
    """

    path: str
    layer: nn.Module
    input: Any
    within: ForwardPass
    recomputed: bool


class Listener(Protocol):
    """Is told what happens, in order."""

    def begins(self, run: ForwardPass) -> None:
        """A forward pass begins."""

    def layer_begins(self, call: LayerCall) -> None:
        """A layer is about to run."""

    def layer_ends(self, call: LayerCall, output: Any) -> None:
        """A layer has run; its output may be changed in place later on."""

    def ends(self, run: ForwardPass) -> None:
        """A forward pass is over, also by an exception."""

    def reached(self, run: ForwardPass, gradient: Tensor, backward: int, create_graph: bool) -> None:
        """A backward pass, known by its number, has come to an output of a forward pass."""

    def step_begins(self, optimizer: Optimizer) -> None:
        """An optimizer is about to step: gradients are final."""

    def step_ends(self, optimizer: Optimizer) -> None:
        """An optimizer has stepped."""


@contextmanager
def listening(
    model: nn.Module, optimizers: Sequence[Optimizer], layers: tuple[type[nn.Module], ...], listener: Listener
) -> Iterator[None]:
    """Run a block whose forward passes, backward passes and steps a listener is told about.

    Nothing that is computed changes: no operator runs on the network's behalf, no generator is drawn from,
    and all hooks are gone at the end, also after an exception.

    Args:
        model: the network; it keeps no trace.
        optimizers: those that train it.
        layers: classes of the modules whose runs are told one by one.
        listener: see :class:`Listener`.

    Example:
        >>> class Layers:
        ...     def layer_ends(self, call, output):
        ...         print(call.path, tuple(output.shape), call.within.path)
        ...     def __getattr__(self, name):
        ...         return lambda *_: None
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        >>> with listening(net, [], (nn.Conv2d,), Layers()):
        ...     _ = net(torch.zeros(2, 3, 5, 7))
        0 (2, 4, 3, 5) self
    """
    events = _Events(model, layers, listener)
    handles = [
        register_module_forward_pre_hook(events.before),
        register_module_forward_hook(events.after, always_call=True),
    ]
    for optimizer in optimizers:
        handles.append(optimizer.register_step_pre_hook(events.before_step))
        handles.append(optimizer.register_step_post_hook(events.after_step))
    try:
        yield
    finally:
        for handle in (*handles, *events.on_outputs):
            handle.remove()


class _Events:
    """Turns hooks into events."""

    def __init__(self, model: nn.Module, layers: tuple[type[nn.Module], ...], listener: Listener) -> None:
        self.on_outputs: list[Any] = []
        self._model, self._layers, self._listener = model, layers, listener
        self._open: list[tuple[nn.Module, LayerCall | None]] = []
        self._run: ForwardPass | None = None
        self._number = 0
        self._foreign: WeakSet[nn.Module] = WeakSet()
        self._scan()

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        path = self._paths.get(id(module))
        if path is None and self._open and isinstance(module, self._layers):
            path = self._found(module)
        if path is None or _is_ours():
            return
        backward = torch._C._current_graph_task_id()
        if module is self._model and backward == _NO_BACKWARD:
            self._open.clear()  # whatever an interrupt has left open
        if not self._open:
            self._run = self._begin(path, args, backward)
        assert self._run is not None
        call = None
        if isinstance(module, self._layers):
            call = LayerCall(path, module, args[0] if args else None, self._run, backward != _NO_BACKWARD)
            self._listener.layer_begins(call)
        self._open.append((module, call))

    def after(self, module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        if not self._open or self._open[-1][0] is not module:
            return
        _, call = self._open.pop()
        run = self._run
        assert run is not None
        if call is not None:
            self._listener.layer_ends(call, output)
        if not self._open:
            if run.has_gradients and not run.recomputed:
                self._await_gradients(run, output)
            run.inputs = ()
            self._listener.ends(run)

    def before_step(self, optimizer: Optimizer, *_: Any) -> None:
        self._listener.step_begins(optimizer)

    def after_step(self, optimizer: Optimizer, *_: Any) -> None:
        self._listener.step_ends(optimizer)

    def _begin(self, path: str, args: tuple[Any, ...], backward: int) -> ForwardPass:
        run = ForwardPass(
            number=self._number,
            path=path,
            training=self._model.training,
            has_gradients=torch.is_grad_enabled(),
            backward=backward,
            will_be_recomputed=not torch.is_grad_enabled() and _is_in_function(),
            input_trains=any(tensor.requires_grad for tensor in tensors_in(args)),
            inputs=args,
        )
        self._number += 1
        self._listener.begins(run)
        return run

    def _await_gradients(self, run: ForwardPass, output: Any) -> None:
        for tensor in tensors_in(output):
            if tensor.grad_fn is not None:
                run.can_be_reached = True
                handle = tensor.register_hook(partial(self._reached, run))  # type: ignore[no-untyped-call]
                self.on_outputs.append(handle)
        if len(self.on_outputs) > _MANY_HANDLES:
            self.on_outputs = [handle for handle in self.on_outputs if handle.hooks_dict_ref() is not None]

    def _reached(self, run: ForwardPass, gradient: Tensor) -> None:
        # Autograd enables gradients within a backward pass exactly if it is to make a graph of it.
        create_graph, backward = torch.is_grad_enabled(), torch._C._current_graph_task_id()
        with torch.no_grad():
            self._listener.reached(run, gradient.detach(), backward, create_graph)

    def _scan(self) -> None:
        """Take down the layers, and the modules that hold some: those whose calls are forward passes."""
        self._paths: dict[int, str] = {}
        # An id is that of one module only while the module lives.
        self._alive: list[nn.Module] = []
        for path, module in self._model.named_modules():
            if path == "" or any(isinstance(inner, self._layers) for inner in module.modules()):
                self._paths[id(module)] = path or ROOT
                self._alive.append(module)

    def _found(self, layer: nn.Module) -> str | None:
        """Return the path of a layer that is new to the network; None if it isn't in it."""
        if layer in self._foreign:
            return None
        self._scan()
        if id(layer) not in self._paths:
            self._foreign.add(layer)
        return self._paths.get(id(layer))


def _is_in_function() -> bool:
    """Whether we are in the forward of an autograd function, as a reentrant checkpoint's first run is."""
    frame = inspect.currentframe()
    while frame is not None:
        code = frame.f_code
        if code.co_name == "forward" and code.co_varnames[:1] == ("ctx",):
            return True
        frame = frame.f_back
    return False


def tensors_in(values: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested containers, and those which objects in them have as attributes.

    Example:
        >>> len(list(tensors_in({"logits": torch.zeros(1), "others": [torch.zeros(2), 3]})))
        2
    """
    for leaf in tree_leaves(values):
        if isinstance(leaf, Tensor):
            yield leaf
        elif isinstance(leaf, Mapping):
            yield from (value for value in leaf.values() if isinstance(value, Tensor))
        elif hasattr(leaf, "__dict__") and not isinstance(leaf, type | nn.Module):
            yield from (value for value in vars(leaf).values() if isinstance(value, Tensor))


_NOT_THE_USERS = (Probe, FakeTensorMode)


def _is_ours() -> bool:
    """Whether a probe, a recording or a compiler runs the network, and not the user's loop."""
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return True
    if not torch._C._len_torch_dispatch_stack():
        return False
    return any(isinstance(mode, _NOT_THE_USERS) for mode in _get_current_dispatch_mode_stack())
