"""In which dtypes a network runs."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from convscope.train.config import TrainConfig

_AUTOCAST = {"amp-bf16": torch.bfloat16, "amp-fp16": torch.float16}


def autocast(config: TrainConfig, device: torch.device) -> AbstractContextManager[Any]:
    """Return the context in which the network runs: bfloat16 or float16 autocast, or none."""
    dtype = _AUTOCAST.get(config.precision)
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def input_dtype(model: nn.Module) -> torch.dtype:
    """Return the dtype that images are cast to: that of the model's first floating point parameter."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
