"""What a tape consists of: values, storages, operator calls and module calls."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch

from convscope.core.address import Address
from convscope.tape.decisions import Question
from convscope.tape.device import Device

Phase = Literal["forward", "loss", "backward", "recompute", "optimizer"]
"""``forward``: in the model; ``loss``: after it, before backward; ``recompute``: a checkpointed block's
second forward, during backward; ``optimizer``: whatever follows backward outside the model, clipping
included."""

Role = Literal[
    "parameter", "buffer", "input", "gradient", "optimizer-state", "activation", "temporary", "constant"
]
"""``activation``: kept from forward for backward; ``gradient``: of a parameter; ``temporary``: others."""


@dataclass(frozen=True)
class Ref:
    """A tensor argument of an operator call: the index of its value."""

    value: int


@dataclass(frozen=True)
class Value:
    """What one tensor held at one time: a region of a storage between two writes.

    Two tensors over the same region, such as ``x`` and ``x.detach()``, are the same value; an in-place
    operator makes a new one.

    Attributes:
        index: position in ``Tape.values``.
        storage: index of the storage.
        shape, stride, offset: the region, in elements.
        dtype: element type.
        version: how often the storage had been written to by an operator call.
        producer: index of the operator call which wrote it, or None for parameters, buffers, inputs and
            constants. A value read through a view after a write to another view has the writing call as its
            producer, but isn't among that call's ``outputs``.
    """

    index: int
    storage: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    dtype: torch.dtype
    version: int
    producer: int | None

    @property
    def numel(self) -> int:
        """Number of elements."""
        product = 1
        for size in self.shape:
            product *= size
        return product

    @property
    def nbytes(self) -> int:
        """Elements times element size, in bytes (of this region, not of its storage)."""
        return self.numel * self.dtype.itemsize


@dataclass(frozen=True)
class Storage:
    """One block of memory.

    Attributes:
        index: position in ``Tape.storages``.
        nbytes: its size in bytes.
        birth: index of the operator call which made it; -1 if it was there before the step.
        death: number of operator calls that had run when it was freed; None if it outlives the step.
        role: see :data:`Role`.
        name: of a parameter or buffer (``"layer1.0.conv1.weight"``), of the parameter that a gradient or an
            optimizer state belongs to, or of an input; empty otherwise.
    """

    index: int
    nbytes: int
    birth: int
    death: int | None
    role: Role
    name: str = ""


@dataclass(frozen=True)
class OperatorCall:
    """One operator that ran.

    Attributes:
        index: position in ``Tape.calls``, the order of execution.
        address: ``PATH#CALL:OP.NUMBER``.
        op: the operator's name, the same on every device (``"convolution"``, ``"batch_norm"``, ``"addmm"``).
        overload: the ATen operator which ran, such as ``"aten.convolution.default"``.
        phase: see :data:`Phase`.
        module: index of the module call that it ran in (or, in backward, whose forward it differentiates);
            None outside the model.
        arguments: all arguments by schema name, defaults filled in; tensors as :class:`Ref`.
        inputs: values of its tensor arguments, in schema order.
        outputs: values of its results, None for results that weren't asked for.
        forward: index of the forward call that a backward call differentiates, or None.
        saved: values that autograd kept for the backward of this call.
    """

    index: int
    address: Address
    op: str
    overload: str
    phase: Phase
    module: int | None
    arguments: dict[str, Any]
    inputs: tuple[int, ...]
    outputs: tuple[int | None, ...]
    forward: int | None = None
    saved: tuple[int, ...] = ()

    @property
    def output(self) -> int:
        """The value of the first result."""
        first = self.outputs[0]
        assert first is not None
        return first

    def tensor(self, name: str) -> int | None:
        """Return the value of the tensor argument ``name``, or None if there is none."""
        argument = self.arguments.get(name)
        return argument.value if isinstance(argument, Ref) else None


@dataclass(frozen=True)
class ModuleCall:
    """One call of a module.

    Attributes:
        index: position in ``Tape.modules``.
        address: ``PATH#CALL``; the network itself is ``self#1``.
        type_name: the module's class name.
        parent: index of the module call which made it, or None.
        is_leaf: whether the module has no submodules.
        recompute: whether it ran again, in backward, for a checkpointed block.
        inputs, outputs: values of the tensors it was given and returned, in order, nested ones included.
    """

    index: int
    address: Address
    type_name: str
    parent: int | None
    is_leaf: bool
    recompute: bool
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class TensorInfo:
    """A parameter or buffer of the recorded network; names that are tied to one tensor share a storage.

    Others may share one too, at different offsets (in elements).
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    requires_grad: bool
    storage: int
    offset: int = 0

    @property
    def numel(self) -> int:
        """Number of elements."""
        return torch.Size(self.shape).numel()


@dataclass(frozen=True, repr=False)
class Tape:
    """One recorded step of a network: everything that the readings need to know.

    Attributes:
        calls: operator calls in order of execution.
        modules: module calls in order of their beginning.
        values, storages: see :class:`Value` and :class:`Storage`.
        parameters, buffers: by name; tied names are all there.
        inputs, outputs: values of the network's input and output tensors.
        training: whether a training step was recorded.
        device: whose operators were imitated.
        assumptions: what the simulation had to assume, one sentence each; empty if nothing.
        questions: what the network's code read out of tensors and how it was answered, in order; but for what
            follows from no data: numbers that the network holds, constants, optimizers' step counters.
    """

    calls: tuple[OperatorCall, ...]
    modules: tuple[ModuleCall, ...]
    values: tuple[Value, ...]
    storages: tuple[Storage, ...]
    parameters: tuple[TensorInfo, ...]
    buffers: tuple[TensorInfo, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    training: bool
    device: Device = "cuda"
    assumptions: tuple[str, ...] = field(default=())
    questions: tuple[Question, ...] = field(default=())

    def __repr__(self) -> str:
        kind = "training step" if self.training else "inference"
        return f"<Tape of one {kind}: {len(self.calls)} operator calls in {len(self.modules)} module calls>"

    def producer(self, value: int) -> OperatorCall | None:
        """Return the call which wrote a value, or None for parameters, buffers, inputs and constants."""
        index = self.values[value].producer
        return None if index is None else self.calls[index]

    def consumers(self, value: int) -> tuple[OperatorCall, ...]:
        """Return the calls which read a value, in order; views and shape changes are calls too."""
        return tuple(self.calls[index] for index in self._consumers.get(value, ()))

    def find(self, address: Address | str) -> OperatorCall | ModuleCall | None:
        """Return the operator or module call at an address, or None."""
        return self._by_address.get(str(address))

    def calls_of(self, module: int) -> tuple[OperatorCall, ...]:
        """Return the operator calls attributed to a module call itself, not to its submodules' calls."""
        return tuple(self.calls[index] for index in self._by_module.get(module, ()))

    def in_phase(self, *phases: Phase) -> tuple[OperatorCall, ...]:
        """Return the calls of some phases, in order."""
        return tuple(call for call in self.calls if call.phase in phases)

    def parameter_of(self, value: int) -> TensorInfo | None:
        """Return the parameter that a value is, or is a view of, or None."""
        return self._parameter_by_storage.get(self.values[value].storage)

    def buffer_of(self, value: int) -> TensorInfo | None:
        """Return the buffer that a value is, or is a view of, or None."""
        return self._buffer_by_storage.get(self.values[value].storage)

    @cached_property
    def _consumers(self) -> dict[int, list[int]]:
        consumers: dict[int, list[int]] = {}
        for call in self.calls:
            for value in dict.fromkeys(call.inputs):
                consumers.setdefault(value, []).append(call.index)
        return consumers

    @cached_property
    def _by_address(self) -> dict[str, OperatorCall | ModuleCall]:
        named: dict[str, OperatorCall | ModuleCall] = {}
        for call in self.calls:
            named.setdefault(str(call.address), call)
        for module in self.modules:
            if not module.recompute:
                named.setdefault(str(module.address), module)
        return named

    @cached_property
    def _by_module(self) -> dict[int, list[int]]:
        members: dict[int, list[int]] = {}
        for call in self.calls:
            if call.module is not None:
                members.setdefault(call.module, []).append(call.index)
        return members

    @cached_property
    def _parameter_by_storage(self) -> dict[int, TensorInfo]:
        return {info.storage: info for info in reversed(self.parameters)}

    @cached_property
    def _buffer_by_storage(self) -> dict[int, TensorInfo]:
        return {info.storage: info for info in reversed(self.buffers)}
