"""How far maps are from other maps moved by some positions, or by parts of one.

Moves by whole positions are cuts, and exact. Other parts of a position go through the Fourier transform: the
map times a Hann window is moved, and compared with the second map times the moved window, which is exact for
maps whose frequencies the stride can carry, and so shows aliasing and nothing else.

Legend: N images, U units, H and W the map.
"""

import torch
from jaxtyping import Float
from torch import Tensor

_ROUNDING = 1e-12


def moved_distance(
    still_NUHW: Float[Tensor, "n u h w"],
    moved_NUHW: Float[Tensor, "n u h w"],
    by: tuple[float, float],
    *,
    windowed: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return the squares ‖expected − moved‖² and ‖moved‖² per channel, the channel's mean taken away.

    A channel that is constant has a ‖moved‖² of NaN.

    Args:
        still_NUHW: maps of the image.
        moved_NUHW: maps of the image moved up and to the left.
        by: how many positions further down and right the moved maps should have been in the still ones.
        windowed: with a Hann window also for whole positions, which do without.

    Example:
        >>> maps = torch.rand(2, 3, 8, 9)
        >>> error, _ = moved_distance(maps[..., :-1, :-2], maps[..., 1:, 2:], (1.0, 2.0))
        >>> float(error.sum())
        0.0
    """
    still, moved = still_NUHW.double(), moved_NUHW.double()
    parts = []
    for dim, amount in zip((2, 3), by):
        whole = int(amount)
        length = still.shape[dim] - whole
        still, moved = still.narrow(dim, whole, length), moved.narrow(dim, 0, length)
        parts.append(amount - whole)
    mean = still.mean((2, 3), keepdim=True)
    still, moved = still - mean, moved - mean
    if any(parts) or windowed:
        for dim, part in zip((2, 3), parts):
            still = _fourier_moved(still * _window(still, dim, 0.0), dim, part)
            moved = moved * _window(moved, dim, part)
    energy = moved.square().sum((0, 2, 3))
    # Maps that are constant but for rounding have no direction to move in.
    raw = moved_NUHW.double().square().sum((0, 2, 3))
    energy = energy.masked_fill(energy <= _ROUNDING * raw, torch.nan)
    return (still - moved).square().sum((0, 2, 3)).cpu(), energy.cpu()


def _window(maps: Tensor, dim: int, by: float) -> Tensor:
    length = maps.shape[dim]
    place = (torch.arange(length, dtype=torch.float64, device=maps.device) + 0.5 + by) / length
    window = 0.5 - 0.5 * torch.cos(2 * torch.pi * place)
    return window[:, None] if dim == 2 else window


def _fourier_moved(maps: Tensor, dim: int, by: float) -> Tensor:
    """Maps moved by a part of a position: the value at x + by stands at x."""
    length = maps.shape[dim]
    frequencies = torch.fft.rfftfreq(length, dtype=torch.float64, device=maps.device)
    turn = torch.exp(2j * torch.pi * frequencies * by)
    if dim == 2:
        turn = turn[:, None]
    moved: Tensor = torch.fft.irfft(torch.fft.rfft(maps, dim=dim) * turn, length, dim=dim)
    return moved
