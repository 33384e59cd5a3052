"""A micro case: a tiny network around one or two batch norms, and what must become of each of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

FOLDED = "folded merged"
"""Nothing of the batch norm may be left to run."""
KEPT = "kept"
"""No exact fold exists: it stays, with a reason, and the network's output is the same to the bit."""
SCALE = "partial kept"
"""At most the scale can go (the shift can't), which saves no operator: either verdict is right."""
ANY = "folded merged partial kept"
"""Right in every verdict; the numbers have to agree."""


@dataclass(frozen=True)
class Micro:
    """A network and the verdicts that are right for it.

    Attributes:
        name: as in the table of cases, unique.
        make: returns the network, batch norms untouched.
        shape: of the input; float64 unless ``dtype`` says else.
        expected: the verdicts allowed, separated by spaces: one text for all batch norms, or one for each
            by the path of its module (``"self"`` for a functional one in the network's own code).
        counts: the least number of entries of a verdict (``{"folded": 1}``), where ``expected`` allows many.
        gammas: their signs, ``"mixed"`` or ``"positive"``.
        resizable: whether the network takes other spatial sizes.
        prepare: changes the network after its statistics are randomised.
        dtype: None where the network has its own dtypes and must keep them.
        borders: values of ``fold(border=…)`` with which everything folds.
        materialises: whether ``fold(materialise=True)`` folds everything.
        gone: operators that the folded network must not run any more, beside batch norms.
    """

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    expected: str | Mapping[str, str]
    counts: Mapping[str, int] = field(default_factory=dict)
    gammas: str = "mixed"
    resizable: bool = True
    prepare: Callable[[nn.Module], object] = lambda net: None
    dtype: torch.dtype | None = torch.float64
    borders: tuple[str, ...] = ()
    materialises: bool = False
    gone: tuple[str, ...] = ()

    def network(self) -> nn.Module:
        """Return the network in evaluation mode, statistics and weights random and the same every time."""
        torch.manual_seed(len(self.name))
        net = self.make().eval()
        if self.dtype is not None:
            net = net.to(self.dtype)
        randomise(net, positive=self.gammas == "positive")
        self.prepare(net)
        return net

    def allowed(self, path: str) -> list[str]:
        """Return the verdicts that are right for the batch norm of a module."""
        return (self.expected if isinstance(self.expected, str) else self.expected[path]).split()

    def paths(self, net: nn.Module) -> set[str]:
        """Return the paths of the modules that the ledger must have an entry for."""
        if not isinstance(self.expected, str):
            return set(self.expected)
        return {path or "self" for path, module in net.named_modules() if hasattr(module, "running_mean")}

    def shapes(self) -> list[tuple[int, ...]]:
        """Return input shapes to try: the given one, another batch, another size."""
        batch, *rest = self.shape
        grown = (batch, *rest[:1], *(size + 2 for size in rest[1:]))
        return [self.shape, (batch + 1, *rest), *([grown] if self.resizable and len(rest) > 1 else [])]


class Net(nn.Module):
    """A network given by a function of itself and its input; tensors become buffers."""

    def __init__(self, forward, **parts):
        super().__init__()
        self._forward = forward
        for name, part in parts.items():
            if isinstance(part, torch.Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, x):
        return self._forward(self, x)


def randomise(net: nn.Module, positive: bool = False) -> None:
    """Give every batch norm other statistics in every channel: fresh ones hide most wrong folds."""
    generator = torch.Generator().manual_seed(7)
    for module in net.modules():
        if not hasattr(module, "running_mean"):
            continue
        for name in ("running_mean", "running_var", "weight", "bias"):
            tensor = getattr(module, name, None)
            if tensor is None:
                continue
            noise = torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
            numbers = {"running_var": 0.3 + 2 * noise, "weight": 0.5 + noise}.get(name, noise - 0.5)
            if name == "weight" and not positive:
                numbers[::2] *= -1
            with torch.no_grad():
                tensor.copy_(numbers)
