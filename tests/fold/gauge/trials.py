"""Runs of a case with its inputs labelled in every way: what its rule claims holds, and no less would do."""

import itertools

import numpy as np

from fold.gauge.claims import Recorded, draw

LAYOUTS = (None, (), (0,), (1,), (2,), (-1,), (1, 2), (0, 1), (0, 1, 2, 3, 4))
"""Axes along which labels differ; those that an input doesn't have are left out."""

_MOST_BROKEN = 6
_DIFFERS = 1e-7
_DRAWS = 8
_CHANNELS = {(), (1,)}


def layouts_of(case):
    """Every way to label a case's inputs; for several inputs, some of them in the same way and some not."""
    fitting = [_fitting(shape) for shape in case.shapes]
    if len(case.shapes) == 1:
        return [(layout,) for layout in fitting[0] if layout is not None]
    alike = list(zip(*fitting, strict=True))
    few = [[layout for layout in each if layout in (None, (), (1,), (-1,))] for each in fitting]
    pairs = [pair for pair in itertools.product(*few) if any(layout is not None for layout in pair)]
    return list(dict.fromkeys([*alike[1:], *pairs]))


def _fitting(shape):
    rank = len(shape)
    return [
        None if layout is None else tuple(axis for axis in layout if -rank <= axis < rank)
        for layout in LAYOUTS
    ]


def assert_claim(case):
    """For random gauges that the rule allows, the case computes f(a·x + b) = a'·f(x) + b'."""
    rng = np.random.default_rng(1)
    for layouts in layouts_of(case):
        read = Recorded(case, layouts)
        constraints = list(read.constraints())
        for _ in range(2):
            gauge = draw(read.system.num_labels, constraints, rng)
            if gauge is None:  # equations with constants, which don't agree but where scales are 1
                continue
            error = read.error(gauge)
            assert error < case.close, f"labels along {layouts}: {error:.1e}"


def assert_needed(case):
    """Without any one of its demands, a rule's claim would be wrong."""
    found = [
        (layouts, broken)
        for layouts, broken in _needless(case)
        if not any(part in broken.why for part in case.slack)
    ]
    assert not found, found[:3]


def _needless(case):
    """Yield what a rule asks for without need: broken, it makes no difference."""
    rng = np.random.default_rng(4)
    for layouts in layouts_of(case):
        if not _CHANNELS.issuperset(layouts):
            continue
        read = Recorded(case, layouts)
        constraints = list(read.constraints())
        places = rng.permutation(len(constraints))
        tried = 0
        for place in places:
            broken = constraints[place]
            gauge = draw(read.system.num_labels, constraints, rng, broken)
            if gauge is None:
                continue
            tried += 1
            if not _differs(read, gauge):
                yield layouts, broken
            if tried == _MOST_BROKEN:
                break


def _differs(read, gauge):
    try:
        return any(read.error(gauge, seed) > _DIFFERS for seed in range(_DRAWS))
    except AssertionError:  # a layer without room for a bias is asked for one
        return True
