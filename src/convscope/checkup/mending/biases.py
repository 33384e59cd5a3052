"""The repair of redundant biases: the constant goes into the running mean behind them."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from convscope.checkup.mending.repairs import repairs
from convscope.checkup.mending.result import Left, Mended
from convscope.checkup.mending.workshop import Workshop, largest_change
from convscope.checkup.observed import BiasGradient
from convscope.core.finding import Finding
from convscope.core.units import counted

# What rounding may do to the outputs, in units of the coarsest dtype's ε, over the largest output.
_ROUNDINGS = 1e4


@dataclass(frozen=True, eq=False)
class _Removed:
    """A bias that was taken out, and the way back."""

    owner: nn.Module
    bias: nn.Parameter
    mean: Tensor
    was: Tensor

    def undo(self) -> None:
        """Put the bias back, and the mean that was there before."""
        self.owner.bias = self.bias
        self.mean.copy_(self.was)


@repairs("redundant-bias")
def redundant_bias(workshop: Workshop, findings: tuple[Finding, ...]) -> Iterator[Mended | Left]:
    """Take biases out of convolutions and linear layers, and out of the running mean behind them.

    In evaluation mode (x + b) − μ = x − (μ − b), so that nothing changes but rounding; outputs are compared,
    and everything is put back if they differ by more. In training mode the bias never mattered.
    """
    before = workshop.outputs()
    removed: list[tuple[Finding, _Removed]] = []
    for finding in findings:
        bias = next((each for each in workshop.observation.biases if _is_of(each, finding)), None)
        found = _owner(workshop.model, bias)
        if isinstance(found, str) or bias is None:
            yield Left(finding.fault, finding.address, str(found))
        else:
            removed.append((finding, _remove(workshop.model, found, bias)))
    changed = largest_change(before, workshop.outputs())
    coarsest = max((torch.finfo(each.bias.dtype).eps for _, each in removed), default=0.0)
    if changed is not None and not changed <= _ROUNDINGS * coarsest:
        with torch.no_grad():
            for _, each in reversed(removed):
                each.undo()
        for finding, _ in removed:
            yield Left(finding.fault, finding.address, f"without it, outputs would change by {changed:.2g}")
    elif removed:
        yield Mended(
            ("redundant-bias",),
            tuple(finding.address for finding, _ in removed),
            f"{counted(len(removed), 'bias', 'biases')} moved into the running means behind, right up to "
            f"rounding{_by(changed)}: bias=None",
            changed,
        )


def _by(changed: float | None) -> str:
    """How much the outputs changed, in words; nothing if that isn't known."""
    return "" if changed is None else f" (outputs by up to {changed:.1e} of the largest)"


def _is_of(bias: BiasGradient, finding: Finding) -> bool:
    """Whether a finding is about this bias, which it is by address and measured ratio."""
    measured = bias.signed / bias.absolute if bias.absolute else None
    return bias.address == finding.address and any(each.value == measured for each in finding.evidence)


def _owner(model: nn.Module, bias: BiasGradient | None) -> nn.Module | str:
    """The layer that a bias can be taken out of, or why it can't."""
    if bias is None or bias.running_mean is None:
        return "no running mean of its own can take the constant in: leave it out of the next training"
    parameter = model.get_parameter(bias.name)
    owners = [
        (module, name)
        for module in model.modules()
        for name, held in module._parameters.items()
        if held is parameter
    ]
    module, name = owners[0]
    if len(owners) > 1 or name != "bias" or not isinstance(module, _ConvNd | nn.Linear):
        return "it isn't the bias of one convolution or linear layer, which could go without"
    return module


def _remove(model: nn.Module, owner: nn.Module, bias: BiasGradient) -> _Removed:
    assert bias.running_mean is not None
    mean, parameter = model.get_buffer(bias.running_mean), owner.bias
    assert isinstance(parameter, nn.Parameter)
    was = mean.clone()
    with torch.no_grad():
        mean.copy_(mean.double() - parameter.double())
    owner.register_parameter("bias", None)
    return _Removed(owner, parameter, mean, was)
