"""Digits that a fold would cost: values that carry a shift much larger than they are themselves.

A value that others than the batch norm read is computed as x' = a (x + β). Where |β| is k times as large as x
spreads, log₂ k bits of x are lost in every addition. At most half of the digits of the dtype may go.
"""

import numpy as np
import torch

from convscope.fold.planning.changes import Changes
from convscope.fold.planning.survey import Norm


def objections(changes: Changes) -> dict[str, str]:
    """Return the addresses of batch norms whose fold would cost too many digits, with the reason."""
    found = {}
    for index in sorted(changes.solution.folded):
        norm = changes.survey.norms[index]
        loss, limit = _loss(changes, norm), _limit(changes, norm)
        if loss > limit:
            found[norm.unit.address] = (
                f"what it reads would carry a shift {loss:.1e} times as large as it spreads, for its other "
                f"readers to take out again, which costs more than half of the digits"
            )
    return found


def _loss(changes: Changes, norm: Norm) -> float:
    """The largest |shift| / spread of what a batch norm reads, if others read it too."""
    unit, tape = norm.unit, changes.survey.flow.tape
    others = [call for call in tape.consumers(unit.before) if call.index != unit.first.index]
    scale, shift = changes.gauges.of(norm.link.before)
    if not others or unit.spread is None or unit.spread.size != scale.numel():
        return 0.0
    size = (scale.abs() * torch.from_numpy(unit.spread)).clamp_min(torch.finfo(torch.float64).tiny)
    return float((shift.abs() / size).max())


def _limit(changes: Changes, norm: Norm) -> float:
    dtype = changes.survey.flow.tape.values[norm.unit.before].dtype
    return float(np.sqrt(1 / torch.finfo(dtype).eps))
