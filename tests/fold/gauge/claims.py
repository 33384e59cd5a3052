"""What the rules claim of gauges, with numbers: f(a·x + b) = a'·f(x) + b', or not where it is violated.

Nothing of the solver is used: ties, demands and equations of a system are solved here, by dense linear
algebra, and broken here, one at a time.
"""

import copy
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import nn

from convscope.fold.gauge import rules
from convscope.fold.gauge.gauges import Gauges
from convscope.fold.gauge.labels import GROUND, grounded
from convscope.fold.gauge.reading import Reading
from convscope.fold.recorded.flow import Flow
from convscope.tape import record

assert rules.__all__
CLOSE = 1e-9
_ROUNDING = 1e-12


class Net(nn.Module):
    """A function of a network and its inputs, and some constants and layers that it may use."""

    def __init__(self, function, **held):
        super().__init__()
        self._function = function
        for name, item in held.items():
            if isinstance(item, torch.Tensor) and not isinstance(item, nn.Parameter):
                self.register_buffer(name, item)
            else:
                setattr(self, name, item)

    def forward(self, *inputs):
        return self._function(self, *inputs)


@dataclass
class Case:
    """A network with an operator in it, and the shapes of its inputs.

    Attributes:
        function: of the network and its inputs; what it returns is checked.
        shapes: of its inputs.
        held: what the network holds.
        close: largest difference that counts as none.
        slack: parts of reasons, of demands that ask for more than this case needs.
    """

    function: object
    shapes: tuple
    held: dict = field(default_factory=dict)
    close: float = CLOSE
    slack: tuple = ()

    @cached_property
    def net(self):
        """The network, the same one each time."""
        torch.manual_seed(3)
        return Net(self.function, **{name: make() for name, make in self.held.items()}).double().eval()

    @cached_property
    def tape(self):
        """Its recording."""
        return record(self.net, self.shapes, device="cpu")


def case(function, *shapes, close=CLOSE, slack=(), **held):
    return Case(function, shapes, held, close, slack)


@dataclass(frozen=True)
class Constraint:
    """One thing that is asked of gauges: ``kind``, the labels that it bears on, and an equation's numbers."""

    kind: str
    labels: tuple
    why: str = ""
    weights: tuple = ()
    constant: float = 0.0
    of: int = GROUND


class Recorded:
    """A case that has been recorded and read, its inputs labelled along some axes.

    Args:
        case: the case.
        layouts: for each input the axes along which its labels differ; None for a value that stays as it is.
    """

    def __init__(self, case, layouts):
        self.case, self.net, self.tape = case, case.net, case.tape
        self.reading = Reading(Flow(self.tape, self.net))
        for value, shape, layout in zip(self.tape.inputs, case.shapes, layouts, strict=True):
            self.reading.set(value, self._labels(shape, layout))
        self.before = [self.reading.of(value) for value in self.tape.inputs]
        for call in self.tape.in_phase("forward"):
            self.reading.read(call)
        self.after = [self.reading.of(value) for value in self.tape.outputs]
        self.system = self.reading.system

    def _labels(self, shape, layout):
        if layout is None:
            return grounded(len(shape))
        axes = {axis % len(shape) for axis in layout}
        return self.reading.system.fresh([size if i in axes else 1 for i, size in enumerate(shape)])

    def constraints(self):
        """Everything that is asked, one by one."""
        for left, right in self.system.ties:
            yield from (Constraint("tie", pair) for pair in zip(left.tolist(), right.tolist(), strict=True))
        for demand in self.system.demands:
            if demand.kind in ("constant", "padded"):  # of what a gain of 0 left: nothing of a gauge
                continue
            each = (
                demand.labels.tolist()
            )  # an operator that nothing passes may drop some elements: all at once
            parts = [tuple(each)] if demand.kind == "fixed" else [(label,) for label in each]
            yield from (Constraint(demand.kind, part, demand.why) for part in parts)
        for relation in self.system.relations:
            for i, of in enumerate(relation.of.tolist()):
                labels, weights = (
                    tuple(relation.labels[:, i].tolist()),
                    tuple(relation.weights[:, i].tolist()),
                )
                yield Constraint("relation", labels, relation.why, weights, relation.constant[i].item(), of)

    def error(self, gauge, seed=5):
        """How far f(a·x + b) is from a'·f(x) + b', by the size of what is compared; NaN is infinite."""
        generator = torch.Generator().manual_seed(seed)
        inputs = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in self.case.shapes]
        changed = copy.deepcopy(self.net)
        for layer in self.reading.layers.values():
            edit = layer.edit(Gauges(*map(torch.from_numpy, gauge)))
            if edit is not None:
                edit(changed)
        moved = [_gauged(x, labels, gauge) for x, labels in zip(inputs, self.before, strict=True)]
        with torch.no_grad():
            expected, given = (_tuple(net(*x)) for net, x in ((self.net, inputs), (changed, moved)))
        assert len(expected) == len(given) == len(self.after)
        return max(
            _apart(_gauged(y, labels, gauge), z)
            for y, labels, z in zip(expected, self.after, given, strict=True)
        )


def _tuple(outputs):
    return [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)


def _gauged(x, labels, gauge):
    labels = torch.from_numpy(np.array(np.broadcast_to(labels, x.shape)))
    scales, shifts = (torch.from_numpy(numbers)[labels] for numbers in gauge)
    return (scales * x.double() + shifts).contiguous()


def _apart(expected, given):
    difference = (expected - given.double()).abs().max() / expected.abs().max().clamp_min(1.0)
    return difference.item() if difference.isfinite() else float("inf")


def draw(num_labels, constraints, rng, broken=None):
    """Return random scales and shifts that satisfy everything but ``broken``; None if it can't be broken."""
    kept = [each for each in constraints if each is not broken]
    classes, held = _classes(num_labels, kept), {"positive": set(), "nonzero": set(), "one": {GROUND}}
    for each in kept:
        if each.kind in ("positive", "nonzero"):
            held[each.kind].add(each.labels[0])
        if each.kind in ("fixed", "unit scale"):
            held["one"].update(each.labels)
    held = {kind: {classes[label] for label in labels} for kind, labels in held.items()}
    aim = classes[broken.labels[0]] if broken is not None and broken.kind in ("positive", "nonzero") else None
    if aim in held["one"] or (aim in held["positive"] and broken.kind == "positive"):
        return None
    of_class = {}
    for root in sorted(set(classes)):
        number = rng.uniform(0.4, 2.0) * (1 if root in held["positive"] else rng.choice([-1, 1]))
        if broken is None and root not in held["positive"] | held["nonzero"] and rng.random() < 0.15:
            number = 0.0
        of_class[root] = 1.0 if root in held["one"] else number
    if aim is not None:
        of_class[aim] = -0.7 if broken.kind == "positive" else 0.0
    scales = np.array([of_class[root] for root in classes])
    shifts = _shifts(num_labels, kept, scales, rng)
    return (
        None
        if shifts is None or (broken is not None and _holds(broken, scales, shifts))
        else (scales, shifts)
    )


def _classes(num_labels, constraints):
    """The smallest label that each one's scale is tied to."""
    roots = list(range(num_labels))
    changed = True
    while changed:
        changed = False
        for each in constraints:
            if each.kind == "tie":
                low = min(roots[label] for label in each.labels)
                for label in each.labels:
                    if roots[label] != low:
                        roots[label], changed = low, True
    return roots


def _shifts(num_labels, constraints, scales, rng):
    """Random shifts that satisfy all equations, by least squares; None if there are none for these scales."""
    rows, numbers = [np.eye(num_labels)[GROUND]], [0.0]
    for each in constraints:
        if each.kind in ("fixed", "no shift"):
            rows += list(np.eye(num_labels)[list(each.labels)])
            numbers += [0.0] * len(each.labels)
        elif each.kind == "relation":
            rows.append(np.zeros(num_labels))
            np.add.at(rows[-1], list(each.labels), each.weights)
            numbers.append(each.constant * (1 - scales[each.of]))
    matrix, wanted = np.stack(rows), np.array(numbers)
    start = rng.normal(size=num_labels)
    shifts = start + np.linalg.lstsq(matrix, wanted - matrix @ start, rcond=None)[0]
    shifts[np.abs(shifts) < _ROUNDING] = 0.0
    return shifts if np.allclose(matrix @ shifts, wanted, atol=1e-9) else None


def _holds(constraint, scales, shifts):
    a, b = scales[list(constraint.labels)], shifts[list(constraint.labels)]
    match constraint.kind:
        case "tie":
            return np.isclose(*a)
        case "fixed":
            return bool((np.isclose(a, 1) & np.isclose(b, 0)).any())
        case "unit scale":
            return bool(np.isclose(a, 1))
        case "no shift":
            return bool(np.isclose(b, 0))
        case "positive":
            return bool(a > 0)
        case "nonzero":
            return bool(a != 0)
    return np.isclose(np.dot(constraint.weights, b), constraint.constant * (1 - scales[constraint.of]))
