"""Questions about a recorded run that decide whether weights may change: who reads what, and who owns it.

Three uses are told apart, since each hides from the other two: uses of a value (the layer's output is read
elsewhere too), calls of a module and uses of a parameter (a weight is read by another layer too).
"""

from collections.abc import Iterable, Iterator
from functools import cached_property

from torch import nn
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from convscope.core.address import ROOT
from convscope.fold.recorded.regions import Region
from convscope.fold.recorded.slots import Slot
from convscope.tape import ModuleCall, OperatorCall, Tape

_FORWARD_HOOKS = ("_forward_hooks", "_backward_hooks", "_backward_pre_hooks")
_INPUT_HOOKS = ("_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
# Reads its arguments' sizes only, or makes memory that nothing reads.
_IDLE = {"empty", "empty_strided", "new_empty", "new_empty_strided"}


class Stays(Exception):  # noqa: N818 - no error: a verdict on its way to the ledger
    """A batch norm stays where it is; the message is the reason, for the ledger.

    Attributes:
        remedy: what would help; "" if nothing.
    """

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(reason)
        self.remedy = remedy


class Flow:
    """A tape of inference, and the network that it was recorded from.

    Attributes:
        tape: the recording.
        model: the network, in the modes that its user gave it.
    """

    def __init__(self, tape: Tape, model: nn.Module) -> None:
        self.tape = tape
        self.model = model

    def module_of(self, call: ModuleCall) -> nn.Module:
        """Return the module that a recorded module call called."""
        return self.model.get_submodule(path_of(call))

    def children_of(self, call: ModuleCall) -> tuple[ModuleCall, ...]:
        """Return the module calls that a module call made itself, in order."""
        return tuple(self._children.get(call.index, ()))

    def calls_of_module(self, path: str) -> tuple[ModuleCall, ...]:
        """Return all calls of the module at a path, ``""`` for the network itself."""
        return tuple(call for call in self._module_calls.get(path, ()))

    def operators_of(self, call: ModuleCall) -> tuple[OperatorCall, ...]:
        """Return the operator calls that a module call made itself, but those that compute nothing."""
        return tuple(operator for operator in self.tape.calls_of(call.index) if operator.op not in _IDLE)

    def slots_of(self, value: int) -> tuple[Slot, ...]:
        """Return all places of the parameters or buffers that a value lies in, altogether or in part."""
        return tuple(slot for slot, _ in self._around(value))

    def is_parameter(self, value: int) -> bool:
        """Whether what a value lies in are parameters, not buffers."""
        slots = self.slots_of(value)
        return bool(slots) and all(slot.attribute in slot.module_in(self.model)._parameters for slot in slots)

    def is_whole(self, value: int) -> bool:
        """Whether a value is a parameter or buffer as it is held: not a part, a view, or written to."""
        held, region = self.tape.values[value], self._region(value)
        is_given = held.producer is None and held.version == 0
        return is_given and any(region.is_same(whole) for _, whole in self._around(value))

    def is_transposed(self, value: int) -> bool:
        """Whether a value is the plain transpose of a whole matrix-shaped parameter."""
        held = self.tape.values[value]
        if len(held.shape) != 2 or held.version != 0:
            return False
        turned = self._region(value).transposed()
        return any(turned.is_same(whole) for _, whole in self._around(value))

    def is_output(self, value: int) -> bool:
        """Whether the network returns any part of the parameters or buffers that a value lies in."""
        around = self._around(value)
        storage = self.tape.values[value].storage
        returned = [out for out in self.tape.outputs if self.tape.values[out].storage == storage]
        return any(self._region(out).overlaps(whole) for out in returned for _, whole in around)

    def is_one_place(self, slots: tuple[Slot, ...]) -> bool:
        """Whether slots are one attribute of one module, registered under several names perhaps."""
        return len({(id(slot.module_in(self.model)), slot.attribute) for slot in slots}) == 1

    def is_one_parameter(self, slots: tuple[Slot, ...]) -> bool:
        """Whether slots hold one and the same object, and not several over one storage."""
        return len({id(slot.tensor_in(self.model)) for slot in slots}) == 1

    def readers_of_storage(self, value: int) -> tuple[OperatorCall, ...]:
        """Return the calls which compute with any part of a parameter or buffer; mere views don't count."""
        storage = self.tape.values[value].storage
        around = [whole for _, whole in self._around(value)]
        found = []
        for call in self._readers.get(storage, ()):
            read = [self._region(each) for each in call.inputs if self.tape.values[each].storage == storage]
            if any(region.overlaps(whole) for region in read for whole in around):
                found.append(call)
        return tuple(found)

    def seen(self) -> Iterator[tuple[int, str]]:
        """Yield the values that others than operators see, with who sees them: these may not change."""
        given = {*self.tape.inputs}
        for value in self.tape.outputs:
            yield value, f"{self._written_by(value)} is an output of the network"
        for held in self.tape.values:
            storage, what = self.tape.storages[held.storage], self._written_by(held.index)
            is_kept = storage.death is None and storage.birth >= 0
            if is_kept and held.index not in given and held.index not in self.tape.outputs:
                yield held.index, f"{what} is kept after the run, by a hook, an attribute or an output object"
        for call in self.tape.modules:
            module = self.module_of(call)
            for values, hooks in ((call.inputs, _INPUT_HOOKS), (call.outputs, _FORWARD_HOOKS)):
                if has_hooks(module, hooks):
                    for index in values:
                        yield index, f"a hook of {call.address} sees {self._written_by(index)}"

    def _written_by(self, value: int) -> str:
        maker = self.tape.producer(value)
        return f"the output of {maker.address}" if maker else "an input of the network"

    @cached_property
    def _children(self) -> dict[int, list[ModuleCall]]:
        children: dict[int, list[ModuleCall]] = {}
        for call in self.tape.modules:
            if call.parent is not None:
                children.setdefault(call.parent, []).append(call)
        return children

    @cached_property
    def _module_calls(self) -> dict[str, list[ModuleCall]]:
        calls: dict[str, list[ModuleCall]] = {}
        for call in self.tape.modules:
            calls.setdefault(path_of(call), []).append(call)
        return calls

    def _region(self, value: int) -> Region:
        held = self.tape.values[value]
        return Region(held.offset, held.shape, held.stride, held.dtype)

    def _around(self, value: int) -> list[tuple[Slot, Region]]:
        """The parameters and buffers that a value lies in, altogether or in part."""
        region = self._region(value)
        tensors = self._tensors.get(self.tape.values[value].storage, ())
        return [(slot, whole) for slot, whole in tensors if region.overlaps(whole)]

    @cached_property
    def _tensors(self) -> dict[int, list[tuple[Slot, Region]]]:
        tensors: dict[int, list[tuple[Slot, Region]]] = {}
        for info in (*self.tape.parameters, *self.tape.buffers):
            path, _, attribute = info.name.rpartition(".")
            slot = Slot(path, attribute)
            stride = tuple(slot.tensor_in(self.model).stride())
            region = Region(info.offset, info.shape, stride, info.dtype)
            tensors.setdefault(info.storage, []).append((slot, region))
        return tensors

    @cached_property
    def _readers(self) -> dict[int, list[OperatorCall]]:
        readers: dict[int, list[OperatorCall]] = {}
        for call in self.tape.calls:
            made = [self.tape.values[value] for value in call.outputs if value is not None]
            read = {self.tape.values[value].storage for value in call.inputs}
            for storage in read & self._tensors.keys():
                is_view = {value.storage for value in made} == {storage} and made[0].version == 0
                if not is_view:
                    readers.setdefault(storage, []).append(call)
        return readers


def path_of(call: ModuleCall) -> str:
    """Return the path of a module call's module, as ``get_submodule`` takes it."""
    return "" if call.address.path == ROOT else call.address.path


def has_hooks(module: nn.Module, kinds: Iterable[str] = (*_FORWARD_HOOKS, *_INPUT_HOOKS)) -> bool:
    """Whether a module has hooks that see its inputs, outputs or their gradients, not only its weights."""
    hooks = (hook for kind in kinds for hook in (getattr(module, kind, None) or {}).values())
    return any(not isinstance(hook, WeightNorm | SpectralNorm) for hook in hooks)


def addresses(calls: Iterable[OperatorCall], most: int = 3) -> str:
    """Return the addresses of calls as text, the first few of them."""
    names = [str(call.address) for call in calls]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
