"""The dispatch mode that writes a tape down while a step runs on simulated tensors."""

import dataclasses
import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from convscope.core.errors import ConvscopeError
from convscope.tape.attribution import Attribution, Frame, decompose, operator_name
from convscope.tape.calls import ModuleCall, OperatorCall, Ref, Role, Storage, Tape, TensorInfo, Value
from convscope.tape.substrate import Simulated


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records operator calls, values, storages and module calls. Enter it outside the fake tensors' mode.

    Attributes:
        listening: operators that run while it is False have their effect, but aren't recorded.
    """

    def __init__(self, model: nn.Module, simulated: Simulated) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.attribution = Attribution(model, self._enter_module, self._leave_module)
        self.listening = True
        self._calls: list[OperatorCall] = []
        self._modules: list[ModuleCall] = []
        self._values: list[Value] = []
        self._storages: list[Storage] = []
        self._kept: list[Any] = []
        self._saved: dict[int, list[int]] = {}
        self._assumptions: dict[str, None] = {}
        self._value_index: dict[tuple[Any, ...], int] = {}
        self._storage_index: dict[int, int] = {}
        self._writes: dict[int, tuple[int, int | None]] = {}
        self.parameters = self._register(simulated.parameters, "parameter")
        self.buffers = self._register(simulated.buffers, "buffer")
        given = [leaf for leaf in tree_leaves((simulated.args, simulated.kwargs)) if _is_tensor(leaf)]
        self.inputs = tuple(self._existing(tensor, "input", f"input{i}") for i, tensor in enumerate(given))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = operator_name(func)
        if name is None:
            return func(*args, **kwargs)
        parts = decompose(self, func, args, kwargs)
        if parts is not NotImplemented:
            return parts
        if name == "_local_scalar_dense":
            return self._assumed_scalar(args[0])
        if not self.listening:
            return self._unheard(func, args, kwargs)
        site = self.attribution.locate(name)
        arguments = _named_arguments(func, args, kwargs, self._reference)
        inputs = tuple(leaf.value for leaf in tree_leaves(list(arguments.values())) if isinstance(leaf, Ref))
        try:
            result = func(*args, **kwargs)
        except ConvscopeError:
            raise
        except Exception as error:
            raise _not_simulated(str(site.address), error) from error
        self._note_writes(func, args, kwargs, site.index)
        outputs = tuple(self._value(leaf, site.index) for leaf in _results(result))
        self._calls.append(
            OperatorCall(
                site.index, site.address, name, str(func), site.phase, site.module, arguments, inputs,
                outputs, site.forward,
            )
        )  # fmt: skip
        return result

    def pack(self, tensor: torch.Tensor) -> torch.Tensor:
        """Note a tensor that autograd keeps; a pack hook for ``saved_tensors_hooks``."""
        node = torch._C._autograd._get_sequence_nr() - 1
        if self.listening and _is_tensor(tensor):
            self._saved.setdefault(node, []).append(self._value(tensor, None) or 0)
        own_result = tensor.grad_fn is not None and tensor.grad_fn._sequence_nr() == node
        # A node that holds its own result would keep itself alive for ever.
        return tensor.detach() if own_result else tensor

    def mark(
        self, tensors: Iterable[tuple[str, torch.Tensor | None]], role: Role, *, standing: bool = False
    ) -> None:
        """Give the storages of some tensors a role; ``standing`` ones were there before the step."""
        for name, tensor in tensors:
            if tensor is None:
                continue
            index = self._storage(tensor, role, name)
            birth = -1 if standing else self._storages[index].birth
            self._storages[index] = dataclasses.replace(
                self._storages[index], role=role, name=name, birth=birth
            )

    def mark_activations(self) -> None:
        """Mark the storages which the forward pass leaves alive as activations."""
        for storage in self._storages:
            if storage.role == "temporary" and storage.death is None and storage.birth >= 0:
                self._storages[storage.index] = dataclasses.replace(storage, role="activation")

    def keep(self, owner: Any) -> None:
        """Hold on to what outlives the step, so that its storages aren't taken for freed ones."""
        self._kept.append(owner)

    def tape(self, outputs: Any, *, training: bool) -> Tape:
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
        return Tape(
            calls=calls,
            modules=tuple(self._modules),
            values=tuple(self._values),
            storages=tuple(self._storages),
            parameters=self.parameters,
            buffers=self.buffers,
            inputs=self.inputs,
            outputs=self._values_in(outputs),
            training=training,
            assumptions=tuple(self._assumptions),
        )

    def _unheard(self, func: Any, args: Any, kwargs: Any) -> Any:
        result = func(*args, **kwargs)
        for leaf in _results(result):
            if leaf is not None:
                self._storage(leaf)
        return result

    def _assumed_scalar(self, tensor: torch.Tensor) -> bool | int | float:
        """A stand-in for a number that only a real run knows; reported."""
        value: bool | int | float = (
            False if tensor.dtype is torch.bool else 1.0 if tensor.is_floating_point() else 1
        )
        where = self.attribution.running
        self._assumptions[f"{where} reads a number out of a tensor (.item()); {value!r} was assumed"] = None
        return value

    def _register(self, tensors: dict[str, torch.Tensor], role: Role) -> tuple[TensorInfo, ...]:
        return tuple(
            TensorInfo(
                name, tuple(tensor.shape), tensor.dtype, tensor.requires_grad,
                self._values[self._existing(tensor, role, name)].storage,
            )
            for name, tensor in tensors.items()
        )  # fmt: skip

    def _existing(self, tensor: torch.Tensor, role: Role, name: str) -> int:
        self._storage(tensor, role, name, birth=-1)
        value = self._value(tensor, None)
        assert value is not None
        return value

    def _reference(self, tensor: torch.Tensor) -> Ref:
        known = self._storage_index.get(tensor.untyped_storage()._cdata)
        if known is None:
            self._storage(tensor, "constant", birth=-1)
        return Ref(self._value(tensor, None) or 0)

    def _storage(
        self, tensor: torch.Tensor, role: Role = "temporary", name: str = "", birth: int | None = None
    ) -> int:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._storage_index:
            return self._storage_index[key]
        index = len(self._storages)
        self._storage_index[key] = index
        birth = len(self._calls) if birth is None else birth
        self._storages.append(Storage(index, storage.nbytes(), birth, None, role, name))
        weakref.finalize(storage, self._note_death, key, index).atexit = False
        return index

    def _note_death(self, key: int, index: int) -> None:
        if self._storage_index.get(key) == index:
            del self._storage_index[key]
        self._storages[index] = dataclasses.replace(self._storages[index], death=len(self._calls))

    def _value(self, tensor: torch.Tensor | None, call: int | None) -> int | None:
        """The value that a tensor holds now; a new one is the output of ``call``."""
        if tensor is None:
            return None
        storage = self._storage(tensor)
        version, writer = self._writes.get(storage, (0, None))
        shape, stride, offset = tuple(tensor.shape), tuple(tensor.stride()), int(tensor.storage_offset())
        key = (storage, version, offset, shape, stride, tensor.dtype)
        if key not in self._value_index:
            index = self._value_index[key] = len(self._values)
            producer = writer if call is None else call
            self._values.append(Value(index, storage, shape, stride, offset, tensor.dtype, version, producer))
        return self._value_index[key]

    def _note_writes(self, func: Any, args: Any, kwargs: Any, call: int) -> None:
        for position, argument in enumerate(func._schema.arguments):
            if argument.alias_info is None or not argument.alias_info.is_write:
                continue
            given = args[position] if position < len(args) else kwargs.get(argument.name)
            for tensor in tree_leaves(given):
                if _is_tensor(tensor):
                    storage = self._storage(tensor)
                    self._writes[storage] = (self._writes.get(storage, (0, None))[0] + 1, call)

    def _values_in(self, tree: Any) -> tuple[int, ...]:
        values = (self._value(leaf, None) for leaf in tree_leaves(tree) if _is_tensor(leaf))
        return tuple(value for value in values if value is not None)

    def _enter_module(self, frame: Frame, args: Any) -> None:
        self._modules.append(
            ModuleCall(
                frame.index, frame.address, type(frame.module).__name__,
                frame.parent.index if frame.parent else None, not any(frame.module.children()),
                frame.recompute, self._values_in(args), (),
            )
        )  # fmt: skip

    def _leave_module(self, frame: Frame, result: Any) -> None:
        self._modules[frame.index] = dataclasses.replace(
            self._modules[frame.index], outputs=self._values_in(result)
        )


def _is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor) and leaf.layout is torch.strided


def _results(result: Any) -> list[torch.Tensor | None]:
    leaves = result if isinstance(result, tuple | list) else [result]
    flat = [leaf for item in leaves for leaf in (item if isinstance(item, tuple | list) else [item])]
    return [
        leaf if _is_tensor(leaf) else None for leaf in flat if leaf is None or isinstance(leaf, torch.Tensor)
    ]


def _named_arguments(func: Any, args: Any, kwargs: Any, reference: Any) -> dict[str, Any]:
    """All arguments by schema name, defaults filled in, tensors replaced by references."""

    def refer(item: Any) -> Any:
        if isinstance(item, torch.Tensor):
            return reference(item) if item.layout is torch.strided else None
        if isinstance(item, list | tuple):
            return tuple(refer(element) for element in item)
        return item

    arguments = {}
    for position, argument in enumerate(func._schema.arguments):
        missing = position >= len(args)
        given = kwargs.get(argument.name, argument.default_value) if missing else args[position]
        arguments[argument.name] = refer(given)
    return arguments


def _not_simulated(address: str, error: Exception) -> ConvscopeError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return ConvscopeError(
        f"operator {address} doesn't run on the given inputs ({reason})",
        "inputs of the shape that the network takes, and operators that run without real data",
        "check the input shape and the module named",
    )
