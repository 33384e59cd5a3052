"""All micro cases by name, and each folded once for all of its tests."""

import functools
from dataclasses import dataclass

import pytest
from torch import nn

from cases import state_of
from convscope.fold import Folded, fold
from fold.micro import after, before, form, limits, pools, share, streams, through, writes

TABLE = (*after.CASES, *before.CASES, *through.CASES, *share.CASES, *form.CASES)
TRAPS = (
    *after.EQUAL_SIZES,
    *before.EQUAL_SIZES,
    *through.EQUAL_SIZES,
    *share.MORE,
    *writes.CASES,
    *pools.CASES,
    *streams.CASES,
    *limits.CASES,
)
CASES = {case.name: case for case in (*TABLE, *TRAPS)}

every_case = pytest.mark.parametrize("name", CASES)
every_row = pytest.mark.parametrize(  # traps of our own add little to what isn't about verdicts and numbers
    "name",
    [case.name for case in TABLE] + [pytest.param(case.name, marks=pytest.mark.slow) for case in TRAPS],
)


@dataclass
class Done:
    """A case folded once for all of its tests."""

    net: nn.Module
    folded: Folded
    untouched: bool


@functools.cache
def done(name, **options):
    case = CASES[name]
    net = case.network()
    kept = state_of(net)
    folded = fold(net, case.shape, **options)
    return Done(net, folded, state_of(net) == kept)
