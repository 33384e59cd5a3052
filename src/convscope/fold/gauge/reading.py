"""Reads a recorded run into a system: what every operator asks of the gauges of its inputs and outputs."""

from collections.abc import Callable

import numpy as np

from convscope.fold.gauge.labels import GROUND, Labels, grounded
from convscope.fold.gauge.system import System
from convscope.fold.layers.border import ZeroPad
from convscope.fold.layers.layer import Layer
from convscope.fold.options import DEFAULT, Options
from convscope.fold.recorded.constants import Constants
from convscope.fold.recorded.flow import Flow, Stays
from convscope.fold.recorded.slots import Slot
from convscope.tape import OperatorCall
from convscope.tape.operator_names import plain_name

_VIEWS = {"view", "slice", "select", "transpose", "permute", "t", "unsqueeze", "squeeze"}

# Their operators have rules where they pass anything; of other libraries' nothing is known.
_OPAQUE_WITHOUT_RULE = ("aten", "convscope")
_WRITE_ONE = "tell what it passes: docs/extending/fold-rule.md"


class Reading:
    """A recorded run while it is read, call by call.

    Attributes:
        flow: the recording and the network.
        system: what has been asked so far.
        constants: the values that don't depend on the network's inputs.
        stochastic: values whose last axis sums to 1 everywhere (a softmax).
        layers: the layers that take gauges, by where their weights are held.
        calls: for each call of a layer that takes gauges, by its index, all calls of that layer.
        refused: why calls leave everything as it is that usually don't, by their index.
        remedies: what would help against what is asked, by the reason why it is asked.
        lent: where the biases will be held that layers are given whose calls have none, by a call's index.
        biases: indices of the calls that add the biases of layers, and nothing else.
        pads: modules that pad with zeros and may pad with a shift instead.
        options: what the user chose.
    """

    def __init__(self, flow: Flow, options: Options = DEFAULT) -> None:
        self.flow = flow
        self.options = options
        self.system = System()
        self.constants = Constants(flow)
        self.stochastic: set[int] = set()
        self.layers: dict[Slot, Layer] = {}
        self.refused: dict[int, str] = {}
        self.remedies: dict[str, str] = {}
        self.lent: dict[int, Slot] = {}
        self.biases: set[int] = set()
        self.pads: list[ZeroPad] = []
        self.calls: dict[int, list[OperatorCall]] = {}
        self._labels: dict[int, Labels] = {}
        self._by_storage: dict[int, list[int]] = {}
        self._unwritten: set[int] = set()

    def shape(self, value: int) -> tuple[int, ...]:
        """Return a value's shape."""
        return self.flow.tape.values[value].shape

    def of(self, value: int) -> Labels:
        """Return the labels of a value, with as many axes as it has."""
        labels = self._labels.get(value)
        if labels is not None:
            return labels
        held = self.flow.tape.values[value]
        if held.version > 0 and self.constants.maker(value) is None:
            return self._written_elsewhere(value)
        return grounded(len(held.shape))

    def set(self, value: int | None, labels: Labels) -> None:
        """Give labels to a value that a call wrote."""
        if value is None or value in self._labels:
            return
        assert labels.ndim == len(self.shape(value)), (labels.shape, self.shape(value))
        self._labels[value] = labels
        self._by_storage.setdefault(self.flow.tape.values[value].storage, []).append(value)

    def set_unwritten(self, value: int) -> None:
        """Say that a value is memory which nothing has been written to yet."""
        self._unwritten.add(value)
        self.set(value, grounded(len(self.shape(value))))

    def fix(self, value: int, why: str) -> None:
        """Let a value stay as it is."""
        self.system.demand("fixed", self.of(value), why)

    def text(self, reason: Stays) -> str:
        """Return a reason as text, and remember what would help."""
        if reason.remedy:
            self.remedies[str(reason)] = reason.remedy
        return str(reason)

    def opaque(self, call: OperatorCall, why: str = "") -> None:
        """Let everything that a call reads and writes stay as it is."""
        if why:
            self.refused[call.index] = why
        for value in call.inputs:
            self.fix(value, why or f"{call.address} isn't linear per channel")
        for output in call.outputs:
            if output is not None:
                self.set(output, grounded(len(self.shape(output))))

    def read(self, call: OperatorCall) -> None:
        """Take in one call."""
        if call.op in _VIEWS and call.inputs[0] in self._unwritten:
            for output in call.outputs:
                if output is not None:
                    self.set_unwritten(output)
            return
        if all(self._is_plain(value) for value in call.inputs) and call.op not in ALWAYS:
            for output in call.outputs:
                if output is not None and output not in call.inputs:
                    self.set(output, grounded(len(self.shape(output))))
            return
        rule = RULES.get(call.op) or RULES.get(call.op.rstrip("_"))
        try:
            if rule is None and call.overload.partition(".")[0] not in _OPAQUE_WITHOUT_RULE:
                raise Stays(f"no rule for {call.op} at {call.address}", _WRITE_ONE)
            if rule is None:
                self.opaque(call)
            else:
                rule(self, call)
        except Stays as reason:
            self.opaque(call, self.text(reason))

    def _is_plain(self, value: int) -> bool:
        labels = self.of(value)
        special = value in self._unwritten or value in self.stochastic
        return labels.size == 1 and labels.item() == GROUND and not special

    def _written_elsewhere(self, value: int) -> Labels:
        """Labels of memory that was written to through a view of it."""
        tape = self.flow.tape
        held = tape.values[value]
        writer = tape.producer(value)
        before = [other for other in self._by_storage.get(held.storage, ()) if other != value]
        labels = None if writer is None else self._overlaid(value, writer.output, before)
        if labels is None:
            for other in self._by_storage.get(held.storage, ()):
                self.fix(
                    other, f"its memory is written to in part by {writer.address if writer else 'a view'}"
                )
            labels = grounded(len(held.shape))
        self.set(value, labels)
        return labels

    def _overlaid(self, whole: int, part: int, before: list[int]) -> Labels | None:
        """Labels of a tensor, of which a part along axes without labels was written, alike in the rest."""
        tape = self.flow.tape
        held, written = tape.values[whole], tape.values[part]
        labels = self._labels.get(part)
        if labels is None or held.stride != written.stride or len(held.shape) != len(written.shape):
            return None
        cut = [
            axis
            for axis, sizes in enumerate(zip(held.shape, written.shape, strict=True))
            if sizes[0] != sizes[1]
        ]
        if any(labels.shape[axis] > 1 for axis in cut):
            return None
        for other in before:
            if other in self._unwritten:
                continue
            known = self._labels[other]
            if known.ndim != labels.ndim or np.broadcast_shapes(known.shape, labels.shape) != labels.shape:
                return None
            if (np.broadcast_to(known, labels.shape) != labels).any():
                return None
        return labels


Rule = Callable[[Reading, OperatorCall], None]
"""Gives labels to what a call wrote, and asks what it needs; ``Stays`` leaves all as it is."""

RULES: dict[str, Rule] = {}
"""By the operator's name on the tape; an operator in place goes by the other one's rule."""

ALWAYS: set[str] = set()
"""Operators whose rule is wanted even where nothing that they read can change."""


def passes(*ops: str, always: bool = False) -> Callable[[Rule], Rule]:
    """Return a decorator which makes a function the rule of operators.

    Args:
        ops: as ``"mylib::smooth"`` or ``"mylib_smooth"``.
        always: whether the rule is wanted even where nothing that they read can change.

    Raises:
        ConvscopeError: a name can't be an operator's.
    """
    names = [plain_name(op) for op in ops]

    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, rule))
        if always:
            ALWAYS.update(names)
        return rule

    return register
