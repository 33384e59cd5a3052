"""Random variations of training images: mirrored and shifted."""

import torch
import torch.nn.functional as F
from torch import Tensor


def augmented(images_NCHW: Tensor, generator: torch.Generator, flip: bool = True) -> Tensor:
    """Return images mirrored with probability one half and shifted by up to an eighth of their sides.

    What a shift uncovers repeats the image's edge.

    Args:
        images_NCHW: any dtype that PyTorch can pad by repetition, ``(n, c, h, w)``, on the CPU.
        generator: where chance comes from; the same state gives the same variations.
        flip: whether to mirror; digits aren't the same when mirrored.

    Returns:
        A new tensor of the same shape.

    Source: Krizhevsky et al. 2012, section 4.1, who cut 224×224 from 256×256: shifts of up to a seventh.
    """
    n, _, height, width = images_NCHW.shape
    most = (height // 8, width // 8)
    padded = F.pad(images_NCHW, (most[1], most[1], most[0], most[0]), mode="replicate")
    rows = torch.randint(2 * most[0] + 1, (n,), generator=generator).tolist()
    columns = torch.randint(2 * most[1] + 1, (n,), generator=generator).tolist()
    mirrored = (torch.rand(n, generator=generator) < 0.5).tolist()
    cuts = [
        image[:, row : row + height, column : column + width]
        for image, row, column in zip(padded, rows, columns, strict=True)
    ]
    return torch.stack(
        [cut.flip(2) if flip and mirror else cut for cut, mirror in zip(cuts, mirrored, strict=True)]
    )
