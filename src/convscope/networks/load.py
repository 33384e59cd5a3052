"""From a text to a network: which reference means which network, and everything that belongs to it."""

import difflib
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.core.nearest import nearest
from convscope.core.paths import is_file, is_folder
from convscope.networks.checkpoint import read_checkpoint
from convscope.networks.code import coded_network, exported_network
from convscope.networks.own import BUILDERS, own_network
from convscope.networks.preprocessing import Preprocessing, read_class_names
from convscope.networks.request import Request, Resolved
from convscope.networks.saved import Extras, read_extras
from convscope.networks.weights import WeightsReport, fill
from convscope.networks.zoo import ZOOS, zoo_names

Resolver = Callable[[Request], Resolved]

REFERENCES = (
    "alexnet, zfnet, timm:NAME, torchvision:NAME, hf:FOLDER, "
    "package.module:callable, file.py:callable or model.pt2"
)
PREFIXES: dict[str, Resolver] = dict(ZOOS)
"""Resolver of what follows ``timm:`` and its like; add to it to teach ``load`` another prefix."""
_MOST_ELEMENTS = 2**48
"""Of inputs: no machine holds more, and those of the layers behind can still be counted in 64 bits."""


@dataclass(frozen=True)
class Belongings:
    """What belongs to a loaded network besides its inputs.

    Attributes:
        reference: as the user wrote it.
        preprocessing: how images become inputs; None where nobody says.
        class_names: in the order of the scores; empty where nobody says.
        weights: what was loaded from a file; None for fresh weights.
        recipe: what :class:`~convscope.networks.saved.Extras` keeps to build the network again.
    """

    reference: str
    preprocessing: Preprocessing | None
    class_names: tuple[str, ...]
    weights: WeightsReport | None
    recipe: Mapping[str, Any]


class Loaded(tuple[nn.Module, Any]):
    """A network and its inputs, ``model, inputs = loaded``, with what belongs to them as attributes.

    Attributes:
        model: the network.
        inputs: a shape with the batch, such as ``(1, 3, 227, 227)``; a tensor, or a tuple or dict of
            tensors, where a reference brings its own.
        reference: see :class:`Belongings`.
        preprocessing: see :class:`Belongings`.
        class_names: see :class:`Belongings`.
        weights: see :class:`Belongings`.
        recipe: see :class:`Belongings`.
    """

    _belongings: Belongings

    def __new__(cls, model: nn.Module, inputs: Any, belongings: Belongings) -> "Loaded":
        """Return the pair with its belongings."""
        loaded = super().__new__(cls, (model, inputs))
        loaded._belongings = belongings
        return loaded

    @property
    def model(self) -> nn.Module:
        """The network."""
        return self[0]

    @property
    def inputs(self) -> Any:
        """Its inputs, or their shape."""
        return self[1]

    @property
    def reference(self) -> str:
        """The text that it was loaded by."""
        return self._belongings.reference

    @property
    def preprocessing(self) -> Preprocessing | None:
        """How images become inputs; None where nobody says."""
        return self._belongings.preprocessing

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in the order of the scores; empty where nobody says."""
        return self._belongings.class_names

    @property
    def weights(self) -> WeightsReport | None:
        """What was loaded from a file; None for fresh weights."""
        return self._belongings.weights

    @property
    def recipe(self) -> Mapping[str, Any]:
        """The reference and options that build the network again, such as ``{"reference": "zfnet", …}``."""
        return self._belongings.recipe

    def class_name(self, number: int) -> str:
        """The name of a class, ``"class 7"`` where it has none."""
        return self.class_names[number] if number < len(self.class_names) else f"class {number}"


# Seven parameters: these are the words of the command line, and all but the first have defaults.
def load(
    reference: str,
    *,
    weights: str | Path | None = None,
    num_classes: int | None = None,
    input_shape: tuple[int, ...] | None = None,
    batch: int | None = None,
    classes: str | Path | None = None,
    **options: Any,
) -> Loaded:
    """Return the network that a text names, and its inputs.

    ==========================  =====================================================================
    reference                   network
    ==========================  =====================================================================
    ``alexnet``, ``zfnet``      ours; options are their keywords, such as ``norm="batch"``
    ``timm:NAME``               timm's, with its preprocessing
    ``torchvision:NAME``        torchvision's, with the preprocessing of its published weights
    ``hf:FOLDER``               an image classifier, from the configuration in a folder (transformers)
    ``package.module:callable`` what the callable returns; **runs the module**
    ``file.py:callable``        what the callable returns; **runs the file**
    ``model.pt2``               a program written by ``torch.export.save``; **runs the program**
    ==========================  =====================================================================

    Nothing is downloaded: weights are fresh unless ``weights`` names a file. A file that convscope saved
    knows its network's options, which hold unless others are given here.

    Args:
        reference: one of the above.
        weights: safetensors or a PyTorch checkpoint; see
            :func:`~convscope.networks.weights.load_weights`.
        num_classes: number of scores; None: as the network comes.
        input_shape: shape of one input, such as ``(3, 224, 224)``; None: as the network comes.
        batch: number of inputs; None: 1, or what an exported program was exported with.
        classes: file of class names; see
            :func:`~convscope.networks.preprocessing.read_class_names`.
        **options: keywords for the network's builder.

    Returns:
        ``(model, inputs)``, with ``.preprocessing``, ``.class_names``, ``.weights`` and ``.reference``.

    Raises:
        ConvscopeError: the reference, a file or an option is wrong; names that are close are offered.

    Example:
        >>> model, inputs = load("zfnet", norm="batch", width=0.1, input_shape=(3, 64, 64), batch=8)
        >>> inputs
        (8, 3, 64, 64)
    """
    _refuse_sizes(reference, input_shape, batch)
    checkpoint = read_checkpoint(weights) if weights is not None else None
    extras = read_extras(Path(weights or ""), checkpoint.metadata) if checkpoint else Extras()
    request = _with_saved_options(Request(reference, reference, num_classes, input_shape, options), extras)
    resolver, name = _resolver(reference)
    resolved = resolver(replace(request, name=name))
    inputs = _inputs(resolved, reference, batch)
    _refuse_impossible(f"network {reference!r}: inputs of shape {inputs}", inputs)
    names = _class_names(resolved, extras, classes)
    report = fill(resolved.model, Path(weights or ""), checkpoint) if checkpoint else None
    recipe = _recipe(request, resolved)
    belongings = Belongings(reference, _preprocessing(resolved, extras), names, report, recipe)
    return Loaded(resolved.model, inputs, belongings)


def _resolver(reference: str) -> tuple[Resolver, str]:
    """The resolver of a reference, and the part of it that the resolver needs."""
    prefix, colon, name = reference.partition(":")
    if colon and prefix in PREFIXES:
        return PREFIXES[prefix], name
    if reference in BUILDERS:
        return own_network, reference
    if reference.endswith(".pt2"):
        return exported_network, reference
    if colon:
        return coded_network, reference
    raise ConvscopeError(f"unknown network {reference!r}", REFERENCES, _elsewhere(reference))


def _elsewhere(name: str) -> str:
    """Advice for a name that isn't ours: what a file is good for; close names of ours or a zoo's."""
    path = Path(name)
    if is_file(path):
        code = f"name what builds it: {name}:callable"
        return code if path.suffix == ".py" else "weights go beside their network: zfnet --weights FILE"
    if name and is_folder(path):
        return f"a folder of transformers is hf:{name}"
    if difflib.get_close_matches(name.lower(), BUILDERS, cutoff=0.7):
        return nearest(name, BUILDERS, "`convscope networks` lists them")
    zoos: dict[str, tuple[str, ...]] = {}
    for zoo in ("torchvision", "timm"):
        with suppress(ConvscopeError):  # a zoo that isn't installed has no advice
            zoos[zoo] = zoo_names(zoo)
    close = difflib.get_close_matches(
        name.lower(), {known for names in zoos.values() for known in names}, n=1
    )
    references = [f"'{zoo}:{known}'" for known in close for zoo, names in zoos.items() if known in names]
    return f"did you mean {' or '.join(references)}?" if references else "`convscope networks` lists them"


def _refuse_sizes(reference: str, input_shape: tuple[int, ...] | None, batch: int | None) -> None:
    sizes = (*(input_shape or ()), *(() if batch is None else (batch,)))
    given = f"network {reference!r}: input_shape={input_shape}, batch={batch}"
    _refuse_impossible(given, sizes)


def _refuse_impossible(given: str, shape: Any) -> None:
    """Refuse sizes that no tensor has; what isn't a shape is left to others."""
    if not isinstance(shape, tuple) or not all(isinstance(size, int) for size in shape):
        return
    if any(size < 1 for size in shape):
        raise ConvscopeError(
            given,
            "whole numbers from 1",
            "write the shape of one input, such as 3x224x224, and the batch apart",
        )
    if math.prod(shape) > _MOST_ELEMENTS:
        raise ConvscopeError(given, f"inputs of at most {_MOST_ELEMENTS:,} elements", "choose smaller sizes")


def _with_saved_options(request: Request, extras: Extras) -> Request:
    """The request, with the options of the network that the weights were saved from where it has none."""
    saved = dict(extras.network or {})
    if saved.pop("reference", None) != request.reference:
        return request
    num_classes, shape = saved.pop("num_classes", None), saved.pop("input_shape", None)
    return replace(
        request,
        num_classes=num_classes if request.num_classes is None else request.num_classes,
        input_shape=tuple(shape) if request.input_shape is None and shape else request.input_shape,
        options={**saved, **request.options},
    )


def _recipe(request: Request, resolved: Resolved) -> dict[str, Any]:
    """What was asked for, with the sizes that came of it."""
    recipe: dict[str, Any] = {"reference": request.reference, **request.options}
    if request.num_classes is not None:
        recipe["num_classes"] = request.num_classes
    if resolved.input_shape is not None:
        recipe["input_shape"] = list(resolved.input_shape)
    return recipe


def _inputs(resolved: Resolved, reference: str, batch: int | None) -> Any:
    if resolved.input_shape is not None and (resolved.inputs is None or batch is not None):
        return (batch or 1, *resolved.input_shape)
    if batch is not None:
        raise ConvscopeError(
            f"network {reference!r} with batch={batch}",
            "none: it brings its own inputs",
            "leave the batch out",
        )
    return resolved.inputs


def _class_names(resolved: Resolved, extras: Extras, classes: str | Path | None) -> tuple[str, ...]:
    names = read_class_names(classes) if classes is not None else extras.class_names
    if names is None:
        return resolved.class_names
    known = len(resolved.class_names)
    if known and len(names) != known:
        raise ConvscopeError(
            f"{len(names)} class names{f' in {str(classes)!r}' if classes is not None else ''}",
            f"{known}, as many as the network has scores",
            "correct the file, or pass num_classes",
        )
    return names


def _preprocessing(resolved: Resolved, extras: Extras) -> Preprocessing | None:
    if extras.preprocessing is None or resolved.preprocessing is None:
        return extras.preprocessing or resolved.preprocessing
    return replace(extras.preprocessing, size=resolved.preprocessing.size)
