"""What a gallery was made of and when: what its page says at the top."""

from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version

import torch
from torch import nn


@dataclass(frozen=True)
class Origin:
    """What a gallery was made of.

    Attributes:
        network: its reference, or the name of its class.
        weights: where they come from, in words; empty if nobody said it.
        data: what the images are of; empty if nobody said it.
        written: day and time; empty if nobody said it, so that the same call writes the same files.
        versions: of what it was made with.
    """

    network: str
    weights: str = ""
    data: str = ""
    written: str = ""
    versions: tuple[tuple[str, str], ...] = (
        ("convscope", version("convscope")),
        ("PyTorch", str(torch.__version__)),
    )

    @classmethod
    def now(cls, network: str, weights: str = "", data: str = "") -> "Origin":
        """Return an origin that says when it was made."""
        written = datetime.now().astimezone().strftime("%d %B %Y, %H:%M %Z")
        return cls(network, weights, data, written)

    @classmethod
    def of_model(cls, model: nn.Module) -> "Origin":
        """Return what can be said of a model of which nothing else is known: its class.

        Example:
            >>> Origin.of_model(nn.Linear(2, 2)).network
            'Linear'
        """
        return cls(type(model).__name__)
