"""Which network and which images is a report about? Both are made here, to fit one another."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.core.preserved import preserved_rng
from convscope.data import ImageData, load_data
from convscope.networks import Loaded, Stack, load
from convscope.networks.own import BUILDERS
from convscope.report.whole.request import ReportConfig
from convscope.report.whole.result import Subject
from convscope.report.wording.formats import counted

DEMO_SIZE = 96
_PLAIN_SIZE = 224


@dataclass(frozen=True)
class Asked:
    """What the user asked for.

    Attributes:
        network: a reference or a module.
        data: a reference, or images.
        norm: the normalisation; None: batch norm where it is trained here, the network's own otherwise.
        weights: a file; None: fresh weights.
        config: the settings.
    """

    network: str | nn.Module
    data: str | Path | ImageData
    norm: str | None
    weights: str | Path | None
    config: ReportConfig

    @property
    def is_own(self) -> bool:
        """Whether it is one of convscope's own networks, which can be built in any size."""
        return isinstance(self.network, str) and self.network in BUILDERS

    @property
    def name(self) -> str:
        """What to call the network."""
        return self.network if isinstance(self.network, str) else type(self.network).__name__

    @property
    def trains(self) -> bool:
        """Whether the network is trained here."""
        if self.config.train is not None:
            return self.config.train
        return isinstance(self.network, str) and self.weights is None


@dataclass(frozen=True)
class Met:
    """A network and images that fit one another.

    Attributes:
        network: the network, with what belongs to it where it was loaded.
        images: the images, of its size and normalised for it.
        norm: the normalisation it was built with; empty where it brings its own.
        weights: where its weights come from, in words.
        width: factor on its channels; None where it brings its own.
    """

    network: Loaded | nn.Module
    images: ImageData
    norm: str
    weights: str
    width: float | None

    @property
    def model(self) -> nn.Module:
        """The network itself."""
        return self.network.model if isinstance(self.network, Loaded) else self.network

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return self.images.input_shape

    def subject(self, asked: Asked) -> Subject:
        """What the report says that it is about."""
        return Subject(
            network=asked.name,
            input_shape=self.input_shape,
            batch_size=asked.config.batch_size,
            norm=self.norm,
            width=self.width,
            weights=self.weights,
            data=self.images.name,
            classes=tuple(self.images.classes),
            num_train=len(self.images.train),
            num_validation=len(self.images.validation),
            num_left_out=len(self.images.damaged),
            left_out=tuple(f"{damage.path} ({damage.reason})" for damage in self.images.damaged),
            imbalance=str(self.images.imbalance or ""),
        )


def meet(asked: Asked) -> Met:
    """Return the network and the images that were asked for.

    Raises:
        ConvscopeError: the network, the weights or the data can't be had, or don't fit one another.
    """
    if asked.trains and asked.weights is not None:
        raise ConvscopeError(
            f"weights {str(asked.weights)!r} for a network that is to be trained here",
            "weights to look at, or training from fresh ones",
            "leave train out; convscope train --weights FILE goes on from a file",
        )
    if asked.trains and asked.is_own:
        images = _images(asked, asked.config.size or DEMO_SIZE)
        norm = asked.norm or "batch"
        return Met(build(asked, images, norm), images, norm, _trained(asked), asked.config.width)
    if isinstance(asked.network, nn.Module):
        if asked.weights is not None:
            raise ConvscopeError(
                f"a module and weights {str(asked.weights)!r}",
                "one or the other",
                "load the weights into the module first (convscope.networks.load_weights)",
            )
        if asked.norm is not None:
            raise ConvscopeError(
                f"norm={asked.norm!r} for a network that is there already",
                "a reference that builds it, or no norm",
                "leave norm out; the report is about the network as it is",
            )
        images = _images(asked, asked.config.size or _PLAIN_SIZE)
        weights = _trained(asked) if asked.trains else "as they were given"
        return Met(asked.network, images, "", weights, None)
    return _by_reference(asked)


def build(asked: Asked, images: ImageData, norm: str) -> Loaded:
    """Return a network that is to be trained, built for the images; the seed decides its weights.

    Args:
        asked: what was asked for, by a reference.
        images: to train on.
        norm: the normalisation, as the network's builder names it.

    Raises:
        ConvscopeError: it can't be built so.
    """
    if not asked.is_own:
        return _loaded(asked, {**_options(asked, images), "norm": norm})
    with preserved_rng():
        torch.manual_seed(asked.config.seed)
        return load(
            asked.name,
            num_classes=len(images.classes),
            input_shape=images.input_shape,
            norm=norm,
            width=asked.config.width,
        )


def _by_reference(asked: Asked) -> Met:
    """A network that brings its own shape, and its own normalisation of images where it says so."""
    assert isinstance(asked.network, str)
    probed = _images(asked, asked.config.size or _PLAIN_SIZE) if asked.trains else None
    loaded = _loaded(asked, _options(asked, probed))
    images = _images(asked, _side(loaded, asked))
    if loaded.preprocessing is not None and not asked.trains:
        images = images.normalised_with(tuple(loaded.preprocessing.mean), tuple(loaded.preprocessing.std))
    if asked.trains:
        weights = _trained(asked)
    else:
        weights = f"those of {asked.weights}" if asked.weights else "fresh: nothing was trained or loaded"
    norm = loaded.model.plan.norm if isinstance(loaded.model, Stack) else asked.norm or ""
    return Met(loaded, images, norm, weights, None)


def _options(asked: Asked, images: ImageData | None) -> dict[str, Any]:
    """What a reference is loaded with: what was asked for, and the classes of images to train on."""
    options: dict[str, Any] = {} if asked.norm is None else {"norm": asked.norm}
    if asked.config.size is not None:
        options["input_shape"] = (3, asked.config.size, asked.config.size)
    if images is not None:
        options["num_classes"] = len(images.classes)
    return options


def _loaded(asked: Asked, options: dict[str, Any]) -> Loaded:
    """The network of a reference, which can't be a finished program; to be trained, it takes the classes."""
    assert isinstance(asked.network, str)
    if asked.network.endswith(".pt2"):
        raise ConvscopeError(
            f"{asked.network!r} is an exported program, which has neither modules nor modes any more",
            "the network that it was exported from",
            "name that one, such as file.py:callable",
        )
    with preserved_rng():
        torch.manual_seed(asked.config.seed)
        try:
            return load(asked.network, weights=asked.weights, **options)
        except ConvscopeError as error:
            if "num_classes" not in options:
                raise
            # Whatever else is wrong with the network goes wrong without it too, and is told as it is.
            load(asked.network, weights=asked.weights, **{**options, "num_classes": None})
            raise ConvscopeError(
                f"network {asked.network!r} can't be built with num_classes={options['num_classes']}",
                "a builder that takes num_classes, as the network is to be trained on the data's classes",
                "give it that keyword, or look at the network as it is with --no-train (train=False)",
            ) from error


def _side(loaded: Loaded, asked: Asked) -> int | tuple[int, int]:
    shape = loaded.inputs
    if isinstance(shape, tuple) and len(shape) == 4 and all(isinstance(side, int) for side in shape):
        return (shape[2], shape[3])
    return asked.config.size or _PLAIN_SIZE


def _images(asked: Asked, size: int | tuple[int, int]) -> ImageData:
    """The images; those that were given as such stay as they are."""
    if isinstance(asked.data, ImageData):
        return asked.data
    config = asked.config
    images = load_data(asked.data, size=size, seed=config.seed, per_class=config.per_class)
    return replace(images, name=str(asked.data))


def _trained(asked: Asked) -> str:
    return f"trained here for {counted(asked.config.epochs, 'epochs')}, from seed {asked.config.seed}"
