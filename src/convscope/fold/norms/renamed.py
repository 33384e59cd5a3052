"""Layers that took batch norms in, and have another name since."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from convscope.fold.norms.identity import FoldedBatchNorm, FoldedBatchNormAct, PartlyFoldedBatchNorm


def renamed(addresses: tuple[str, ...], names: Mapping[str, str]) -> tuple[str, ...]:
    """Return addresses under their new names, each once.

    Example:
        >>> renamed(("stem#1", "a#1", "b#1"), {"b#1": "a#1"})
        ('stem#1', 'a#1')
    """
    return tuple(dict.fromkeys(names.get(address, address) for address in addresses))


@dataclass(frozen=True)
class Renamed:
    """Lets what stands in batch norms' places name the layers that are there.

    Attributes:
        names: new addresses by old ones.
    """

    names: Mapping[str, str]

    def __call__(self, model: nn.Module) -> None:
        """Carry it out on a network, in place."""
        for module in model.modules():
            if isinstance(module, FoldedBatchNorm | FoldedBatchNormAct | PartlyFoldedBatchNorm):
                module.into = renamed(module.into, self.names)
