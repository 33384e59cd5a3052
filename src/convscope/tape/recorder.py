"""The dispatch mode that writes a tape down while a step runs on simulated tensors."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode

from convscope.core.errors import ConvscopeError
from convscope.tape.accumulation import summed_in_place
from convscope.tape.attribution import Attribution, Frame, decompose
from convscope.tape.calls import ModuleCall, OperatorCall, Role, Tape
from convscope.tape.decisions import ASKING, READS_NUMBER, Decisions, Number, Question, stand_in
from convscope.tape.device import Device
from convscope.tape.failures import operator_failed
from convscope.tape.forms import detached, key_of, recall, remember
from convscope.tape.held_numbers import HeldNumbers
from convscope.tape.kernel_results import as_kernels_do
from convscope.tape.operators import Operator, named_arguments, operator, results, written_tensors
from convscope.tape.own_tensors import OwnTensors
from convscope.tape.registry import Registry, tensors_in
from convscope.tape.step import plain
from convscope.tape.substrate import Simulated


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records operator calls, values, storages and module calls. Enter it outside the fake tensors' mode.

    Attributes:
        attribution: names the operator calls.
        listening: operators that run while it is False have their effect, but aren't recorded.
    """

    def __init__(
        self,
        model: nn.Module,
        simulated: Simulated,
        device: str = "cuda",
        decisions: Decisions | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.attribution = Attribution(model, self._enter_module, self._leave_module)
        self.listening = True
        self._real, self._mode = simulated.real, simulated.mode
        self._copied = simulated.copied
        self.own = OwnTensors(
            simulated.originals, simulated.twin_of, self._standing_copy, real=simulated.real
        )
        self._on_cuda = device == "cuda"
        self._calls: list[OperatorCall] = []
        self._modules: list[ModuleCall] = []
        self._kept: list[Any] = []
        self._saved: dict[int, list[int]] = {}
        self._decisions = decisions or Decisions()
        self._decisions.begin()
        self._registry = Registry()
        self.parameters = self._registry.register(simulated.parameters, "parameter")
        self.buffers = self._registry.register(simulated.buffers, "buffer")
        self._held = HeldNumbers(simulated, self._registry, (*self.parameters, *self.buffers))
        self.inputs = tuple(
            self._registry.standing(tensor, "input", f"input{number}")
            for number, tensor in enumerate(tensors_in((simulated.args, simulated.kwargs)))
        )

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if type(args[0] if args else None) is FakeTensor:
            if func is torch.ops.prim.device.default:
                return args[0].fake_device
            if func is torch.ops.aten.detach.default and args[0].constant is None:
                return detached(args[0], self._mode)
        known = operator(func)
        if known.name is None:
            return func(*args, **kwargs)
        parts = decompose(self, func, args, kwargs)
        if parts is not NotImplemented:
            return parts
        if known.name in ASKING:
            return self._answered(known, func, args, kwargs)
        if not self.listening:
            return self._unheard(func, args, kwargs)
        return self._recorded(known, func, args, kwargs)

    def _recorded(self, known: Operator, func: Any, args: Any, kwargs: Any) -> Any:
        assert known.name is not None
        registry = self._registry
        site = self.attribution.locate(known.name)
        arguments, inputs, tensors = named_arguments(known, args, kwargs, registry.read)
        key = None if self._real else key_of(known, arguments, registry.values, tensors)
        self._note_outside(tensors, written_tensors(known, args, kwargs), str(site.address))
        seen, result = recall(key, known, arguments, self._mode, tensors)
        if not seen and (self._real or not known.changes_values_only):
            try:
                result = func(*args, **kwargs)
            except ConvscopeError:
                raise
            except Exception as error:
                raise operator_failed(str(site.address), error) from error
            remember(key, result, tensors)
        if not self._real:
            result = as_kernels_do(func, args, result, on_cuda=self._on_cuda)
        for tensor in written_tensors(known, args, kwargs):
            registry.written(tensor, site.index)
        outputs = tuple(
            None if leaf is None else registry.value(leaf, site.index) for leaf in results(result)
        )
        self._calls.append(
            OperatorCall(
                site.index, site.address, known.name, known.overload, site.phase, site.module, arguments,
                inputs, outputs, site.forward,
            )
        )  # fmt: skip
        registry.num_calls += 1
        return result

    def pack(self, tensor: torch.Tensor) -> torch.Tensor:
        """Note a tensor that autograd keeps; a pack hook for ``saved_tensors_hooks``."""
        node = torch._C._autograd._get_sequence_nr() - 1
        if self.listening and tensor.layout is torch.strided:
            self._saved.setdefault(node, []).append(self._registry.read(tensor))
        own_result = tensor.grad_fn is not None and tensor.grad_fn._sequence_nr() == node
        # A node that holds its own result would keep itself alive for ever.
        return tensor.detach() if own_result else tensor

    def mark(
        self, tensors: Iterable[tuple[str, torch.Tensor | None]], role: Role, *, standing: bool = False
    ) -> None:
        """Give the storages of some tensors a role; ``standing`` ones were there before the step."""
        self._registry.mark(tensors, role, standing=standing)

    def mark_activations(self) -> None:
        """Mark the storages which the forward pass leaves alive as activations."""
        self._registry.mark_activations()

    def note_progress(self) -> None:
        """Tell the decisions how far the recording has come."""
        self._decisions.num_calls = len(self._calls)

    def keep(self, owner: Any) -> None:
        """Hold on to what outlives the step, so that its storages aren't taken for freed ones."""
        self._kept.append(owner)

    def tape(self, outputs: Any, *, training: bool, device: Device) -> Tape:
        """Return what has been recorded."""
        saved: dict[int, list[int]] = {}
        for sequence, values in self._saved.items():
            creator = self.attribution.creator_of(sequence)
            if creator is not None:
                saved.setdefault(creator, []).extend(values)
        calls = tuple(
            dataclasses.replace(call, saved=tuple(dict.fromkeys(saved[call.index])))
            if call.index in saved
            else call
            for call in self._calls
        )
        final = self._registry.values_in(plain(outputs))
        self._decisions.require_all_used()
        asked = tuple(self._decisions.asked)
        return Tape(
            calls=calls,
            modules=tuple(self._modules),
            values=tuple(self._registry.values),
            storages=summed_in_place(calls, self._registry.values, self._registry.storages),
            parameters=self.parameters,
            buffers=self.buffers,
            inputs=self.inputs,
            outputs=final,
            training=training,
            device=device,
            assumptions=tuple(dict.fromkeys(filter(None, (question.assumption for question in asked)))),
            questions=asked,
        )

    def _note_outside(self, tensors: list[torch.Tensor], written: list[torch.Tensor], address: str) -> None:
        """See to the tensors of a call that are neither the simulation's nor made in the step."""
        for tensor in tensors:
            if (self._real or tensor.requires_grad) and self._is_outside(tensor):
                self.own.met(tensor)
        for tensor in written:
            if self._is_outside(tensor):
                self.own.written(tensor, address)

    def _is_outside(self, tensor: torch.Tensor) -> bool:
        return self._registry.is_outside(tensor) and (self._real or not isinstance(tensor, FakeTensor))

    def _standing_copy(self, tensor: torch.Tensor) -> torch.Tensor:
        """A twin of what an optimizer made before the step keeps."""
        self.listening = False
        twin = self._copied(tensor)
        self._registry.mark([("", twin)], "optimizer-state", standing=True)
        self.listening = True
        return twin

    def _unheard(self, func: Any, args: Any, kwargs: Any) -> Any:
        result = func(*args, **kwargs)
        for tensor in results(result):
            if tensor is not None:
                self._registry.made(tensor)
        return result

    def _answered(self, known: Operator, func: Any, args: Any, kwargs: Any) -> Number:
        """What the network's code is told that reads a number or compares tensors."""
        reads = known.name == READS_NUMBER
        data: Number | None = func(*args, **kwargs) if self._real else None
        if not self.listening or (reads and self.attribution.reads_counters):
            return stand_in(args[0].dtype) if data is None else data
        answer = self._held.number(args[0]) if reads else None
        if answer is None:
            answer = self._asked(known, args, data)
        if not reads:
            self._recorded(known, lambda *_, **__: answer, args, kwargs)
        return answer

    def _asked(self, known: Operator, args: Any, data: Number | None) -> Number:
        """The answer to a question that depends on data, which is noted."""
        assert known.name is not None
        where, dtype = self.attribution.running, args[0].dtype if known.name == READS_NUMBER else torch.bool
        answer, source = self._decisions.answer(where, dtype, data)
        values = tuple(self._registry.read(tensor) for tensor in args if isinstance(tensor, torch.Tensor))
        self._decisions.asked.append(
            Question(where, known.name, dtype, answer, source, values, len(self._calls))
        )
        return answer

    def _enter_module(self, frame: Frame, args: Any) -> None:
        self._modules.append(
            ModuleCall(
                frame.index, frame.address, type(frame.module).__name__,
                frame.parent.index if frame.parent else None, not any(frame.module.children()),
                frame.recompute, self._registry.values_in(args), (),
            )
        )  # fmt: skip

    def _leave_module(self, frame: Frame, result: Any) -> None:
        self._modules[frame.index] = dataclasses.replace(
            self._modules[frame.index], outputs=self._registry.values_in(result)
        )
