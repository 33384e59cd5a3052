"""What is checked before anything is trained or written."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from convscope.core.errors import ConvscopeError
from convscope.core.modes import in_evaluation_mode
from convscope.core.preserved import preserved
from convscope.data.crops import centre_crop
from convscope.norm.recalibration.layers import unwrapped
from convscope.train.config import TrainConfig
from convscope.train.feeding.batches import ImageSets, SeededImages, load_batches
from convscope.train.keeping.checkpoint import state_of
from convscope.train.learning.optimizer import require_trainable
from convscope.train.learning.precision import autocast, input_dtype
from convscope.train.measuring.scores import scores_of, which_scores

if TYPE_CHECKING:
    from accelerate import Accelerator


_OF_COMMUNICATION = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer")
"""Words in errors of PyTorch's communication between processes, not of a network."""


def check_data(data: ImageSets) -> None:
    """Check that there are classes and images to measure on.

    Raises:
        ConvscopeError: fewer than two classes, or no validation images.
    """
    if len(data.classes) < 2:
        raise ConvscopeError(
            f"data {data.name!r} with {len(data.classes)} class(es)", "at least two", "add a folder per class"
        )
    for split in ("train", "validation"):
        images = getattr(data, split)
        if not hasattr(images, "__len__"):
            raise ConvscopeError(
                f"data {data.name!r} whose {split} is of type {type(images).__name__}",
                "images with a length, by number",
                "give a data set of (image, label)",
            )
    if len(data.validation) == 0:
        raise ConvscopeError(
            f"data {data.name!r} without validation images", "at least one", "set some images apart"
        )


def check_model(model: nn.Module, config: TrainConfig) -> None:
    """Check that every parameter exists, that some are trainable, and that the state can be stored.

    Raises:
        ConvscopeError: a parameter has no memory yet, or is too narrow for the loss scale of float16; none is
            trainable; the state holds something that isn't a tensor.
    """
    state_of(model)
    for name, parameter in model.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter) or parameter.is_meta:
            raise ConvscopeError(
                f"{type(model).__name__}: {name} has no values yet",
                "a network with initialised parameters",
                "run a lazy network once, or move a meta one to a device and initialise it",
            )
        if config.precision == "amp-fp16" and parameter.dtype in (torch.float16, torch.bfloat16):
            raise ConvscopeError(
                f"precision='amp-fp16' for {name} in {str(parameter.dtype).removeprefix('torch.')}",
                "weights in float32, of which autocast makes copies",
                "call model.float(), or take precision='fp32', which trains weights in the dtype they have",
            )
    require_trainable(model)


def check_forward(
    model: nn.Module, validation: SeededImages, config: TrainConfig, accelerator: "Accelerator"
) -> str:
    """Run the network on at most two validation images, in evaluation mode, without gradients.

    Returns:
        Which of its outputs is trained, in words; empty if it has one.

    Raises:
        ConvscopeError: the network doesn't take these images, has fewer scores than there are classes, or
            several outputs that may be the scores.
    """
    first = [list(range(min(2, len(validation))))]
    with in_evaluation_mode(model):
        for loaded, _ in load_batches(validation, first, 0, accelerator.device):
            # Ten-crop evaluation gets whole images, and cuts them itself.
            pixels = loaded if config.crop is None else centre_crop(loaded, config.crop)
            readable = readable_failure(model, pixels, config.crop)
            with torch.no_grad(), autocast(config, accelerator.device), readable:
                output = model(pixels.to(input_dtype(model)))
                scores = scores_of(output)
    if scores.shape[1] < validation.num_classes:
        raise ConvscopeError(
            f"{type(model).__name__} gives {scores.shape[1]} scores",
            f"at least {validation.num_classes}, one for each class",
            f"build it with num_classes={validation.num_classes}",
        )
    trained = _output_in_training(model, pixels, config, accelerator)
    return which_scores(output if trained is None else trained, validation.num_classes)


def _output_in_training(
    model: nn.Module, pixels: torch.Tensor, config: TrainConfig, accelerator: "Accelerator"
) -> Any:
    """What the network returns in training mode, where some have further outputs; None where it fails."""
    network = unwrapped(model)
    with preserved(network), torch.no_grad(), autocast(config, accelerator.device), suppress(Exception):
        # That it fails (of one image there is no batch to normalise by) is told where it is trained.
        return network.train()(pixels.to(input_dtype(network)))
    return None


def check_processes(model: nn.Module, config: TrainConfig, before: int, now: int) -> None:
    """Check that a run resumed with another number of processes still learns the same, up to rounding.

    Args:
        model: the network.
        config: the settings.
        before: processes of the run so far.
        now: processes that are to go on.

    Raises:
        ConvscopeError: it wouldn't, because something depends on each process's share of a batch.
    """
    if before == now:
        return
    for name, module in model.named_modules():
        reason = _depends_on_share(module, config)
        if reason is not None:
            raise ConvscopeError(
                f"a run of {before} process(es) resumed with {now}, although {name or 'it'} {reason}",
                f"{before} process(es)",
                "start as many as before, or choose another output folder",
            )


def _depends_on_share(module: nn.Module, config: TrainConfig) -> str | None:
    if isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm):
        return None if config.sync_batch_norm else "normalises by each process's share of a batch"
    if isinstance(module, _DropoutNd) and module.p > 0:
        return "draws differently in each process"
    return None


@contextmanager
def readable_failure(model: nn.Module, pixels: torch.Tensor, crop: int | None = None) -> Iterator[None]:
    """Turn a network's own failure on a batch into one readable line.

    Args:
        model: the network.
        pixels: the batch.
        crop: the setting that made the images as large as they are, if it did.

    Raises:
        ConvscopeError: PyTorch or the network raised an error in the block.
    """
    given = f"{type(model).__name__} on images of shape {tuple(pixels.shape)}"
    try:
        yield
    except torch.OutOfMemoryError as error:
        action = "take a smaller batch_size; convscope cost says how large it can be"
        raise ConvscopeError(f"{given} runs out of memory", "a step that fits", action) from error
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        reason = str(error).strip().split("\n")[0]
        if any(word in reason for word in _OF_COMMUNICATION):
            raise ConvscopeError(
                f"another process of the run is gone ({reason})",
                "all of them to the end",
                "see the message of the one that ended first, and resume",
            ) from error
        action = "check the size of the images and of the network's input"
        if crop is not None:
            action = f"check crop={crop}: the side of the windows that the network sees"
        raise ConvscopeError(
            f"{given} fails: {reason}", "a network that takes these images", action
        ) from error
