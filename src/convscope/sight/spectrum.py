"""How much of a map's energy lies beyond the Nyquist frequency of a stride.

A convolution with stride s is the same convolution with stride 1, of which every s-th value is kept. What
the dense map holds at frequencies above 1/(2s) cycles per pixel can't be told from lower ones afterwards: it
is folded into them (aliasing). The share of that energy, the mean left out, is the measure here.

Legend: N images, O filters, H and W the dense map.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Stride = tuple[int, int]


@dataclass(frozen=True)
class Convolution:
    """What a convolution operator was given, bar its input.

    Attributes:
        weight: (o, c / groups, kh, kw).
        stride, padding, dilation: (vertical, horizontal).
        groups: number of groups.
    """

    weight: Float[Tensor, "o c kh kw"]
    stride: Stride
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    def dense(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n o h2 w2"]:
        """Return the responses with stride 1 and without bias."""
        return F.conv2d(images, self.weight, None, 1, self.padding, self.dilation, self.groups)


def energies(
    dense_NOHW: Float[Tensor, "n o h w"], strides: tuple[Stride, ...]
) -> tuple[Float[Tensor, " o"], Float[Tensor, "k o"]]:
    """Return each filter's energy without the mean, and the part beyond the Nyquist frequency per stride.

    The channel mean is taken away, a Hann window applied, and |FFT|² summed over images and frequencies;
    beyond means |f_y| > 1/(2 s_y) or |f_x| > 1/(2 s_x), in cycles per pixel.

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
    height, width = dense_NOHW.shape[2:]
    dense_NOHW = dense_NOHW.to(torch.promote_types(dense_NOHW.dtype, torch.float32))
    centred = dense_NOHW - dense_NOHW.mean((2, 3), keepdim=True)
    window = torch.outer(*(torch.hann_window(size, periodic=False) for size in (height, width)))
    power = torch.fft.rfft2(centred * window.to(centred)).abs().square().double().sum(0)
    rows, columns = torch.fft.fftfreq(height).abs()[:, None], torch.fft.rfftfreq(width)[None]
    # The real transform leaves out the mirrored half: all columns but the first and the last even one
    # count twice.
    twice = torch.full((power.shape[-1],), 2.0, dtype=power.dtype)
    twice[0] = 1
    if width % 2 == 0:
        twice[-1] = 1
    power = (power * twice.to(power.device)).cpu()
    beyond = [(rows > 0.5 / vertical) | (columns > 0.5 / horizontal) for vertical, horizontal in strides]
    return power.sum((1, 2)), torch.stack([(power * mask).sum((1, 2)) for mask in beyond])
