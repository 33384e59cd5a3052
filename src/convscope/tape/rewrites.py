"""What a GPU does differently from a CPU, rewritten while a step is recorded.

Dropout: on CUDA one fused operator keeps a boolean mask (1 byte per element); on CPU a floating noise
tensor is made and kept (4 bytes). The tape records the first.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode


def _dropout(
    input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> torch.Tensor:
    if not training or not 0 < p < 1 or inplace:
        return F.dropout(input, p, training, inplace)
    result: torch.Tensor = torch.native_dropout(input, p, True)[0]
    return result


def _raw_dropout(input: torch.Tensor, p: float, train: bool) -> torch.Tensor:
    return _dropout(input, p, train)


_REWRITES: dict[Callable[..., Any], Callable[..., Any]] = {F.dropout: _dropout, torch.dropout: _raw_dropout}


class DeviceRewrites(TorchFunctionMode):
    """Replaces calls whose CPU form differs from the GPU's."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _REWRITES.get(func, func)(*args, **(kwargs or {}))
