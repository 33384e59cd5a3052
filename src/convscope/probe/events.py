"""A user's own loop, told as events: forward passes, layers within them, backward passes, optimizer steps.

Answers: what runs when, in which mode, and does a gradient come back? Made to cost next to nothing, so it
sees modules and not operators, and it is the user's loop that calls the network, not we.

The hooks are PyTorch's global ones for modules: the network itself carries none, so that copies, checkpoints
and comparisons of it within the loop are what they would be without us. The optimizer carries two; outputs,
and inputs that require gradients, carry one each for as long as their graph lives.

Limits: the modules of the network itself, not replicas that DataParallel makes of it; nothing within compiled
or traced code, within transforms of torch.func, nor within runs of a probe or a recording. Batched backward
passes, such as those of a Jacobian, are no events: no training is made of them.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.optim import Optimizer
from torch.utils.hooks import unserializable_hook

from convscope.core.address import ROOT
from convscope.probe.passes import NO_BACKWARD, ForwardPass, Guarded, Hearing, LayerCall, Listener
from convscope.probe.surroundings import (
    is_compiled,
    is_in_function,
    is_of_many,
    is_ours,
    is_transformed,
    num_running,
    tensors_in,
    trains_as_input,
)

_MANY_HANDLES = 256


def _nothing() -> None:
    return None


@contextmanager
def listening(
    model: nn.Module,
    optimizers: Sequence[Optimizer],
    layers: tuple[type[nn.Module], ...],
    listener: Listener,
    after_step: Callable[[], object] = _nothing,
) -> Iterator[Hearing]:
    """Run a block whose forward passes, backward passes and steps a listener is told about.

    Nothing that is computed changes: no operator runs on the network's behalf, no generator is drawn from,
    and all hooks are gone at the end, also after an exception. What a listener raises never gets into the
    user's loop: it is told nothing more then.

    Args:
        model: the network; it keeps no trace.
        optimizers: those that train it.
        layers: classes of the modules whose runs are told one by one.
        listener: see :class:`Listener`.
        after_step: called when the listener has been told of a step; what this raises is the user's.

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

    def then(*_: Any) -> None:
        after_step()

    handles = [
        register_module_forward_pre_hook(Guarded(events.before, events.hearing)),
        register_module_forward_hook(Guarded(events.after, events.hearing), always_call=True),
    ]
    for optimizer in optimizers:
        handles.append(optimizer.register_step_pre_hook(Guarded(events.before_step, events.hearing)))
        handles.append(optimizer.register_step_post_hook(Guarded(events.after_step, events.hearing)))
        handles.append(optimizer.register_step_post_hook(then))
    # It says that hooks fire twice on what torch.compile returns; ours pass over that.
    warnings.filterwarnings("ignore", ".*when there are global hooks on modules", UserWarning)
    told = warnings.filters[0]
    try:
        yield events.hearing
    finally:
        with suppress(ValueError):  # whoever has put back filters of before
            warnings.filters.remove(told)  # type: ignore[attr-defined]
        for handle in (*handles, *events.on_tensors):
            handle.remove()


class _Events:
    """Turns hooks into events."""

    def __init__(self, model: nn.Module, layers: tuple[type[nn.Module], ...], listener: Listener) -> None:
        self.hearing = Hearing()
        self.on_tensors: list[Any] = []
        self._on_gradient = Guarded(self._reached, self.hearing)
        self._on_input = Guarded(self._came_through, self.hearing)
        self._model, self._layers, self._listener = model, layers, listener
        self._can_run = type(model).forward is not nn.Module.forward  # a ModuleList can't: its parts do
        self._open: list[tuple[nn.Module, LayerCall | None]] = []
        self._run: ForwardPass | None = None
        self._unfinished: ForwardPass | None = None  # the last one, until a backward pass or a step
        self._number = 0
        self._foreign: WeakValueDictionary[int, nn.Module] = WeakValueDictionary()
        self._scan()

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if is_compiled(module):
            return
        path = self._paths.get(id(module))
        if path is None and self._open and isinstance(module, self._layers):
            path = self._found(module)
        if path is None or is_ours():
            return
        if is_transformed():
            self.hearing.transformed += module is self._model
            return
        backward = torch._C._current_graph_task_id()
        if self._open and self._is_left_open(module, path, backward):
            self._open.clear()
        if not self._open:
            self._run = self._begin(module, path, args, backward)
        assert self._run is not None
        call = None
        if isinstance(module, self._layers):
            call = LayerCall(path, module, args[0] if args else None, self._run, backward != NO_BACKWARD)
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
        if run.has_gradients and not run.recomputed and not (self._open and run.can_be_reached):
            # A loss may be made of a layer's output: of a later layer's too, it comes back by the first.
            self._await_gradients(run, output)
        if not self._open:
            run.inputs = ()
            self._unfinished = run
            self._listener.ends(run)

    def before_step(self, optimizer: Optimizer, *_: Any) -> None:
        self._unfinished = None
        self._listener.step_begins(optimizer)

    def after_step(self, optimizer: Optimizer, *_: Any) -> None:
        self._listener.step_ends(optimizer)

    def _begin(self, module: nn.Module, path: str, args: tuple[Any, ...], backward: int) -> ForwardPass:
        inputs = [
            tensor
            for tensor in tensors_in(args)
            if tensor.requires_grad
            if backward != NO_BACKWARD or trains_as_input(tensor, self._model)
        ]
        run = ForwardPass(
            number=self._number,
            parts=[path],
            training=(self._model if self._can_run else module).training,
            has_gradients=torch.is_grad_enabled(),
            backward=backward,
            will_be_recomputed=not torch.is_grad_enabled() and is_in_function(),
            input_trains=bool(inputs),
            inputs=args,
        )
        if self._unfinished is not None and self._unfinished.goes_on_with(run):
            run, self._unfinished.inputs = self._unfinished, args
            run.parts.append(path)
        else:
            self._number += 1
        if run.has_gradients and not run.recomputed:
            self._await(inputs, partial(self._on_input, run))
        self._listener.begins(run)
        return run

    def _is_left_open(self, module: nn.Module, path: str, backward: int) -> bool:
        """Whether the modules that seem to be running aren't any more: an interrupt has ended them."""
        if module is self._model and backward == NO_BACKWARD:
            return True
        outer = self._open[-1][0]
        within = self._paths.get(id(outer), ROOT)
        if within == ROOT or path.startswith(f"{within}."):
            return False
        return num_running(outer) <= (outer is module)  # this call is running itself

    def _await_gradients(self, run: ForwardPass, output: Any) -> None:
        made = [tensor for tensor in tensors_in(output) if tensor.grad_fn is not None]
        run.can_be_reached |= bool(made)
        self._await(made, partial(self._on_gradient, run))

    def _await(self, tensors: list[Tensor], hook: Callable[[Tensor], None]) -> None:
        for tensor in tensors:
            # Marked, so that saving a tensor doesn't warn that our hook isn't saved with it.
            marked = unserializable_hook(partial(hook))  # type: ignore[no-untyped-call]
            self.on_tensors.append(tensor.register_hook(marked))  # type: ignore[no-untyped-call]
        if len(self.on_tensors) > _MANY_HANDLES:
            self.on_tensors = [handle for handle in self.on_tensors if handle.hooks_dict_ref() is not None]

    def _reached(self, run: ForwardPass, gradient: Tensor) -> None:
        backward = torch._C._current_graph_task_id()
        if backward == run.reached_by or is_of_many(gradient) or is_transformed():
            return
        run.reached_by, self._unfinished = backward, None
        with torch.no_grad():
            self._listener.reached(run, gradient.detach(), backward)

    def _came_through(self, run: ForwardPass, gradient: Tensor) -> None:
        backward = torch._C._current_graph_task_id()
        if backward != run.reached_by or backward == run.differentiated_by:
            return  # it has come by another use of the input, or is known already
        # Autograd enables gradients within a backward pass exactly if it is to make a graph of it.
        if torch.is_grad_enabled() and not is_of_many(gradient) and not is_transformed():
            run.differentiated_by = backward
            with torch.no_grad():
                self._listener.differentiated(run)

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
        if self._foreign.get(id(layer)) is layer:  # by id: modules needn't be hashable
            return None
        self._scan()
        if id(layer) not in self._paths:
            self._foreign[id(layer)] = layer
        return self._paths.get(id(layer))
