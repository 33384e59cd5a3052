"""A run that doesn't fit into memory is refused before its first step, with the settings that would fit."""

from math import ceil
from typing import TYPE_CHECKING

import torch

from convscope.core.errors import ConvscopeError
from convscope.core.units import format_bytes
from convscope.train.config import TrainConfig
from convscope.train.running.engine import summed
from convscope.train.telling.forecast import Forecast

if TYPE_CHECKING:
    from accelerate import Accelerator


def require_room(forecast: Forecast, config: TrainConfig, accelerator: "Accelerator") -> None:
    """Refuse a run that doesn't fit, in all its processes, unless its settings say not to.

    Raises:
        ConvscopeError: its peak is above what is available; it says the largest batch that fits.
    """
    refused = config.check_memory and forecast.fits == "no"
    anywhere = bool(summed(torch.tensor([float(refused)]), accelerator) > 0)
    if refused and forecast.peak_bytes is not None and forecast.available_bytes is not None:
        raise ConvscopeError(
            f"a step of {forecast.images_per_pass} images takes {format_bytes(forecast.peak_bytes)} "
            f"on {forecast.device}",
            f"at most {format_bytes(forecast.available_bytes)}, which are available",
            f"{_way_out(forecast, config, accelerator.num_processes)}; "
            "check_memory=False (--no-check-memory) trains all the same",
        )
    if anywhere:
        raise ConvscopeError(
            "another process of this run hasn't enough memory", "enough for each", "see its message"
        )


def _way_out(forecast: Forecast, config: TrainConfig, num_processes: int) -> str:
    """The settings under which the run fits, in words."""
    largest = forecast.largest_pass
    if largest is None:
        return "set a smaller batch_size, or a larger accumulation"
    if largest == 0:
        return "train a smaller network or smaller images, or on a device with more memory"
    share = ceil(config.batch_size / num_processes)
    passes = ceil(share / largest)
    return (
        f"set accumulation={passes} (the same steps, {ceil(share / passes)} images at a time) "
        f"or batch_size={largest * config.accumulation * num_processes}"
    )
