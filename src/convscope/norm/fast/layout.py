"""Which memory layouts kernels take: planes one after the other, or rows of channels."""

from torch import Tensor


def is_by_planes(x: Tensor) -> bool:
    """Whether a batch (N, C, …) is contiguous: each channel of each sample lies in one piece."""
    return x.is_contiguous() and x.dim() > 2


def is_by_rows(x: Tensor) -> bool:
    """Whether the channels of each position lie side by side: (N, C), and channels_last.

    Example:
        >>> import torch
        >>> x = torch.zeros(2, 3, 4, 5)
        >>> is_by_rows(x), is_by_rows(x.to(memory_format=torch.channels_last)), is_by_rows(x[:, :, 0, 0])
        (False, True, False)
    """
    return not is_by_planes(x) and x.movedim(1, -1).is_contiguous()
