"""``torchvision:NAME`` and ``torchvision:NAME:ROOT``: torchvision's data sets, from files that are there.

Any class of ``torchvision.datasets`` that is made from a root folder alone and gives pictures with a class.
Nothing is downloaded. Limits: those that need more to be made (EMNIST's kind of split, CocoDetection's
annotations) can be made by the user and given to ``load_data`` as objects. LSUN is refused, as it unpickles
a file of the working folder; CIFAR's pickles are read after torchvision has checked their published hashes.
"""

import inspect
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from convscope.core.errors import ConvscopeError
from convscope.data.damage import reason_of

PREFIX = "torchvision:"
NOT_MIRRORED = frozenset(
    {"EMNIST", "GTSRB", "KMNIST", "MNIST", "Omniglot", "QMNIST", "RenderedSST2", "SEMEION", "SVHN", "USPS"}
)
"""Data sets of digits, letters, texts and traffic signs, which mean something else when they are mirrored."""

_UNPICKLES = frozenset({"LSUN", "LSUNClass"})
# Names that torchvision's data sets give their splits, most wanted first.
_TRAIN = ("train", "trainval", "train-standard")
_VALIDATION = ("val", "valid", "validation", "test")
_VARIABLE = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)


def torchvision_pair(reference: str) -> tuple[Any, Any | None]:
    """Return the data sets for training and for validation that a text names.

    Args:
        reference: ``torchvision:NAME`` or ``torchvision:NAME:ROOT``; the root folder is ``.`` by default.

    Returns:
        The second is None for a data set that knows no splits.

    Raises:
        ConvscopeError: torchvision is absent, has no such data set, or its files aren't there.
    """
    name, _, root = reference.removeprefix(PREFIX).partition(":")
    kind = _kind(reference, name)
    parameters = inspect.signature(kind).parameters
    options: dict[str, Any] = {"root": root or "."}
    if "download" in parameters:
        options["download"] = False  # SEMEION and SBU would by themselves
    if "train" in parameters:
        return tuple(_made(reference, kind, {**options, "train": train}) for train in (True, False))
    if "split" in parameters:
        return tuple(_first_split(reference, kind, options, names) for names in (_TRAIN, _VALIDATION))
    return _made(reference, kind, options), None


def _kind(reference: str, name: str) -> Any:
    try:
        from torchvision import datasets
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
        raise ConvscopeError(
            f"data set {reference!r}: torchvision can't be imported ({str(error).splitlines()[0]})",
            "torchvision, built for the torch beside it",
            "pip install torchvision, from the index that torch came from",
        ) from error
    kind = getattr(datasets, name, None) if name in datasets.__all__ else None
    if kind is None:
        spelt = {each.lower(): each for each in datasets.__all__}
        close = [spelt[each] for each in get_close_matches(name.lower(), spelt, 3, 0.5)]
        raise ConvscopeError(
            f"data set {reference!r}",
            "torchvision:NAME or torchvision:NAME:FOLDER, such as torchvision:CIFAR10:data",
            f"did you mean {' or '.join(f'{PREFIX}{each}' for each in close)}?"
            if close
            else "torchvision.datasets lists the names",
        )
    if name in _UNPICKLES:
        raise ConvscopeError(
            f"data set {reference!r}, which unpickles a file of the working folder, and so could run code",
            "a data set of pictures or tensors alone",
            "save its pictures as a folder for each class",
        )
    parameters = inspect.signature(kind).parameters.values()
    asked = [each.name for each in parameters if each.default is each.empty and each.kind not in _VARIABLE]
    if asked != ["root"]:
        raise ConvscopeError(
            f"data set {reference!r}, which torchvision makes from {', '.join(asked) or 'no folder'}",
            "one that is made from a root folder alone",
            f"make it in Python: load_data((torchvision.datasets.{name}(…), …), size=…)",
        )
    return kind


def _first_split(reference: str, kind: Any, options: dict[str, Any], names: tuple[str, ...]) -> Any:
    for name in names:
        try:
            return _made(reference, kind, {**options, "split": name})
        except _NoSuchSplitError:
            continue
    raise ConvscopeError(
        f"data set {reference!r}, which has none of the splits {', '.join(names)}",
        "one to learn from and one to judge by",
        "make both in Python: load_data((training, validation), size=…)",
    )


class _NoSuchSplitError(Exception):
    """torchvision's data set calls its splits otherwise."""


def _made(reference: str, kind: Any, options: dict[str, Any]) -> Any:
    try:
        return kind(**options)
    except ImportError as error:
        raise ConvscopeError(
            f"data set {reference!r}: {error}", "the packages that torchvision reads it with", "install them"
        ) from error
    except Exception as error:  # torchvision raises OSError, RuntimeError and others for absent files
        if isinstance(error, ValueError) and "split" in options and "nknown value" in str(error):
            raise _NoSuchSplitError from error
        raise ConvscopeError(
            f"data set {reference!r} can't be opened in {str(Path(options['root']))!r} "
            f"({reason_of(error).splitlines()[0]})",
            "its files, as torchvision stores them: nothing is downloaded here",
            f"check the folder in torchvision:NAME:FOLDER, or get them: "
            f"torchvision.datasets.{kind.__name__}({options['root']!r}, download=True)",
        ) from error
