"""Batches in shares for test_sync.py: the processes and the oracle make the same ones."""

import zlib
from dataclasses import dataclass, field

import torch

LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}


@dataclass(frozen=True)
class Share:
    """One process's part of a step: input, gradient of the output, and mask."""

    x: torch.Tensor
    dy: torch.Tensor
    mask: torch.Tensor | None


@dataclass(frozen=True)
class Case:
    """A batch over three processes; the first two alone are another batch.

    ``sizes``: (N, *space) of each process; ``last``: channels last in memory; ``views``: every other channel
    of a larger tensor, transposed; ``masks``: a mask on each process; ``frame``: bytes of a message's first
    part.
    """

    sizes: tuple
    channels: int = 3
    dtype: torch.dtype = torch.float32
    mean: float = 0.5
    last: bool = False
    views: bool = False
    masks: bool = False
    frame: int | None = None
    options: dict = field(default_factory=dict)


MAPS = ((5, 4, 3), (2, 4, 3), (3, 4, 3))
CASES = {
    "unequal": Case(MAPS),
    "equal": Case(((2, 3, 3),) * 3),
    "features": Case(((4,), (1,), (7,))),
    "sequences": Case(((4, 3), (1, 3), (3, 3))),
    "volumes": Case(((1, 2, 3, 4), (3, 2, 3, 4), (2, 2, 3, 4)), last=True),
    "six dimensions": Case(((1, 2, 3, 2, 2), (3, 2, 1, 2, 1), (2, 2, 3, 1, 1))),
    "maps of different sizes": Case(((5, 4, 3), (2, 7, 1), (3, 1, 2))),
    "the second has nothing": Case(((5, 4, 3), (0, 4, 3), (3, 4, 3))),
    "the first has nothing": Case(((0, 4, 3), (2, 4, 3), (3, 4, 3))),
    "maps without pixels": Case(((2, 0, 3), (2, 4, 3), (3, 4, 0))),
    "one value each": Case(((1, 1, 1),) * 3),
    "one value beside many": Case(((64, 8, 8), (1, 1, 1), (2, 1, 1))),
    "channels last": Case(MAPS, last=True),
    "channels last, nothing": Case(((5, 4, 3), (0, 4, 3), (3, 4, 3)), last=True),
    "views": Case(MAPS, views=True),
    "far from zero": Case(((16, 32, 32), (3, 32, 32), (9, 32, 32)), mean=1e4),
    "far from zero, channels last": Case(((16, 32, 32), (3, 32, 32), (9, 32, 32)), mean=1e4, last=True),
    "bfloat16": Case(MAPS, dtype=torch.bfloat16),
    "bfloat16, nothing": Case(((5, 4, 3), (0, 4, 3), (3, 4, 3)), dtype=torch.bfloat16),
    "float16": Case(MAPS, dtype=torch.float16, last=True),
    "float64": Case(MAPS, dtype=torch.float64),
    "masks": Case(MAPS, masks=True),
    "masks, bfloat16": Case(MAPS, masks=True, dtype=torch.bfloat16, last=True),
    "masks, nothing": Case(((5, 4, 3), (0, 4, 3), (3, 4, 3)), masks=True),
    "no affine": Case(MAPS, options={"affine": False}),
    "no averages": Case(MAPS, options={"track_running_stats": False}),
    "momentum None": Case(MAPS, options={"momentum": None}),
    "warm start": Case(MAPS, options={"warm_start": True}),
    "eps": Case(MAPS, options={"eps": 0.1, "momentum": 0.7}),
    "many channels": Case(((3, 2), (1, 2), (0, 2)), channels=1100),
    "messages in two parts": Case(MAPS, channels=7, frame=64, masks=True),
}
STEPS = 2


def shares(name, step):
    """Return the three shares of a step."""
    case = CASES[name]
    generator = torch.Generator().manual_seed(zlib.crc32(f"{name} {step}".encode()))
    return [_share(case, rank, generator) for rank in range(3)]


def _share(case, rank, generator):
    n, *space = case.sizes[rank]
    shape = (n, case.channels, *space)
    # Processes have different means, as in batches that were not shuffled.
    x, dy = (torch.randn(shape, generator=generator) for _ in range(2))
    x, dy = (x * (1 + rank) + case.mean * (1 + 0.01 * rank)).to(case.dtype), (dy + 0.3 * x).to(case.dtype)
    mask = None
    if case.masks:
        mask = torch.rand((n, *space), generator=generator) < 0.6
        if rank == 2:
            mask[:] = False  # a process with nothing but padding
        x = x.masked_fill(~mask.unsqueeze(1), torch.nan)
    if case.last:
        x = x.contiguous(memory_format=LAYOUTS[x.dim()])
    return Share(_as_view(x) if case.views else x, dy, mask)


def _as_view(x):
    wide = torch.full((x.shape[1] * 2, x.shape[0], *x.shape[2:]), 1e6, dtype=x.dtype)
    wide[::2] = x.transpose(0, 1)
    return wide[::2].transpose(0, 1)


def parameters(channels):
    """Return γ and β."""
    generator = torch.Generator().manual_seed(7)
    return tuple(torch.rand(channels, generator=generator) + offset for offset in (0.5, -0.5))
