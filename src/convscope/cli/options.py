"""Flags that several commands share, and how their words are read."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from convscope.cli.weights import check_weights
from convscope.core.errors import ConvscopeError

if TYPE_CHECKING:
    from convscope.networks import Loaded

_NAMED = "alexnet, zfnet, timm:NAME, torchvision:NAME, hf:FOLDER, module:callable"
_CALLED = (
    "Naming a module or a file runs it. A callable is called without arguments, but for --norm, --width and "
    "--variant as keywords where they are given, and num_classes, if it takes that, where --num-classes or "
    "the data to train on says it; it returns a network, or a network and its inputs or their shape."
)
Network = Annotated[str, Parameter(help=f"{_NAMED}, file.py:callable or model.pt2. {_CALLED}")]
Modules = Annotated[str, Parameter(help=f"{_NAMED} or file.py:callable. {_CALLED}")]
"""A network whose modules are still there, which those of an exported program aren't."""
Norm = Annotated[
    str | None,
    Parameter(
        help="Normalisation of alexnet and zfnet: none, lrn, batch, layer, instance, group, renorm, ghost "
        "or sync."
    ),
]
Json = Annotated[bool, Parameter(name="--json", negative="", help="Print the result as JSON.")]


@Parameter(name="*")
@dataclass(frozen=True)
class NetworkOptions:
    """How the network is built and fed.

    Attributes:
        weights: Weights to load: safetensors, or a checkpoint that torch.load reads with weights_only.
        partial_weights: Take weights that lack parameters or running statistics, which stay as the network
            was built.
        input: Shape of one input, such as 3x224x224. Without it: as the network or its weights say; for a
            callable that says nothing, 3x224x224.
        batch: Number of inputs.
        classes: File with class names, one per line, or JSON.
        num_classes: Number of classes of a fresh network.
        norm: Normalisation of alexnet and zfnet.
        width: Factor on all widths of alexnet and zfnet.
        variant: Of alexnet: notes, published or torchvision.
    """

    weights: str | None = None
    input: str | None = None
    batch: int | None = None
    classes: str | None = None
    num_classes: int | None = None
    norm: Norm = None
    width: float | None = None
    variant: str | None = None
    partial_weights: Annotated[bool, Parameter(negative="")] = False

    def load_modules(self, reference: str, **defaults: object) -> "Loaded":
        """Return what :meth:`load` does, for a reading that needs the network's modules and modes.

        Raises:
            ConvscopeError: it is an exported program, whose modules are gone.
        """
        if reference.endswith(".pt2"):
            raise ConvscopeError(
                f"{reference!r} is an exported program, which has neither modules nor modes any more",
                "the network that it was exported from",
                "name that one, such as file.py:callable",
            )
        return self.load(reference, **defaults)

    def load(self, reference: str, **defaults: object) -> "Loaded":
        """Return the network that the words name; ``defaults`` hold where the words say nothing.

        Raises:
            ConvscopeError: there is no such network, or its weights don't fit it.
        """
        from convscope.networks import load

        if self.batch is not None and self.batch < 1:
            raise ConvscopeError(
                f"--batch {self.batch}", "a whole number from 1", "say how many inputs a batch has"
            )
        words = {name: getattr(self, name) for name in ("num_classes", "norm", "width", "variant")}
        given = {**defaults, **{name: word for name, word in words.items() if word is not None}}
        shape = input_shape(self.input) if self.input else given.pop("input_shape", None)
        loaded = load(
            reference,
            weights=self.weights,
            classes=self.classes,
            batch=self.batch,
            input_shape=shape,
            **given,
        )
        if loaded.weights is not None:
            check_weights(loaded.weights, reference, partial=self.partial_weights)
        return loaded


def input_shape(text: str) -> tuple[int, ...]:
    """Return the shape that a text such as ``3x224x224`` names.

    Raises:
        ConvscopeError: the text isn't sizes joined by ``x``.

    Example:
        >>> input_shape("3x224x224")
        (3, 224, 224)
    """
    if not re.fullmatch(r"[1-9]\d*([x,×][1-9]\d*)*", text):
        raise ConvscopeError(
            f"input shape {text!r}", "sizes joined by x", "write it as 3x224x224, without batch"
        )
    return tuple(int(size) for size in re.split("[x,×]", text))
