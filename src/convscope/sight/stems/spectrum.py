"""How much of a map's energy lies beyond the Nyquist frequency of a stride.

A convolution with stride s is the same convolution with stride 1, of which every s-th value is kept. What
the dense map holds at frequencies above 1/(2s) cycles per pixel can't be told from lower ones afterwards: it
is folded into them (aliasing). The share of that energy, the mean left out, is the measure here.

Limits: the window's main lobe reaches 2/n cycles on either side in a map of n positions, so that shares of
maps with fewer than 4s positions say nothing (:func:`is_resolved`).

Legend: N images, O channels, H and W the dense map.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

Stride = tuple[int, int]
_ROUNDING = 64
_TIE = 1e-9
_POSITIONS_PER_STRIDE = 4


@dataclass(frozen=True)
class Power:
    """Energy by frequency, summed over images; of each pair of mirrored frequencies one stands for both.

    Attributes:
        values: (o, h, w // 2 + 1), float64 on the CPU.
        rows, columns: |f_y| and |f_x| in cycles per position.
        size: (h, w) of the maps.
    """

    values: Float[Tensor, "o h w2"]
    rows: Float[Tensor, " h"]
    columns: Float[Tensor, " w2"]
    size: tuple[int, int]

    def total(self) -> Float[Tensor, " o"]:
        """Return each channel's energy."""
        return self.values.sum((1, 2))

    def beyond(self, stride: Stride) -> Float[Tensor, " o"]:
        """Return each channel's energy with |f_y| > 1/(2 s_y) or |f_x| > 1/(2 s_x)."""
        vertical, horizontal = stride
        edges = 0.5 / vertical + _TIE, 0.5 / horizontal + _TIE
        outside = (self.rows[:, None] > edges[0]) | (self.columns > edges[1])
        return (self.values * outside).sum((1, 2))

    def blurred(self, stride: Stride) -> "Power":
        """Return the energy behind a binomial filter of 2s − 1 taps along each axis: [1 2 1] / 4 for s = 2.

        Its amplitude is cos(π f)^(2s − 2) along an axis.
        """
        rows, columns = (
            torch.cos(torch.pi * axis).pow(4 * (step - 1))
            for axis, step in zip((self.rows, self.columns), stride)
        )
        return Power(self.values * rows[:, None] * columns, self.rows, self.columns, self.size)


def power(dense_NOHW: Float[Tensor, "n o h w"]) -> Power:
    """Return the energy of maps by frequency: the channel's mean taken away, a Hann window, then |FFT|².

    A map that is constant but for rounding has none.
    """
    height, width = dense_NOHW.shape[2:]
    dense_NOHW = dense_NOHW.to(torch.promote_types(dense_NOHW.dtype, torch.float32))
    centred = dense_NOHW - dense_NOHW.mean((2, 3), keepdim=True)
    noise = dense_NOHW.abs().amax((2, 3), keepdim=True) * _ROUNDING * torch.finfo(dense_NOHW.dtype).eps
    centred = centred * (centred.abs().amax((2, 3), keepdim=True) > noise)
    window = torch.outer(*(_hann(size) for size in (height, width)))
    values = torch.fft.rfft2(centred * window.to(centred)).abs().double().square().sum(0).cpu()
    # The real transform leaves out the mirrored half: all columns but the first and the last even one
    # count twice.
    values[..., 1 : (width + 1) // 2] *= 2
    rows = torch.fft.fftfreq(height, dtype=torch.float64).abs()
    columns = torch.fft.rfftfreq(width, dtype=torch.float64)
    return Power(values, rows, columns, (height, width))


def energies(
    dense_NOHW: Float[Tensor, "n o h w"], strides: tuple[Stride, ...]
) -> tuple[Float[Tensor, " o"], Float[Tensor, "k o"]]:
    """Return each channel's energy without the mean, and the part beyond the Nyquist frequency per stride.

    Args:
        dense_NOHW: responses with stride 1.
        strides: (vertical, horizontal) each.

    Example:
        >>> x = torch.arange(64.0)
        >>> wave = torch.cos(2 * torch.pi * x * 20 / 64).expand(1, 1, 64, 64)
        >>> total, beyond = energies(wave, ((1, 1), (2, 2)))
        >>> [round(share, 4) for share in (beyond / total).flatten().tolist()]
        [0.0, 1.0]
    """
    found = power(dense_NOHW)
    return found.total(), torch.stack([found.beyond(stride) for stride in strides])


def is_resolved(size: tuple[int, int], stride: Stride) -> bool:
    """Return whether a dense map is large enough for its share beyond a stride's Nyquist frequency.

    The Hann window spreads a frequency over ±2/n; below the Nyquist frequency 1/(2s) there must be room for
    that: n ≥ 4s along every axis with a stride.

    Example:
        >>> is_resolved((8, 5), (2, 1)), is_resolved((7, 20), (2, 2))
        (True, False)
    """
    return all(length >= _POSITIONS_PER_STRIDE * step for length, step in zip(size, stride) if step > 1)


def _hann(size: int) -> Tensor:
    return torch.hann_window(size, periodic=False, dtype=torch.float64)
