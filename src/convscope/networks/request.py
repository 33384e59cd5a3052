"""What is asked of a resolver of references, and what it answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.networks.preprocessing import Preprocessing


@dataclass(frozen=True)
class Request:
    """A reference without its prefix, and the wishes that came with it.

    Attributes:
        reference: as the user wrote it, for messages.
        name: the part after ``timm:`` and its like; the whole reference where there is no such prefix.
        num_classes: None: as the network comes.
        input_shape: shape of one input, such as ``(3, 224, 224)``; None: as the network comes.
        options: further keywords for the builder.
    """

    reference: str
    name: str
    num_classes: int | None = None
    input_shape: tuple[int, ...] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Resolved:
    """A network and what belongs to it.

    Attributes:
        model: with fresh weights, in training mode unless it comes otherwise.
        input_shape: of one input, without the batch; None where ``inputs`` says it all.
        preprocessing: None where nobody says.
        class_names: empty where nobody says.
        inputs: given where a shape doesn't describe them; the batch can't be chosen then.
    """

    model: nn.Module
    input_shape: tuple[int, ...] | None
    preprocessing: Preprocessing | None = None
    class_names: tuple[str, ...] = ()
    inputs: Any = None


def unbuildable(request: Request, error: BaseException) -> ConvscopeError:
    """Return the error for a builder that raised another one."""
    said = str(error).partition("\nException raised from")[0]  # where in PyTorch's C++ says nothing here
    given = ", ".join(f"{key}={value!r}" for key, value in request.options.items())
    return ConvscopeError(
        f"network {request.reference!r}{f' with {given}' if given else ''} can't be built "
        f"({type(error).__name__}: {said})",
        "a network that builds with these options",
        "correct the reference or the options",
    )
