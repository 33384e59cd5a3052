"""Does a run fit? Its memory from a simulated step of the same network, batch, optimizer and precision.

The simulation is :func:`convscope.cost.cost`'s: nothing is allocated, and the network comes back as it was.

Limits: what Python, loading libraries and operators take inside themselves isn't counted; on GPUs, neither
is the temporary copy of weights that weight decay makes. A network in training mode is simulated with its
modules' modes. ``docs/memory.md`` says how far off it is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convscope.core.errors import ConvscopeError
from convscope.cost import cost
from convscope.cost.table import Cost
from convscope.tape import TrainingPlan
from convscope.tape.device import Device
from convscope.train.config import TrainConfig
from convscope.train.feeding.batches import SeededImages
from convscope.train.learning.optimizer import takes_fused
from convscope.train.measuring.scores import at_least_float32, scores_of
from convscope.train.running.averaged import MOST_IMAGES
from convscope.train.telling.forecast import Fits, Forecast
from convscope.train.telling.place import Place, num_bytes

_TIGHT = 0.9
# What common networks keep for the backward pass is 40 to 300 times their input, and a run holds at most nine
# values of each parameter. A run whose bounds stay this far below what there is needs no simulation.
_VALUES_PER_PIXEL, _VALUES_PER_PARAMETER, _NEGLIGIBLE = 1000, 10, 0.01


@dataclass(frozen=True)
class Workload:
    """What a run does, in numbers.

    Attributes:
        image_shape: (channels, height, width) of what the network sees.
        num_train: training images.
        num_validation: validation images.
        steps: optimizer steps of the whole run.
    """

    image_shape: tuple[int, ...]
    num_train: int
    num_validation: int
    steps: int


def forecast_run(model: nn.Module, work: Workload, config: TrainConfig, place: Place) -> Forecast:
    """Return what a run will take, without its times.

    Args:
        model: the network itself, on the place's device; it comes back as it was.
        work: what the run does.
        config: its settings.
        place: where.
    """
    batch = min(config.batch_size, work.num_train)
    images = max(1, ceil(ceil(batch / place.num_processes) / config.accumulation))
    held = _held(model, config, place)
    memory = _memory(model, images, work, config, place, held)
    looks = within = work.num_validation * (10 if config.evaluation == "ten-crop" else 1)
    if config.ema_decay is not None:  # the average is measured too, after its statistics were estimated
        looks = 2 * looks + min(work.num_train, MOST_IMAGES)
    return Forecast(
        place.device.type, images, memory.peak, memory.available, memory.fits, memory.not_forecast,
        memory.largest_pass, held.disk, work.steps, config.epochs,
        evaluation_steps=memory.forward_share * looks / batch,
        evaluate_every=config.evaluate_every,
        measurement_steps=memory.forward_share * within / batch,
    )  # fmt: skip


def image_shape(images: SeededImages, config: TrainConfig) -> tuple[int, ...]:
    """Return the shape (channels, height, width) in which the network sees images.

    Raises:
        ConvscopeError: the first image isn't as it should be.
    """
    first = images.__getitems__([0])
    if isinstance(first, ConvscopeError):
        raise first
    channels, height, width = first[0].shape[1:]
    return (channels, height, width) if config.crop is None else (channels, config.crop, config.crop)


def plan_of(config: TrainConfig, device: str, *, fused: bool) -> TrainingPlan:
    """Return the plan of a run's step, as :func:`convscope.cost.cost` takes it.

    Optimizers that aren't fused join tensors (``foreach``) on GPUs only. With accumulation, gradients stay in
    memory from one micro-batch to the next.

    Args:
        config: the run's settings.
        device: ``"cpu"`` or ``"cuda"``.
        fused: whether the optimizer is PyTorch's fused one.
    """

    def cross_entropy(outputs: Any) -> Tensor:
        scores = at_least_float32(scores_of(outputs))
        labels = torch.zeros(len(scores), dtype=torch.long, device=scores.device)
        return F.cross_entropy(scores, labels, label_smoothing=config.label_smoothing)

    return TrainingPlan(
        optimizer=config.optimizer,
        precision=config.precision,
        foreach="fused" if fused else device == "cuda",
        zero_grad_set_to_none=config.accumulation == 1,
        clip_grad_norm=config.clip_grad_norm,
        loss=cross_entropy,
    )


@dataclass(frozen=True)
class _Held:
    """Bytes that a process holds: ``standing`` between two steps, ``beside`` a step as simulated."""

    standing: int
    beside: int
    copies: int
    disk: int


@dataclass(frozen=True)
class _Memory:
    """The fields of a forecast that are about memory, and the forward pass's share in a step."""

    available: int | None
    peak: int | None = None
    fits: Fits = "unknown"
    not_forecast: str = ""
    largest_pass: int | None = None
    forward_share: float = 1 / 3  # backward costs about twice the forward pass


def _memory(
    model: nn.Module, images: int, work: Workload, config: TrainConfig, place: Place, held: _Held
) -> _Memory:
    available = place.available_bytes(model)
    if place.device.type not in ("cpu", "cuda"):
        return _Memory(available, not_forecast=f"only memory of cpu and cuda is, not of {place.device.type}")
    if _is_negligible(model, images, work, available):
        return _Memory(available, fits="yes", not_forecast="it is small beside the memory there is")
    try:
        found = _simulated(model, images, work, config, place)
        peak, highest = _peaks(found, held)
        fits = _fits(peak, highest, available)
        largest = None
        if fits == "no" and available is not None:
            peak_of = lambda n: _peaks(_simulated(model, n, work, config, place), held)[0]  # noqa: E731
            largest = _pass_that_fits(peak_of, images, peak, available)
    except ConvscopeError as error:
        return _Memory(available, not_forecast=f"a step can't be simulated ({error})")
    share = found.totals.forward_flops / max(1, found.totals.step_flops)
    return _Memory(available, peak, fits, largest_pass=largest, forward_share=share)


def _held(model: nn.Module, config: TrainConfig, place: Place) -> _Held:
    trainable = num_bytes(p for p in model.parameters() if p.requires_grad)
    state = num_bytes((*model.parameters(), *model.buffers()))
    states = trainable * plan_of(config, place.device.type, fused=False).state_values_per_parameter
    # The average is kept in float32 or wider.
    average = sum(p.numel() * max(4, p.itemsize) for p in model.parameters()) if config.ema_decay else 0
    buckets = trainable if place.num_processes > 1 else 0  # DistributedDataParallel's copy of the gradients
    checkpoint = state + states + average
    kept = sum(epoch <= config.epochs for epoch in config.keep_epochs)
    num_files = 2 + (config.ema_decay is not None) + kept
    return _Held(
        standing=state + trainable + states,
        beside=average + buckets,
        # A checkpoint's tensors are copied to the CPU first.
        copies=checkpoint if place.device.type == "cpu" else 0,
        disk=2 * checkpoint + num_files * state,
    )


def _is_negligible(model: nn.Module, images: int, work: Workload, available: int | None) -> bool:
    pixels = images * torch.Size(work.image_shape).numel() * 4
    bound = _VALUES_PER_PIXEL * pixels + _VALUES_PER_PARAMETER * num_bytes(model.parameters())
    return available is not None and bound < _NEGLIGIBLE * available


def _simulated(model: nn.Module, images: int, work: Workload, config: TrainConfig, place: Place) -> Cost:
    device: Device = "cuda" if place.device.type == "cuda" else "cpu"
    plan = plan_of(config, device, fused=takes_fused(model, config))
    return cost(model, (images, *work.image_shape), plan, device)


def _peaks(found: Cost, held: _Held) -> tuple[int, int]:
    """The peak, and the same with the largest workspaces of a GPU."""
    memory = found.forecast
    step = memory.allocated_peak_bytes if memory.reserved_peak_bytes is None else memory.reserved_peak_bytes
    highest = step if memory.reserved_range_bytes is None else memory.reserved_range_bytes[1]
    saving = held.standing + held.copies
    return max(step, saving) + held.beside, max(highest, saving) + held.beside


def _fits(peak: int, highest: int, available: int | None) -> Fits:
    if available is None:
        return "unknown"
    return "no" if peak > available else "tight" if highest > _TIGHT * available else "yes"


def _pass_that_fits(peak_of: Callable[[int], int], images: int, peak: int, available: int) -> int:
    """A number of images near the largest that fits; 0 if not even two do.

    The peak is all but a straight line in the images: the line through two of them says where to look, and a
    simulation whether it fits. :func:`convscope.cost.batch.largest.largest_batch` is exact, and takes ten
    times as long.
    """
    least = min(2, images)
    low = peak_of(least)
    if low > available or images == least:
        return 0
    slope = max(1, peak - low) / (images - least)
    guess = min(images - 1, least + int((_TIGHT * available - low) / slope))
    while guess > least and peak_of(guess) > available:
        guess = guess * 3 // 4
    return max(least, guess)
