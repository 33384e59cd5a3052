"""The independent oracle: projections of any network, written out by hand at the level of Python's functions.

Nothing here is shared with convscope: no tape, no probe, no dispatcher. A ``TorchFunctionMode`` sees the
calls that a network's own code makes (``F.relu``, ``x.clamp(min=0)``, ``x.mul_(s)`` …), and puts an
``autograd.Function`` in the place of every activation, in whose backward the rule is written out. Gates are
detached where they are made, statistics of norms are constants. Autograd does the rest, in float64.

The rules, for an activation y = φ(x) and the signal g above it:

- gradient: plain autograd, without any of this;
- deconvnet: max(g, 0) at a ReLU, no rule elsewhere;
- guided: max(g, 0) · 1[x > 0] at a ReLU, no rule elsewhere;
- gated: max(g, 0) · φ(x) / x, which is guided's at a ReLU; no rule where φ(0) ≠ 0.

In these three, what comes out of a sigmoid, a hard sigmoid or a softmax is a gate, and what comes out of a
norm, a variance or a standard deviation a statistic: constants both. Layer, group, instance and RMS norm have
constant statistics; local response norm is passed as if it weren't there; max-pools by their gradient.

Whatever else isn't linear raises ``NoRuleError`` once a signal reaches it: a product of two values that both
lead to the image, a power, an activation without a rule. So the oracle can't be wrong in silence. Where a
gate doesn't come out of a sigmoid, ``gates`` tells: classes or paths of modules whose output is one.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sight.oracle_backward import Rewritten, detached, flat
from sight.oracle_gates import NoRuleError


@dataclass(frozen=True)
class Layer:
    """A layer's maps as the end of a graph that begins at the image."""

    image: Tensor
    maps: Tensor

    def project(self, unit: int, position: tuple[int, ...] | None = None) -> Tensor:
        """The projection (channels, height, width) of a unit, at its strongest position by default."""
        seed = torch.zeros_like(self.maps)
        seed[(0, unit, *(self.strongest(unit) if position is None else position))] = 1
        (made,) = torch.autograd.grad(self.maps, self.image, seed, retain_graph=True, allow_unused=True)
        if made is None:
            raise NoRuleError("nothing leads to the image")
        return made[0]

    def strongest(self, unit: int) -> tuple[int, ...]:
        """The position of the first of a map's largest values."""
        unit_map = self.maps[0, unit].detach()
        return tuple(int(i) for i in torch.unravel_index(unit_map.flatten().argmax(), unit_map.shape))


def layers(
    net: nn.Module,
    image: Tensor,
    paths: list[str],
    rule: str,
    gates: tuple[str, ...] = (),
    only_relus: bool = False,
) -> dict[str, Layer]:
    """The outputs of some modules' first calls in one run by a rule, in float64, checked for fidelity.

    Args:
        net: in float64; it comes back as it was.
        image: (channels, height, width).
        paths: of modules.
        rule: one of the four.
        gates: classes and paths of modules whose output is a gate.
        only_relus: see :class:`~sight.oracle_backward.Rewritten`.
    """
    required = [parameter.requires_grad for parameter in net.parameters()]
    training = [module.training for module in net.modules()]
    try:
        net.eval().requires_grad_(False)
        plain, whole = _run(net, image, paths)
        if rule == "gradient":
            found, again = _run(net, image, paths)
        else:
            with _detaching(net, gates), Rewritten(rule, only_relus):
                found, again = _run(net, image, paths)
        for path in paths:
            assert torch.equal(plain[path].maps, found[path].maps), f"another forward at {path}"
        assert all(map(torch.equal, whole, again)), "another forward at the end"
    finally:
        for parameter, flag in zip(net.parameters(), required):
            parameter.requires_grad_(flag)
        for module, flag in zip(net.modules(), training):
            module.training = flag
    return found


def projected(net: nn.Module, image: Tensor, path: str, unit: int, rule: str, **options: Any) -> Tensor:
    """One unit's projection in the layout of ``convscope.project``: (height, width, channels)."""
    position = options.pop("position", None)
    return layers(net, image, [path], rule, **options)[path].project(unit, position).permute(1, 2, 0)


def _run(net: nn.Module, image: Tensor, paths: list[str]) -> tuple[dict[str, Layer], list[Tensor]]:
    leaf = image[None].detach().clone().requires_grad_()
    found: dict[str, Layer] = {}

    def keep(path: str) -> Callable:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
            found.setdefault(path, Layer(leaf, output))
            return output.clone()  # what follows may write into it

        return hook

    by_path = dict(net.named_modules())
    hooks = [by_path["" if path == "self" else path].register_forward_hook(keep(path)) for path in paths]
    try:
        with torch.enable_grad():
            whole = net(leaf)
    finally:
        for hook in hooks:
            hook.remove()
    outputs = list(whole.values()) if isinstance(whole, dict) else [whole]
    return found, [value.detach() for value in flat(outputs) if isinstance(value, Tensor)]


@contextmanager
def _detaching(net: nn.Module, gates: tuple[str, ...]) -> Iterator[None]:
    hooks = [
        module.register_forward_hook(lambda _module, _inputs, output: detached(output))
        for path, module in net.named_modules()
        if path in gates or type(module).__name__ in gates
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
