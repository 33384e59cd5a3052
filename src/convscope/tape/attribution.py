"""Which module call an operator belongs to, in a simulated run or a real one.

Forward operators belong to the innermost module call that is running. Backward operators run when no
module does; autograd numbers its nodes in the order of their creation, so the number of the node that is
running leads back to the forward operator which created it, and so to its module call. An operator that
runs inside backward while a module call is open is a checkpointed block's recomputation.

Limits: numbers are per thread, so a network that runs parts of itself in other threads isn't attributed;
on CUDA, backward runs in autograd's own threads, which see the same node objects.
"""

import sys
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode

from convscope.core.address import ROOT, Address
from convscope.tape.calls import Phase

# Names of one operation on different devices and in different modes.
_ONE_NAME = {
    "native_batch_norm": "batch_norm",
    "cudnn_batch_norm": "batch_norm",
    "miopen_batch_norm": "batch_norm",
    "_native_batch_norm_legit": "batch_norm",
    "_native_batch_norm_legit_no_training": "batch_norm",
    "_batch_norm_with_update": "batch_norm",
    "_batch_norm_no_update": "batch_norm",
    "native_batch_norm_backward": "batch_norm_backward",
    "cudnn_batch_norm_backward": "batch_norm_backward",
    "miopen_batch_norm_backward": "batch_norm_backward",
    "native_group_norm": "group_norm",
    "native_layer_norm": "layer_norm",
    "native_group_norm_backward": "group_norm_backward",
    "native_layer_norm_backward": "layer_norm_backward",
    "_scaled_dot_product_flash_attention": "attention",
    "_scaled_dot_product_flash_attention_for_cpu": "attention",
    "_scaled_dot_product_efficient_attention": "attention",
    "_scaled_dot_product_cudnn_attention": "attention",
}
_COUNTING_OPTIMIZERS = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop)
# Operators that compute nothing and name no new value.
_BOOKKEEPING = {"detach", "detach_", "lift_fresh", "alias", "device", "sym_size", "sym_stride", "sym_numel"}


def operator_name(func: Any) -> str | None:
    """Return the name of a dispatched operator, the same on every device; None for mere bookkeeping.

    Example:
        >>> operator_name(torch.ops.aten.native_batch_norm.default)
        'batch_norm'
    """
    namespace, _, name = func.name().partition("::")
    name = name.partition(".")[0]
    if name in _BOOKKEEPING or namespace in ("prim", "profiler"):
        return None
    return _ONE_NAME.get(name, name) if namespace == "aten" else f"{namespace}_{name}"


def decompose(mode: TorchDispatchMode, func: Any, args: Any, kwargs: Any) -> Any:
    """Return an operator's result through the operators that it consists of, or NotImplemented.

    In inference mode, composite operators such as ``aten.linear`` reach a dispatch mode whole, while
    elsewhere it sees their parts. Taking them apart gives one run the same operators in both.
    """
    if not torch.is_inference_mode_enabled():
        return NotImplemented
    with mode:
        return func.decompose(*args, **kwargs)


@dataclass
class Frame:
    """A module call that is running, or has ended; ``failed`` if an exception ended it."""

    index: int
    address: Address
    module: nn.Module
    parent: "Frame | None"
    recompute: bool
    failed: bool = False


@dataclass(frozen=True)
class Site:
    """Where an operator call stands in a run.

    Attributes:
        index: how many operator calls were located before it.
        address: its name.
        op: the operator's name.
        phase: see :data:`convscope.tape.calls.Phase`.
        module: index of its module call, or None outside the model.
        forward: ``index`` of the forward operator call that it differentiates, or None.
    """

    index: int
    address: Address
    op: str
    phase: Phase
    module: int | None
    forward: int | None


@dataclass(frozen=True)
class Run:
    """The operator calls of a run, and which of them made autograd's nodes from which number on."""

    sites: list[Site]
    sequences: list[int]
    first_at: list[int]


Listener = Callable[[Frame, Any], Any]


class Attribution:
    """Names the operator calls of one run of a model; a context manager around that run.

    Args:
        model: the network.
        on_enter: called with the frame and ``(args, kwargs)`` when a module call begins.
        on_leave: called with the frame and the result when it ends, with None if it failed; what it returns,
            if not None, takes the result's place.
    """

    def __init__(
        self, model: nn.Module, on_enter: Listener | None = None, on_leave: Listener | None = None
    ) -> None:
        self._paths = {id(module): path or ROOT for path, module in model.named_modules()}
        self._owners = {id(p): name.rpartition(".")[0] or ROOT for name, p in model.named_parameters()}
        self._on_enter, self._on_leave = on_enter, on_leave
        self._hooks = ExitStack()
        self.restart()

    def __enter__(self) -> "Attribution":
        self._thread = threading.get_ident()
        hooks = (
            register_module_forward_pre_hook(self._enter_module),
            register_module_forward_hook(self._leave_module, always_call=True),
            register_optimizer_step_pre_hook(lambda optimizer, *_: self._set_optimizer(optimizer)),
            register_optimizer_step_post_hook(lambda *_: self._set_optimizer(None)),
        )
        for hook in hooks:
            self._hooks.callback(hook.remove)
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.close()

    def restart(self) -> None:
        """Forget the run so far: numbers begin anew, as for the next batch of a loop."""
        self._frame: Frame | None = None
        self._num_frames = 0
        self._module_calls: dict[tuple[str, bool], int] = {}
        self._operator_calls: dict[tuple[str, str], int] = {}
        self._sites: list[Site] = []
        self._sequences: list[int] = []
        self._first_at: list[int] = []
        self._is_copied_view = False
        self._optimizer: torch.optim.Optimizer | None = None
        self._after_backward = self._in_backward = self._keeps_graph = False
        self._failed_in: str | None = None

    @property
    def run(self) -> Run:
        """What leads from the backward of the run so far to its forward operators."""
        return Run(self._sites, self._sequences, self._first_at)

    @contextmanager
    def back_in(self, run: Run) -> Iterator[None]:
        """Run a block that differentiates an earlier run, whose graph was kept, as often as one likes."""
        before, length, nodes = self.run, len(run.sites), len(run.sequences)
        self._sites, self._sequences, self._first_at = run.sites, run.sequences, run.first_at
        try:
            yield
        finally:
            del run.sites[length:], run.sequences[nodes:], run.first_at[nodes:]
            self._sites, self._sequences, self._first_at = before.sites, before.sequences, before.first_at

    def abandon(self) -> None:
        """Take the module calls that are running for ended: the run was broken off."""
        self._frame = None

    def restart_at(self, frame: Frame) -> None:
        """Forget the run so far, but for ``frame``, which has just begun and becomes the first call."""
        self.restart()
        frame.index, frame.address = 0, Address(frame.address.path)
        self._module_calls[frame.address.path, False] = 1
        self._frame, self._num_frames = frame, 1

    @property
    def running(self) -> str:
        """The address of the module call that is running, for error messages."""
        return str(self._frame.address) if self._frame else ROOT

    @property
    def reads_counters(self) -> bool:
        """Whether an optimizer is making its step that reads no other numbers than its step counters."""
        return type(self._optimizer) in _COUNTING_OPTIMIZERS

    @property
    def failed_in(self) -> str:
        """The address of the innermost module call that an exception left, for error messages."""
        return self._failed_in or ROOT

    def locate(self, op: str) -> Site:
        """Return the site of an operator that is being dispatched now, and count it."""
        node = torch._C._current_autograd_node()
        phase = self._phase(node)
        module, path, forward = self._owner(node, phase)
        prefix = str(path)
        number = self._operator_calls[prefix, op] = self._operator_calls.get((prefix, op), 0) + 1
        site = Site(len(self._sites), Address(path.path, path.call, op, number), op, phase, module, forward)
        if phase in ("forward", "loss", "recompute"):
            self._note_sequence(site.index, op)
        self._sites.append(site)
        return site

    def site(self, index: int) -> Site:
        """Return the site of the operator call with this index."""
        return self._sites[index]

    def creator_of(self, sequence: int) -> int | None:
        """Return the index of the operator call which created the autograd node with this number, or None."""
        position = bisect_right(self._sequences, sequence + 1) - 1
        return self._first_at[position] if position >= 0 else None

    def _note_sequence(self, index: int, op: str) -> None:
        # The node of an operator is created just before it is dispatched: its number is one less.
        sequence = torch._C._autograd._get_sequence_nr()
        if not self._sequences or sequence > self._sequences[-1]:
            self._sequences.append(sequence)
            self._first_at.append(index)
            self._is_copied_view = False
        elif self._is_copied_view and sequence == self._sequences[-1]:
            self._first_at[-1] = index  # it was no view
            self._is_copied_view = False
        elif self._first_at[-1] == index - 1 and self._is_kept_copy(index - 1, op):
            # Written into a view, its node is followed by one for the whole tensor, made after it has run.
            self._sequences[-1:] = [sequence - 1, sequence, sequence + 1]
            self._first_at[-1:] = [index, index - 1, index]
            self._is_copied_view = True

    def _is_kept_copy(self, index: int, op: str) -> bool:
        """Whether an operator is the copy that autograd keeps of what the next one, ``op``, overwrites.

        The in-place operator's node is made first, so that its number is one less than the copy's.
        """
        return op.endswith("_") and self._sites[index].op == "clone"

    def _phase(self, node: Any) -> Phase:
        if node is not None:
            if not self._in_backward:
                self._in_backward, self._keeps_graph = True, torch.is_grad_enabled()
            self._after_backward = True
            # Backward runs without gradients, unless its graph is asked for; checkpoints run with them.
            again = self._frame is not None or (torch.is_grad_enabled() and not self._keeps_graph)
            return "recompute" if again else "backward"
        self._in_backward = False
        if self._frame:
            return "forward"
        return "optimizer" if self._optimizer is not None or self._after_backward else "loss"

    def _owner(self, node: Any, phase: Phase) -> tuple[int | None, Address, int | None]:
        """The module call, its address and the forward call which an operator belongs to."""
        if phase == "backward" or (phase == "recompute" and self._frame is None):
            variable = getattr(node, "variable", None)
            if variable is not None:
                return None, Address(self._owners.get(id(variable), ROOT)), None
            forward = self.creator_of(node._sequence_nr())
            if forward is not None:
                site = self._sites[forward]
                return site.module, site.address.module, forward if phase == "backward" else None
        elif self._frame is not None:
            return self._frame.index, self._frame.address, None
        return None, Address(ROOT), None

    def _enter_module(self, module: nn.Module, args: Any) -> None:
        path = self._paths.get(id(module))
        if path is None:
            return
        recompute = torch._C._current_autograd_node() is not None
        self._after_backward = self._after_backward and recompute  # another forward pass begins
        call = self._module_calls[path, recompute] = self._module_calls.get((path, recompute), 0) + 1
        self._frame = Frame(self._num_frames, Address(path, call), module, self._frame, recompute)
        self._num_frames += 1
        if self._on_enter:
            self._on_enter(self._frame, args)

    def _leave_module(self, module: nn.Module, _: Any, result: Any) -> Any:
        frame = self._frame
        if frame is None or frame.module is not module:
            return None
        self._frame = frame.parent
        if result is None and sys.exc_info()[0] is not None:
            frame.failed = True
            self._failed_in = self._failed_in or str(frame.address)
        return self._on_leave(frame, result) if self._on_leave else None

    def _set_optimizer(self, running: torch.optim.Optimizer | None) -> None:
        if threading.get_ident() == self._thread:
            self._optimizer = running
