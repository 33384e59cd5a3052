"""What counts as an image, and the errors for what doesn't."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from convscope.core.errors import ConvscopeError


def pixels_of(item: Any, index: int, *dims: int) -> Tensor:
    """Return the first tensor of an item, which has one of the numbers of dimensions.

    Raises:
        ConvscopeError: there is none, or it isn't an image.
    """
    tensor = tensor_in(item, index)
    if tensor.dim() not in dims or not tensor.is_floating_point() or tensor.is_meta:
        raise not_images(tensor, index)
    return tensor


def tensor_in(item: Any, index: int) -> Tensor:
    """Return the first tensor of an item.

    Raises:
        ConvscopeError: there is none.
    """
    first = next((leaf for leaf in tree_leaves(item) if isinstance(leaf, Tensor)), None)
    if first is None:
        raise not_images(item, index)
    return first


def checked(images: Tensor) -> Tensor:
    """Return a tensor that is a batch of images.

    Raises:
        ConvscopeError: it isn't, or there are none.
    """
    if images.dim() != 4 or not images.is_floating_point() or images.is_meta:
        raise not_images(images, 0)
    if not len(images):
        raise no_images()
    return images


def stacked(images: Sequence[Tensor], indices: Sequence[int]) -> Tensor:
    """Return images as one batch.

    Raises:
        ConvscopeError: their shapes or types differ.
    """
    first = images[0]
    for image, index in zip(images, indices, strict=True):
        if image.shape != first.shape or image.dtype != first.dtype:
            raise ConvscopeError(
                f"image {index} of shape {tuple(image.shape)} and {image.dtype} beside one of "
                f"{tuple(first.shape)} and {first.dtype}",
                "images of one size and type",
                "resize or crop them to the network's input size",
            )
    return torch.stack(list(images))


def not_images(given: Any, index: int) -> ConvscopeError:
    """Return the error for something that isn't an image."""
    is_tensor = isinstance(given, Tensor)
    described = (
        f"{given.dtype} of shape {tuple(given.shape)} on {given.device}"
        if is_tensor
        else type(given).__name__
    )
    return ConvscopeError(
        f"image {index} is a {described}",
        "floating-point tensors (channels, height, width), normalised for the network",
        "convert them, and add a batch dimension to a tensor of images"
        if is_tensor
        else "convert them, or use ImageSource.of_pictures for pictures in files or a Hugging Face data set",
    )


def not_finite(image: str) -> ConvscopeError:
    """Return the error for an image that holds NaN or infinite values."""
    return ConvscopeError(
        f"{image} with NaN or infinite values", "finite pixels", "clean the data or leave the image out"
    )


def no_images() -> ConvscopeError:
    """Return the error for an empty source."""
    return ConvscopeError("no images", "at least one image", "check the folder or data set")
