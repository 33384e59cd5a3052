"""What stands where merged branches were: plain modules that say what they were."""

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from convscope.fold.merge.host import Weights
from convscope.fold.merge.kernel import Geometry

_CONVOLUTIONS: dict[int, Callable[..., nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class MergedBranches(nn.Sequential):
    """One convolution in place of parallel branches, between the submodules that ran before and after them.

    The submodules and the convolution keep their names.

    Attributes:
        was: the class of the module that had the branches.

    Example:
        >>> MergedBranches(OrderedDict(conv=nn.Conv2d(3, 8, 3), act=nn.ReLU()), "RepVggBlock")
        MergedBranches(
          was RepVggBlock, with its branches merged
          (conv): Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1))
          (act): ReLU()
        )
    """

    def __init__(self, parts: "OrderedDict[str, nn.Module]", was: str = "") -> None:
        super().__init__(parts)
        self.was = was

    def extra_repr(self) -> str:
        """Return what it was."""
        return f"was {self.was}, with its branches merged"


class MergedAway(nn.Module):
    """A zero that adds to any tensor, in place of a branch which another one has taken in.

    Attributes:
        was: the branch's class.
        into: the path of the convolution that took it in.

    Example:
        >>> MergedAway("BatchNorm2d", "conv")(torch.ones(1, 2, 3, 3))
        tensor(0.)
    """

    def __init__(self, was: str, into: str) -> None:
        super().__init__()
        self.was = was
        self.into = into

    def extra_repr(self) -> str:
        """Return what it was and where that went."""
        return f"was {self.was}, now in {self.into}"

    def forward(self, x: Tensor) -> Tensor:
        """Return zero, without dimensions."""
        return x.new_zeros(())


def convolution(geometry: Geometry, weights: Weights, like: Tensor) -> nn.Module:
    """Return a convolution with the weights, cast once to the dtype and device of ``like``."""
    made = _CONVOLUTIONS[len(geometry.kernel_size)](
        geometry.in_channels, geometry.out_channels, geometry.kernel_size, geometry.stride,
        geometry.padding, geometry.dilation, geometry.groups, device="meta",
    )  # fmt: skip  # on meta: no random numbers are drawn
    for name, numbers in (("weight", weights.weight), ("bias", weights.bias)):
        cast = numbers.to(device=like.device, dtype=like.dtype, copy=True)
        if name == "weight" and like.dim() == 4 and not like.is_contiguous():
            cast = cast.contiguous(memory_format=torch.channels_last)
        made.register_parameter(name, nn.Parameter(cast, requires_grad=like.requires_grad))
    return made


def nested(steps: Sequence[tuple[str, nn.Module]]) -> "OrderedDict[str, nn.Module]":
    """Return modules under their names in order, dotted names as modules within plain sequences.

    Example:
        >>> list(nested([("conv.0", nn.Identity()), ("act", nn.ReLU())]))
        ['conv', 'act']
    """
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for name, module in steps:
        head, _, rest = name.partition(".")
        if not rest:
            parts[head] = module
            continue
        inner = [(n.partition(".")[2], m) for n, m in steps if n.partition(".")[0] == head]
        parts[head] = nn.Sequential(nested(inner))
    return parts


def nests(names: Sequence[str]) -> bool:
    """Whether :func:`nested` can hold modules of these names in this order, without a clash."""
    heads = [name.partition(".")[0] for name in names]
    runs = [head for index, head in enumerate(heads) if index == 0 or heads[index - 1] != head]
    if len(set(runs)) < len(runs) or len(set(names)) < len(names) or not all(names):
        return False
    for head in set(runs):
        rest = [name.partition(".")[2] for name in names if name.partition(".")[0] == head]
        if (len(rest) > 1 and not all(rest)) or (all(rest) and not nests(rest)):
            return False
    return True
