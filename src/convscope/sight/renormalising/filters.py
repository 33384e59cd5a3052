"""What a filter is, and its RMS: the numbers that make one output channel of a convolution.

==============================  ===========================  ===================================
convolution                      weight                       filter of output channel o
==============================  ===========================  ===================================
ordinary, grouped, depthwise     (o, i / groups, *kernel)     weight[o]
transposed                       (i, o / groups, *kernel)     the inputs of o's group: of axis 0
                                                              a group, of axis 1 one place
==============================  ===========================  ===================================

Under weight normalisation, w = g · v / ‖v‖, a filter's norm is |g|, and g is what is scaled.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod, sqrt
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

from convscope.core.errors import ConvscopeError


@dataclass(frozen=True)
class FilterBank:
    """One weight and the filters in it.

    Attributes:
        names: paths of the modules that use it.
        tensor: what is scaled: the weight, or weight normalisation's magnitudes.
        groups: of a transposed convolution; 0 where the first axis counts the filters.
        size: numbers in a filter.
        holds_norms: the tensor holds the filters' norms in place of the filters.
    """

    names: tuple[str, ...]
    tensor: Tensor
    groups: int
    size: int
    holds_norms: bool

    @property
    def num_filters(self) -> int:
        """Filters in the weight."""
        return self.tensor.shape[1] * self.groups if self.groups else self.tensor.shape[0]

    @property
    def tolerance(self) -> float:
        """How far rounding to the weight's dtype can move an RMS, relative to it."""
        return 4 * torch.finfo(self.tensor.dtype).eps

    def rms(self) -> Float[Tensor, " f"]:
        """Return each filter's RMS in float32, or in float64 for such weights; NaN stays NaN."""
        filters: Tensor = self._in_rows().to(torch.promote_types(self.tensor.dtype, torch.float32))
        if self.holds_norms:
            return filters.flatten().abs() / sqrt(self.size)
        largest = filters.abs().amax(1, keepdim=True)  # squares of large weights would overflow
        scaled = filters / torch.where(largest > 0, largest, 1)
        return scaled.square().mean(1).sqrt() * largest.flatten()

    def scale(self, factors: Float[Tensor, " f"]) -> None:
        """Multiply each filter by a factor, in place; a factor of 1 leaves its bits as they are."""
        if self.groups:
            shape = (self.groups, 1, -1, *[1] * (self.tensor.dim() - 2))
            self._by_group().mul_(factors.view(shape))
        else:
            self.tensor.mul_(factors.view(-1, *[1] * (self.tensor.dim() - 1)))

    def _in_rows(self) -> Float[Tensor, "f size"]:
        if not self.groups:
            return self.tensor.flatten(1)
        return self._by_group().transpose(1, 2).flatten(0, 1).flatten(1)

    def _by_group(self) -> Float[Tensor, "g i o *k"]:
        return self.tensor.view(self.groups, -1, *self.tensor.shape[1:])


def filter_banks(model: nn.Module, layers: str | list[str] | tuple[str, ...]) -> tuple[FilterBank, ...]:
    """Return the filters of some of a network's convolutions, a shared weight once.

    Args:
        model: the network itself, without a wrapper.
        layers: ``"all"`` convolutions, the ``"first"`` that was registered as a module, or paths.

    Raises:
        ConvscopeError: no convolution; a path that isn't one's; a weight that is computed from others
            otherwise than by weight normalisation per filter, sharded, or shared by modules whose filters
            lie along other axes.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 5), nn.ConvTranspose2d(8, 6, 3, groups=2))
        >>> [(bank.names, bank.num_filters, bank.size) for bank in filter_banks(net, "all")]
        [(('0',), 8, 75), (('1',), 6, 36)]
    """
    found: dict[int, FilterBank] = {}
    for name, module in _chosen(model, layers):
        bank = _bank(name, module)
        known = found.get(id(bank.tensor))
        if known is None:
            found[id(bank.tensor)] = bank
        elif (known.groups, known.size, known.holds_norms) != (bank.groups, bank.size, bank.holds_norms):
            raise ConvscopeError(
                f"layers {known.names[0]} and {name}, which share one weight with other filters in each",
                "a weight whose filters are the same in all layers",
                "name layers without them",
            )
        else:
            found[id(bank.tensor)] = replace(known, names=(*known.names, name))
    return tuple(found.values())


def _chosen(model: nn.Module, layers: str | list[str] | tuple[str, ...]) -> Iterator[tuple[str, _ConvNd]]:
    found = {name or "self": each for name, each in model.named_modules() if isinstance(each, _ConvNd)}
    if not found:
        raise ConvscopeError(
            "a network without convolution modules", "at least one", "filters of bare functions aren't seen"
        )
    wanted = list(found) if layers == "all" else list(found)[:1] if layers == "first" else layers
    wanted = [wanted] if isinstance(wanted, str) else wanted
    if not isinstance(wanted, list | tuple) or not wanted:
        raise ConvscopeError(
            f"layers={layers!r}", "'all', 'first', or paths of convolutions", "name at least one"
        )
    for name in wanted:
        if name not in found:
            raise ConvscopeError(
                f"layer {name!r} to renormalise",
                f"a convolution of this network: {', '.join(list(found)[:5])}"
                + (f" and {len(found) - 5} more" if len(found) > 5 else ""),
                "choose among them, or layers='all' or 'first'",
            )
        yield name, found[name]


def _bank(name: str, module: _ConvNd) -> FilterBank:
    groups = module.groups if module.transposed else 0
    size = (module.in_channels // module.groups) * prod(module.kernel_size)
    magnitudes = _magnitudes(module)
    if magnitudes is not None:
        one_each = [1] * (len(module.kernel_size) + 2)
        one_each[1 if module.transposed else 0] = module.out_channels
        if list(magnitudes.shape) != one_each:
            raise _computed(name, "weight normalisation with other than one magnitude per filter")
        return FilterBank((name,), magnitudes, 1 if module.transposed else 0, size, holds_norms=True)
    weight = module._parameters.get("weight")
    if weight is None:
        raise _computed(name, "another parametrisation")
    if weight.dim() != len(module.kernel_size) + 2 or type(weight) is not nn.Parameter:
        raise ConvscopeError(
            f"the weight of {name}, a {type(weight).__name__} of shape {tuple(weight.shape)}",
            "a whole, dense parameter on each process",
            "renormalise before sharding (FSDP), or not at all",
        )
    return FilterBank((name,), weight, groups, size, holds_norms=False)


def _magnitudes(module: _ConvNd) -> Tensor | None:
    """Weight normalisation's g, of PyTorch's newer or older kind; None where there is no such."""
    if parametrize.is_parametrized(module, "weight"):
        steps: Any = module.parametrizations["weight"]  # type: ignore[index]
        is_known = len(steps) == 1 and type(steps[0]).__name__ == "_WeightNorm"
        magnitudes: Tensor | None = steps.original0 if is_known else None
        return magnitudes
    parameters = module._parameters
    return parameters.get("weight_g") if {"weight_g", "weight_v"} <= set(parameters) else None


def _computed(name: str, how: str) -> ConvscopeError:
    return ConvscopeError(
        f"the weight of {name}, which is computed from other tensors ({how})",
        "a parameter, or weight normalisation with one magnitude per filter",
        "leave this layer out: name the others in layers",
    )
