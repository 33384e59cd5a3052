"""Why a batch norm stays, in the words of the ledger, and what would make it foldable."""

from collections.abc import Sequence

import numpy as np

from convscope.fold.gauge.labels import GROUND, Labels
from convscope.fold.gauge.links import Failure, Link, Solution
from convscope.fold.gauge.scales import Scales
from convscope.fold.gauge.system import Demand
from convscope.fold.norms.units import Unit
from convscope.fold.planning.survey import Survey
from convscope.fold.recorded.flow import addresses

_IDLE = {"view", "new_empty", "empty_like"}
_REMEDIES = {
    ", float16 ends at": "fold it in float32 or bfloat16",
    "writes in place to what it would hand on": "write to a new tensor there: relu(x) for relu_(x)",
    "wasn't called on these inputs": "give inputs for which it runs, or take it out",
}
"""What would help against reasons that contain a phrase."""
_SCALE, _SHIFT = ("fixed", "unit scale"), ("fixed", "no shift")


class Reasons:
    """The demands of a system, to be looked up by the labels that they bear on.

    Args:
        survey: a recorded run that has been read.
        solution: which of its batch norms fold.
    """

    def __init__(self, survey: Survey, solution: Solution) -> None:
        self._reading, self._norms = survey.reading, survey.norms
        system = survey.reading.system
        scales = Scales(system.num_labels)
        if system.ties:
            left, right = (np.concatenate(side) for side in zip(*system.ties, strict=True))
            scales.tie(left, right)
        self.component, _ = scales.find(np.arange(system.num_labels))
        self._asked: dict[str, Labels] = {}
        for index, demand in reversed(list(enumerate(system.demands))):
            first = self._asked.setdefault(demand.kind, np.full(system.num_labels, -1, dtype=np.int64))
            first[self.component[demand.labels]] = index
        self._gave = np.full((3, system.num_labels), -1, dtype=np.int64)  # by sign: who reads it and folds
        for index in sorted(solution.folded | solution.partial, reverse=True):
            link = survey.norms[index].link
            self._gave[np.sign(link.scale).astype(np.int64), self.component[link.before]] = index

    def text(self, unit: Unit, link: Link, failure: Failure) -> str:
        """Return why a batch norm stays, on both of its sides if each has a reason."""
        other = self._norms[failure.index]
        if other.unit is not unit and not np.array_equal(other.link.before, link.before):
            stays = self.text(other.unit, other.link, failure)
            return f"its module is also called at {other.unit.address}, where it stays: {stays}"
        where, scale = failure.where, link.scale[failure.where]
        if failure.kind == "shift":
            back = self._before(unit, _SHIFT, link.before[where])
            return _both("its shift", back, self._why(_SHIFT, link.after[where]))
        if (scale == 0).all():
            return self._zeros(unit, link, where)
        if failure.kind in ("sign", "zero"):
            return self._sign(unit, link, where[scale != 0])
        back = self._before(unit, _SCALE, link.before[where])
        return _both("its scale", back, self._why(_SCALE, link.after[where]))

    def _sign(self, unit: Unit, link: Link, where: Labels) -> str:
        """Why a scale can't have a sign, or can't be other than 0."""
        other = self._unlike(link, where)
        positive = self._why(("positive",), link.before[where])
        back = other or positive or self._before(unit, _SCALE, link.before[where])
        onward = self._why(("positive", *_SCALE), link.after[where])
        own = (link.scale[where] < 0).any()
        gammas = (
            f"gamma isn't positive in {(link.scale <= 0).sum()}" if own else f"in {np.unique(where).size}"
        )
        return f"{_both('its sign', back, onward)} ({gammas} of {link.scale.size} channels)"

    def _zeros(self, unit: Unit, link: Link, where: Labels) -> str:
        """Why nothing makes up for gammas of 0."""
        back = self._before(unit, (*_SCALE, "positive", "nonzero"), link.before[where])
        back = back or self._reader(link.before[where])
        kinds = (*_SCALE, "constant", *(("no shift", "padded") if link.shift[where].any() else ()))
        onward = self._why(kinds, link.after[where]) or self._sum_of(link.after[where])
        gammas = f"gamma is 0 in {(link.scale == 0).sum()} of {link.scale.size} channels"
        gammas += ", where beta isn't" if link.shift[where].any() else ""
        return f"{_both('its zeros', back, onward)} ({gammas})"

    def _unlike(self, link: Link, where: Labels) -> str:
        """The batch norm which gave what another one reads another sign than that wants, and what it did."""
        signs = np.sign(link.scale[where]).astype(np.int64)
        other = self._folded(link.before[where], -signs)
        if other:
            return f"{other} gave what it reads the other sign"
        other = self._folded(link.before[where], 0 * signs)
        return other and f"{other} lets what it reads vanish"

    def _reader(self, labels: Labels) -> str:
        """A batch norm that folds, and needs what it reads."""
        other = self._folded(labels, 1) or self._folded(labels, -1)
        return other and f"{other} reads the same"

    def _folded(self, labels: Labels, signs: Labels | int) -> str:
        """The first batch norm that folds and reads labels with a scale of some sign; "" if there is none."""
        components = self.component[labels]
        found = self._gave[signs, components]
        found = found[(found >= 0) & (components != GROUND)]
        return self._norms[int(found.min())].unit.address if found.size else ""

    def _sum_of(self, labels: Labels) -> str:
        """The operator that makes something else of a constant."""
        for relation in self._reading.system.relations:
            if np.isin(labels, relation.labels).any():
                is_clause = " " in relation.why
                return relation.why if is_clause else f"{relation.why} makes another number of what was one"
        return ""

    def remedy(self, reason: str) -> str:
        """Return what would help against a reason that :meth:`text` has returned; "" if nothing would."""
        known = {**_REMEDIES, **self._reading.remedies}
        found = (remedy for why, remedy in known.items() if why in reason)
        return "; ".join(dict.fromkeys(found))

    def _before(self, unit: Unit, kinds: Sequence[str], labels: Labels) -> str:
        """Why what comes before a batch norm can't take it in."""
        reading = self._reading
        maker = reading.constants.maker(unit.before)
        if maker is None:
            return "its input is an input of the network or a constant"
        if (labels == GROUND).any():
            refused = reading.refused.get(maker.index)
            return refused or f"its input comes from {maker.address}, which has no weights to fold into"
        if any(length > 1 for axis, length in enumerate(reading.of(unit.before).shape) if axis != 1):
            return f"the channels of {maker.address} aren't those that it normalises"
        others = [call for call in reading.calls.get(maker.index, ()) if call is not maker]
        if others:
            return f"the layer of {maker.address} is also called at {addresses(others)}"
        others = [call for call in reading.flow.tape.consumers(unit.before) if call.index != unit.first.index]
        others = [call for call in others if call.index > maker.index and call.op not in _IDLE]
        if others:
            return f"the output of {maker.address} is also read by {addresses(others)}"
        return self._why(kinds, labels)

    def _why(self, kinds: Sequence[str], labels: Labels) -> str:
        demand = self._first(kinds, labels[labels != GROUND])
        return demand.why if demand else ""

    def _first(self, kinds: Sequence[str], *sides: Labels) -> Demand | None:
        for labels in sides:
            for kind in kinds:
                asked = self._asked.get(kind)
                found = (
                    np.unique(asked[self.component[labels]]) if asked is not None else np.empty(0, np.int64)
                )
                found = found[found >= 0]
                if found.size:
                    return self._reading.system.demands[int(found[0])]
        return None


def _both(what: str, back: str, onward: str) -> str:
    if back and onward and back != onward:
        return f"{what} can't go back: {back}; nor on: {onward}"
    return f"{what} can't go: {back or onward or 'other batch norms that fold already determine it'}"
