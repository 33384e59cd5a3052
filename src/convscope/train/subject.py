"""The network that is trained and the images that it is trained on, from what was asked for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.utils.data import Dataset

from convscope.core.errors import ConvscopeError
from convscope.core.preserved import preserved_rng
from convscope.data import ImageData, load_data
from convscope.networks import Extras, Loaded, Preprocessing, Stack, load
from convscope.train.feeding.batches import ImageSets, SeededImages

Network = nn.Module | Loaded | str
"""A module, what :func:`convscope.load` returned, or a reference such as ``"zfnet"``."""

Images = ImageSets | str | Path | Dataset[Any] | tuple[Any, Any]
"""Image sets; a reference to them such as ``"photos"`` or a folder; or data sets of PyTorch, torchvision or
Hugging Face: one, or a pair for training and validation. See :func:`convscope.data.load_data`."""


@dataclass(frozen=True)
class Subject:
    """The network of a run.

    Attributes:
        model: the module.
        name: its reference, or its class's name.
        extras: what is stored beside its weights: how its images were prepared, its classes, and, if it
            was given by reference, how to build it.
    """

    model: nn.Module
    name: str
    extras: Extras


def image_sets(data: Images, network: Network, crop: int | None = None) -> ImageSets:
    """Return the images that are meant, at the network's input size, or larger if windows are cut of them.

    Args:
        data: image sets are returned as they are; anything else is given to
            :func:`convscope.data.load_data`.
        network: says the size that referenced images are fitted to.
        crop: side of the windows that the network is to see, in pixels; images are then
            :func:`picture_side` of it.

    Raises:
        ConvscopeError: there is no such data, or the network doesn't say its size.
    """
    if hasattr(data, "train") and hasattr(data, "validation"):
        return cast(ImageSets, data)
    shape = _input_shape(network)
    if shape is not None and crop is not None:
        return load_data(data, size=picture_side(crop), channels=shape[0])
    if shape is None:
        given = repr(str(data)) if isinstance(data, str | Path) else f"of a {type(data).__name__}"
        raise ConvscopeError(
            f"data {given} for a {type(network).__name__} that doesn't say its input size",
            "images of a known size",
            "load them with convscope.data.load_data(data, size=..., channels=...), or give what "
            "convscope.load returned",
        )
    return load_data(data, size=shape[1:], channels=shape[0])


def picture_side(crop: int) -> int:
    """Return the side of images that windows of ``crop`` pixels are cut of, in pixels.

    It is ``crop / 0.875`` to the nearest multiple of 8, and at least an eighth more than ``crop``; so the
    papers' 256 for 224 and for 227.

    Example:
        >>> [picture_side(crop) for crop in (224, 227, 64, 16)]
        [256, 256, 72, 18]
    """
    return max(8 * round(crop / 7), crop + max(1, crop // 8))


def subject_of(network: Network, data: ImageSets, seed: int, crop: int | None = None) -> Subject:
    """Return the network that is meant.

    A reference is built for the data's classes and image size, its initial weights drawn from ``seed``; the
    global generators are left alone.

    Args:
        network: see :data:`Network`.
        data: says the classes and the size of the images.
        seed: of initial weights.
        crop: side of the windows that the network sees, in pixels; None: whole images.

    Raises:
        ConvscopeError: no network has that reference.
    """
    preprocessing = _preprocessing(data, crop)
    classes = tuple(data.classes)
    if isinstance(network, Loaded):
        extras = Extras(preprocessing or network.preprocessing, classes, network.recipe)
        return Subject(network.model, network.reference, extras)
    if not isinstance(network, str):
        return Subject(network, type(network).__name__, Extras(preprocessing, classes))
    first = SeededImages(data.validation, "validation", len(classes), seed).__getitems__([0])
    if isinstance(first, ConvscopeError):
        raise first
    channels, *size = first[0].shape[1:]
    shape = (channels, *(size if crop is None else (crop, crop)))
    with preserved_rng():
        torch.manual_seed(seed)
        loaded = load(network, num_classes=len(classes), input_shape=shape)
    extras = Extras(preprocessing or loaded.preprocessing, classes, loaded.recipe)
    return Subject(loaded.model, network, extras)


def _input_shape(network: Network) -> tuple[int, int, int] | None:
    if isinstance(network, Stack):
        return network.plan.input_shape
    if isinstance(network, nn.Module):
        return None
    with preserved_rng():
        inputs = (load(network) if isinstance(network, str) else network).inputs
    if isinstance(inputs, tuple) and len(inputs) == 4 and all(isinstance(side, int) for side in inputs):
        return inputs[1], inputs[2], inputs[3]
    return None


def _preprocessing(data: ImageSets, crop: int | None) -> Preprocessing | None:
    """How our own image sets prepare pictures; others don't say, and training doesn't need it."""
    if not isinstance(data, ImageData):
        return None
    source = f"the training images of {data.name}"
    size = data.size if crop is None else (crop, crop)
    share = 1.0 if crop is None else min(1.0, crop / min(data.size))
    return Preprocessing(size, data.mean, data.std, crop_pct=share, source=source)
