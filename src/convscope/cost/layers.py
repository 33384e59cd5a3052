"""Which operator calls make one row of the table.

A leaf module's call is one row where one of its operators computes and the others only move data, copy or
view it (a padded convolution, a linear layer), or where it computes no products and returns a tensor of its
input's shape (a normalisation made of several operators). Everything else — functional code, a leaf module
with several layers in it — has one row per operator call.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from convscope.core.address import ROOT, Address
from convscope.cost.arithmetic.elementwise import does_no_work, moves_only
from convscope.cost.arithmetic.flops import factors, has_macs
from convscope.cost.arithmetic.gradients import ParameterFlow
from convscope.cost.names import of_module, readable
from convscope.tape import ModuleCall, OperatorCall, Tape


@dataclass
class Layer:
    """The operator calls of one row.

    Attributes:
        address: of the row.
        type_name: class of its module.
        op: readable operator name.
        phase: ``"forward"`` or ``"loss"``.
        output: value of its result, or None.
        calls: indices of its forward operator calls, in order.
        attached: indices of calls that do no work (views, allocations) between the layer before and this one.
    """

    address: Address
    type_name: str
    op: str
    phase: str
    output: int | None
    calls: list[int]
    attached: list[int] = field(default_factory=list)


class Layers:
    """The layers of a recorded forward pass, in order, and the layer of every operator call.

    Args:
        tape: the recording.
        flow: which values come from parameters.
    """

    def __init__(self, tape: Tape, flow: ParameterFlow) -> None:
        self._tape = tape
        self._flow = flow
        self.layers = tuple(self._attach(list(self._group())))
        self._of_call = {
            call: layer for layer in reversed(self.layers) for call in (*layer.attached, *layer.calls)
        }
        self._first_of_module = self._find_first_of_module()
        self._recomputed_before = self._count_recomputed()
        self._of_address = {str(tape.calls[call].address): layer for call, layer in self._of_call.items()}

    def of(self, call: OperatorCall) -> Layer | None:
        """Return the layer which an operator call of any phase belongs to, or None if nothing tells."""
        if call.phase == "recompute" and call.module is not None:
            return self._recomputed(call)
        if call.index in self._of_call:
            return self._of_call[call.index]
        if call.forward is not None:
            return self.of(self._tape.calls[call.forward])
        return None if call.module is None else self._first_of_module.get(call.module)

    def born(self, call: int) -> Layer | None:
        """Return the layer of the forward call with this index, or None."""
        return self._of_call.get(call)

    def _recomputed(self, call: OperatorCall) -> Layer | None:
        """The layer of a recomputed call's twin: the same operator, as many of its name into the module."""
        address = call.address
        twin = Address(address.path, address.call, address.op, self._recomputed_before[call.index] + 1)
        return self._of_address.get(str(twin))

    def _count_recomputed(self) -> dict[int, int]:
        """For every recomputed call, how many of its name ran before it in its module call."""
        counts: Counter[tuple[int | None, str]] = Counter()
        before = {}
        for call in self._tape.in_phase("recompute"):
            before[call.index] = counts[call.module, call.op]
            counts[call.module, call.op] += 1
        return before

    def _find_first_of_module(self) -> dict[int, Layer]:
        """By module call, the layer of the first of its operator calls that has one."""
        first: dict[int, Layer] = {}
        for call in self._tape.calls:
            if call.module is not None and call.index in self._of_call:
                first.setdefault(call.module, self._of_call[call.index])
        return first

    def _group(self) -> Iterator[Layer]:
        """One layer per row, each at its first operator call."""
        whole: dict[int, Layer | None] = {}
        for call in self._tape.in_phase("forward", "loss"):
            module = None if call.module is None else self._tape.modules[call.module]
            if module is not None and module.index not in whole:
                layer = whole[module.index] = self._whole_module(module)
                if layer is not None:
                    yield layer
            if (module is None or whole[module.index] is None) and self.significant(call):
                type_name = module.type_name if module else ""
                output = next((value for value in call.outputs if value is not None), None)
                yield Layer(call.address, type_name, self._name(call), call.phase, output, [call.index])

    def _whole_module(self, module: ModuleCall) -> Layer | None:
        """The row of a module's whole call, or None if its operators have their own rows."""
        if not module.is_leaf:
            return None
        calls = [call for call in self._tape.calls_of(module.index) if call.phase == "forward"]
        significant = [call for call in calls if self.significant(call)]
        computing = [call for call in significant if not moves_only(call.op)]
        if len(computing) == 1 or len(significant) <= 1:
            main = (computing or significant or calls)[0]
            op = of_module(module.type_name) if self._is_vague(main, module) else self._name(main)
        elif self._keeps_shape(module) and not any(has_macs(call.op) for call in computing):
            main, op = (computing or significant)[-1], of_module(module.type_name)
        else:
            return None
        outputs = module.outputs or tuple(value for value in main.outputs if value is not None)
        indices = [call.index for call in calls]
        return Layer(module.address, module.type_name, op, "forward", next(iter(outputs), None), indices)

    def _keeps_shape(self, module: ModuleCall) -> bool:
        shapes = [self._tape.values[value].shape for value in (*module.inputs[:1], *module.outputs)]
        return module.address.path != ROOT and len(shapes) == 2 and shapes[0] == shapes[1]

    def _is_vague(self, call: OperatorCall, module: ModuleCall) -> bool:
        """Whether the class says more than the operator: ``Flatten`` is a view, a global pool a mean."""
        return does_no_work(call.op) or (call.op == "mean" and "pool" in module.type_name.lower())

    def significant(self, call: OperatorCall) -> bool:
        """Whether a call computes or moves data; updates of buffers (running averages) don't count."""
        storages = (self._tape.storages[self._tape.values[v].storage] for v in call.outputs if v is not None)
        roles = {storage.role for storage in storages}
        return bool(roles - {"buffer"}) and not does_no_work(call.op)

    def _name(self, call: OperatorCall) -> str:
        if factors(call.op):
            return "linear" if self._flow.reads_parameter(call) else "matmul"
        if call.arguments.get("transposed") or call.op == "cudnn_convolution_transpose":
            return "transposed_convolution"
        return readable(call.op)

    def _attach(self, layers: list[Layer]) -> list[Layer]:
        """Give calls outside all layers to the next layer, the last ones to the last."""
        owned = {call for layer in layers for call in layer.calls}
        position = 0
        for call in self._tape.in_phase("forward", "loss"):
            while position < len(layers) - 1 and layers[position].calls[-1] < call.index:
                position += 1
            if layers and call.index not in owned:
                layers[position].attached.append(call.index)
        return layers
