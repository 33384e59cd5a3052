"""How well the average of a run's weights does, with running statistics of its own.

Limits: only batch norms' are estimated anew; an instance norm with running statistics keeps those that it has
gathered for the weights.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from convscope.core.preserved import preserved
from convscope.core.seeds import derived_seed
from convscope.norm import RecalibrationPlan, recalibrate
from convscope.norm.recalibration.layers import norms_of
from convscope.train.config import TrainConfig
from convscope.train.feeding.batches import ImageSets, SeededImages, load_batches
from convscope.train.feeding.variation import CentreWindow
from convscope.train.learning.learner import Learner
from convscope.train.learning.precision import autocast, input_dtype
from convscope.train.measuring.evaluate import Evaluation, evaluate

if TYPE_CHECKING:
    from accelerate import Accelerator

MOST_IMAGES = 2000
"""Training images that running statistics are estimated on: 10³ to 10⁴ samples do (Wu & Johnson 2021)."""


def measured_average(
    learner: Learner,
    data: ImageSets,
    validation: SeededImages,
    accelerator: "Accelerator",
    keep: Callable[[], None],
) -> Evaluation:
    """Measure the averaged weights in the network's place; afterwards it is as it was, bit for bit.

    Args:
        learner: the network and its average.
        data: training images for the running statistics, seen as evaluation sees images.
        validation: images to measure on.
        accelerator: shares both among its processes.
        keep: is called when the network is the average, with its own statistics.
    """
    model, average, config = learner.model, learner.average, learner.config
    assert average is not None
    with preserved(model):
        average.write_to_model()
        if _has_statistics(model):
            images = TrainingImages(data, config, accelerator)
            recalibrate(model, images, plan=RecalibrationPlan(forward=_forward(config)))
        result = evaluate(model, validation, config, accelerator)
        keep()
    return result


class TrainingImages:
    """At most 2,000 training images without augmentation: evenly spaced in the set, the same at every call.

    They come in a fixed random order, since sets are often sorted by class.

    Args:
        data: the images.
        config: batch size, crop and seed.
        accelerator: each of its processes gets its share.
    """

    def __init__(self, data: ImageSets, config: TrainConfig, accelerator: "Accelerator") -> None:
        window = CentreWindow(config.crop) if config.crop is not None else None
        self._images = SeededImages(data.train, "train", len(data.classes), config.seed, augment=window)
        self._device, self._workers = accelerator.device, config.num_workers
        own = _chosen(len(data.train), config.seed)[accelerator.process_index :: accelerator.num_processes]
        size = max(2, config.micro_batch_size)
        self._batches = [own[start : start + size] for start in range(0, len(own), size)]

    def __iter__(self) -> Iterator[Tensor]:
        """Yield batches ``(n, C, H, W)`` on the device."""
        for pixels, _ in load_batches(self._images, self._batches, self._workers, self._device):
            yield pixels


def _chosen(num_images: int, seed: int) -> list[int]:
    count = min(num_images, MOST_IMAGES)
    generator = torch.Generator().manual_seed(derived_seed(seed, "statistics"))
    return [place * num_images // count for place in torch.randperm(count, generator=generator).tolist()]


def _has_statistics(model: nn.Module) -> bool:
    if not any(isinstance(module, _BatchNorm) for module in model.modules()):
        return False
    return any(norm.status is None for norm in norms_of(model))


def _forward(config: TrainConfig) -> Callable[[nn.Module, Tensor], object]:
    def forward(model: nn.Module, pixels: Tensor) -> object:
        with autocast(config, pixels.device):
            return model(pixels.to(input_dtype(model)))

    return forward
