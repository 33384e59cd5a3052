"""Why a batch norm stays, in the words of the ledger, and what would make it foldable."""

from collections.abc import Sequence

import numpy as np

from convscope.fold.gauge.labels import GROUND, Labels
from convscope.fold.gauge.reading import Reading
from convscope.fold.gauge.scales import Scales
from convscope.fold.gauge.solve import Failure, Link
from convscope.fold.gauge.system import Demand
from convscope.fold.norms.units import Unit
from convscope.fold.recorded.flow import addresses

_IDLE = {"view", "new_empty", "empty_like"}


class Reasons:
    """The demands of a system, to be looked up by the labels that they bear on.

    Args:
        reading: a recorded run that has been read.
    """

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        system = reading.system
        scales = Scales(system.num_labels)
        if system.ties:
            left, right = (np.concatenate(side) for side in zip(*system.ties, strict=True))
            scales.tie(left, right)
        self.component, _ = scales.find(np.arange(system.num_labels))
        self._asked: dict[str, Labels] = {}
        for index, demand in reversed(list(enumerate(system.demands))):
            first = self._asked.setdefault(demand.kind, np.full(system.num_labels, -1, dtype=np.int64))
            first[self.component[demand.labels]] = index

    def text(self, unit: Unit, link: Link, failure: Failure) -> str:
        """Return why a batch norm stays."""
        where = failure.where
        if failure.kind == "sign":
            asked = self._first(("positive",), link.after[where], link.before[where])
            count = int((link.scale <= 0).sum())
            gammas = f"gamma isn't positive in {count} of {link.scale.size} channels"
            if count == 0:
                gammas = "other batch norms of the stream already give it the other sign"
            return f"{asked.why if asked else 'a sign is given'}, and {gammas}"
        if failure.kind == "zero":
            return "gamma is 0 in some channels, and what it reads is read by others too"
        kinds = ("fixed", "no shift") if failure.kind == "shift" else ("fixed", "unit scale")
        before = self._before(unit, kinds, link.before[where])
        after = self._why(kinds, link.after[where])
        what = "its shift" if failure.kind == "shift" else "its scale"
        if before and after and before != after:
            return f"{what} can't go back: {before}; nor on: {after}"
        side = before or after or "other batch norms that fold already determine it"
        return f"{what} can't go: {side}"

    def remedy(self, reason: str) -> str:
        """Return what would help against a reason that :meth:`text` has returned; "" if nothing would."""
        found = (remedy for why, remedy in self._reading.remedies.items() if why in reason)
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
