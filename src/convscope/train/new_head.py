"""A trained network with a fresh classifier, to be trained on other classes.

Limits: the classifier is one layer whose output is the class scores: the last convolution or linear layer
that has as many outputs as there are classes. All layers train; set ``requires_grad`` on those that
shouldn't.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from convscope.core.errors import ConvscopeError
from convscope.networks import Loaded, WeightsReport, load
from convscope.networks.checkpoint import Checkpoint, read_checkpoint
from convscope.networks.load import Belongings
from convscope.networks.saved import read_extras
from convscope.networks.weights import fitting, unfilled


def with_new_head(reference: str, weights: str | Path, num_classes: int, **options: Any) -> Loaded:
    """Return a network whose weights are a file's, but for a fresh classifier of ``num_classes`` scores.

    Args:
        reference: see :func:`convscope.load`.
        weights: safetensors, or a PyTorch checkpoint. A file that convscope saved knows its network's
            options, which hold unless others are given here.
        num_classes: of the data that it will be trained on.
        **options: keywords of :func:`convscope.load`.

    Returns:
        The network, with the preprocessing of its trained weights and ``class_names`` left open; its
        ``weights.missing`` names the classifier's tensors.

    Raises:
        ConvscopeError: the file doesn't belong to the network, or a layer besides the classifier differs.

    Example::

        pretrained = with_new_head("timm:resnet18", "resnet18.safetensors", num_classes=10)
        cs.train(pretrained, data, learning_rate=0.001)
    """
    loaded = load(reference, num_classes=num_classes, **{**saved_options(reference, weights), **options})
    return with_trained_body(loaded, weights, num_classes)


def with_trained_body(loaded: Loaded, weights: str | Path, num_classes: int) -> Loaded:
    """Return a loaded network with a file's weights in all layers but its classifier, in place.

    Args:
        loaded: a network with fresh weights.
        weights: see :func:`with_new_head`.
        num_classes: how many scores it gives.

    Raises:
        ConvscopeError: as :func:`with_new_head`.
    """
    checkpoint = read_checkpoint(weights)
    known, own = read_extras(Path(weights), checkpoint.metadata).preprocessing, loaded.preprocessing
    report = _fill_but_head(loaded.model, Path(weights), checkpoint, num_classes)
    if known is not None and own is not None:
        known = replace(known, size=own.size)
    belongings = Belongings(loaded.reference, known or own, (), report, loaded.recipe)
    return Loaded(loaded.model, loaded.inputs, belongings)


def saved_options(reference: str, weights: str | Path) -> dict[str, Any]:
    """Return the options of the network that weights are of, without its classes; none in others' files.

    Raises:
        ConvscopeError: the file can't be read.
    """
    extras = read_extras(Path(weights), read_checkpoint(weights).metadata)
    saved = dict(extras.network or {})
    if saved.pop("reference", None) != reference:
        return {}
    saved.pop("num_classes", None)
    if "input_shape" in saved:
        saved["input_shape"] = tuple(saved["input_shape"])
    return saved


def _fill_but_head(model: nn.Module, path: Path, checkpoint: Checkpoint, num_classes: int) -> WeightsReport:
    wanted = {name: tensor for name, tensor in model.state_dict().items() if isinstance(tensor, Tensor)}
    found = fitting(wanted, checkpoint)
    head = _head(model, num_classes)
    of_head = {f"{head}.{name}" if head else name for name, _ in model.get_submodule(head).named_parameters()}
    fits = {name: found[name] for name in wanted if name in found and name not in of_head}
    wrong = [name for name, tensor in fits.items() if tensor.shape != wanted[name].shape]
    if wrong or not fits:
        name = wrong[0] if wrong else next(iter(wanted))
        given = f"is {tuple(found[name].shape)}" if wrong else "is absent"
        raise ConvscopeError(
            f"weights {str(path)!r}: {name} {given}",
            f"{tuple(wanted[name].shape)} in {type(model).__name__} (its classifier {head} alone may differ)",
            "build the network with the options that it was trained with",
        )
    with torch.no_grad():
        model.load_state_dict(fits, strict=False)
    missing = tuple(name for name in wanted if name not in fits)
    return WeightsReport(
        file=str(path),
        place="",
        is_average=False,
        alternatives=(),
        stripped=(),
        loaded=len(fits),
        missing=missing,
        unexpected=tuple(name for name in found if name not in wanted),
        unfilled=tuple(name for name in unfilled(model, missing) if name not in of_head),
    )


def _head(model: nn.Module, num_classes: int) -> str:
    """The path of the last layer with as many outputs as there are classes."""
    paths: list[str] = [
        path
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and len(module.weight) == num_classes
    ]
    if not paths:
        raise ConvscopeError(
            f"{type(model).__name__} without a layer of {num_classes} outputs",
            "a linear layer or convolution that gives the class scores",
            "build the network with a classifier for these classes yourself, and train it as it is",
        )
    return paths[-1]
