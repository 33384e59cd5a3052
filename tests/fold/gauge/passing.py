"""Which gauges an operator lets through: by its rule, and by trying it on numbers."""

import numpy as np
import torch

from fold.gauge.claims import Recorded, draw

KINDS = ("scale", "negative", "shift")
"""``scale``: positive ones; ``negative``: those below 0 too; ``shift``: shifts under a scale of 1."""

SCALE, SHIFT = frozenset({"scale"}), frozenset({"shift"})
SCALES = frozenset({"scale", "negative"})
ALL = SCALES | SHIFT

_SAMPLES = 7


def admitted(case):
    """Return the kinds of gauges that the rule lets through, for all channels of all inputs."""
    read = Recorded(case, _layouts(case))
    constraints = list(read.constraints())
    given = np.unique(np.concatenate([labels.reshape(-1) for labels in read.before]))
    rng = np.random.default_rng(6)
    found = [draw(read.system.num_labels, constraints, rng) for _ in range(12)]
    scales = np.stack([gauge[0][given] for gauge in found if gauge is not None])
    shifts = np.stack([gauge[1][given] for gauge in found if gauge is not None])
    passing = {"scale": (scales != 1).any(0), "negative": (scales < 0).any(0), "shift": (shifts != 0).any(0)}
    return {kind for kind, each in passing.items() if each.all()}


def true(case):
    """Return the kinds of gauges for which f(a·x + b) is some a'·f(x) + b', element by element."""
    return {kind for kind in KINDS if _passes(case, kind)}


def _layouts(case):
    """Labels along channels for one input; one each for several, whose channels needn't be the same."""
    return [(1,)] if len(case.shapes) == 1 and len(case.shapes[0]) > 1 else [()] * len(case.shapes)


def _passes(case, kind):
    net, generator = case.net, torch.Generator().manual_seed(8)
    shared = torch.rand((), generator=generator).double() + 1.3
    gauges = [
        _gauge(shape, layout, kind, shared, generator)
        for shape, layout in zip(case.shapes, _layouts(case), strict=True)
    ]
    before, after = [], []
    for _ in range(_SAMPLES):
        inputs = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in case.shapes]
        with torch.no_grad():
            before.append(_flat(net(*inputs)))
            after.append(_flat(net(*(a * x + b for x, (a, b) in zip(inputs, gauges, strict=True)))))
    return _is_affine(torch.stack(before), torch.stack(after), case.close)


def _gauge(shape, layout, kind, shared, generator):
    sizes = [size if axis in layout else 1 for axis, size in enumerate(shape)]
    if kind == "shift":
        return 1.0, torch.randn(sizes, generator=generator, dtype=torch.float64)
    scale = torch.rand(sizes, generator=generator).double() + 0.5 if layout else shared
    return (-scale if kind == "negative" else scale), 0.0


def _flat(outputs):
    outputs = [outputs] if isinstance(outputs, torch.Tensor) else outputs
    return torch.cat([output.double().reshape(-1) for output in outputs])


def _is_affine(x, y, close):
    """Whether every column of y is an affine function of that of x."""
    u, v = x - x.mean(0), y - y.mean(0)
    size = (u * u).sum(0)
    slope = torch.where(size > 1e-18, (u * v).sum(0) / size.clamp_min(1e-18), 0.0)
    return bool(((v - slope * u).abs() < 10 * close * (1 + y.abs().max())).all())
