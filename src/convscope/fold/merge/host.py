"""The convolution that takes the place of several: which of them lends its kernel, and its new weights."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from convscope.fold.merge.constants import Run
from convscope.fold.merge.kernel import Geometry, embedded, misfit, pointwise
from convscope.fold.merge.terms import Node, expanded
from convscope.fold.recorded.flow import Stays
from convscope.fold.recorded.slots import Slot
from convscope.tape import OperatorCall


@dataclass(frozen=True)
class Host:
    """A convolution among the leaves of a tree, whose kernel the others lie in.

    Attributes:
        leaf: it.
        geometry: what it reads.
        module: the module that holds its weights.
        dtype: of its weights.
    """

    leaf: Node
    geometry: Geometry
    module: nn.Module
    dtype: torch.dtype

    @property
    def call(self) -> OperatorCall:
        """Its recorded operator call."""
        assert self.leaf.call is not None
        return self.leaf.call

    def name_within(self, module: nn.Module) -> str:
        """Return the path, within a module, of the one that holds its weights; ``""`` if that isn't there."""
        held = self.module
        return "" if held is module else name_within(module, held)


@dataclass(frozen=True)
class Weights:
    """A merged convolution's numbers, float64.

    Attributes:
        weight: (C_out, C_in / g, …).
        bias: (C_out,).
    """

    weight: Tensor
    bias: Tensor


def host_of(run: Run, leaves: Sequence[Node]) -> Host:
    """Return the convolution whose kernel most of the leaves lie in; of several, the largest.

    Raises:
        Stays: there is no convolution among them.
    """
    shapes = [geometry_of(run, leaf) for leaf in leaves]
    pairs = reversed(list(zip(leaves, shapes, strict=True)))
    convolutions = {shape: leaf for leaf, shape in pairs if leaf.is_convolution}
    if not convolutions:
        raise Stays("none of the branches that read the same value is a convolution")

    def worth(host: Geometry) -> tuple[int, int, int]:
        fitting = sum(not misfit(shape, host) for shape in shapes)
        leaf = convolutions[host]
        assert leaf.call is not None
        return fitting, math.prod(host.weight_shape[1:]), -leaf.call.index

    best = max(convolutions, key=worth)
    slot = _slot(run, convolutions[best])
    return Host(convolutions[best], best, slot.module_in(run.model), slot.tensor_in(run.model).dtype)


def geometry_of(run: Run, leaf: Node) -> Geometry:
    """Return what a leaf reads, as a convolution; a value as it is is a depthwise 1×1 convolution."""
    if leaf.layer is not None:
        return leaf.layer.geometry
    shape = run.tape.values[leaf.value].shape
    return pointwise(shape[1], len(shape) - 2)


def why_not_in(run: Run, leaves: Iterable[Node], host: Host) -> str:
    """Return why one of the leaves' kernels doesn't lie in the host's, or ``""``."""
    for leaf in leaves:
        reason = misfit(geometry_of(run, leaf), host.geometry)
        if reason:
            return f"{reason}, that of {host.call.address}"
    return ""


def merged_weights(run: Run, parts: Iterable[tuple[Node, Tensor]], host: Host) -> Weights:
    """Return the weights of the convolution that computes a sum: Σ scale · kernel, Σ shifts.

    Args:
        run: the recorded run.
        parts: trees, and what each is multiplied by per channel (float64).
        host: whose geometry it gets.

    Raises:
        Stays: they don't fit into the dtype of the host's weights.
    """
    geometry = host.geometry
    weight = torch.zeros(geometry.weight_shape, dtype=torch.float64)
    bias = torch.zeros(geometry.out_channels, dtype=torch.float64)
    ones = (1,) * (weight.dim() - 1)
    for tree, scale in parts:
        terms, shift = expanded(tree, geometry.out_channels, scale)
        bias += shift
        for term in terms:
            shape, layer = geometry_of(run, term.leaf), term.leaf.layer
            own = torch.ones(shape.weight_shape, dtype=torch.float64) if layer is None else layer.weight()
            weight += embedded(own * term.scale.view(-1, *ones), shape, geometry)
    _require_finite(weight, bias, host)
    return Weights(weight, bias)


def name_within(module: nn.Module, held: nn.Module) -> str:
    """Return the path of a module within another one, or ``""`` if it isn't there."""
    found = module.named_modules(remove_duplicate=False)
    return next((name for name, part in found if part is held), "")


def _slot(run: Run, leaf: Node) -> Slot:
    assert leaf.layer is not None
    assert leaf.layer.held is not None
    assert leaf.call is not None
    slots = run.slots_of(leaf.layer.held)
    return next((slot for slot in slots if slot.path == leaf.call.address.path), slots[0])


def _require_finite(weight: Tensor, bias: Tensor, host: Host) -> None:
    for tensor, what in ((weight, "weights"), (bias, "biases")):
        if not tensor.to(host.dtype).isfinite().all():
            name = str(host.dtype).removeprefix("torch.")
            raise Stays(f"the merged {what} of {host.call.address} don't fit into {name}")
