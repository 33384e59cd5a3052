"""Does a network, or one layer, say the same before and after a change? Both are run, nothing moves.

Whole networks run on the user's inputs, in both modes; single layers on a random batch, in evaluation mode.
All runs are seeded alike, so that dropout draws the same numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from convscope.core.address import ROOT
from convscope.core.errors import ConvscopeError
from convscope.core.preserved import preserved, same_bits
from convscope.norm.conversion.result import Difference, Mode
from convscope.probe import probing
from convscope.tape import require_values

_SHAPES = {1: (3,), 2: (3, 2), 3: (3, 2, 2), None: (3, 2)}
_BATCH = 4
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class Witness:
    """Has seen a network on its inputs before a change, and says how far it is from that after.

    Args:
        model: the network.
        inputs: a tensor, a tuple or dict of tensors, or a shape, which stands for random numbers; None: it
            sees nothing.
        in_training: whether to run it in training mode too.

    Attributes:
        shapes: of the results of every module call in evaluation mode, by the module's path; None without
            inputs.
        notes: what it couldn't see.

    Raises:
        ConvscopeError: the inputs are none of these, or the network doesn't run on them.
    """

    def __init__(self, model: nn.Module, inputs: Any, *, in_training: bool) -> None:
        self._model, self._inputs = model, inputs
        self._before: dict[Mode, _Run] = {}
        self.shapes: Mapping[str, list[tuple[int, ...]]] | None = None
        self.notes: list[str] = []
        if inputs is None:
            return
        require_values(model)
        self._before["evaluation"] = self._run("evaluation")
        self.shapes = self._before["evaluation"].shapes
        if not in_training:
            self.notes.append(
                "training mode wasn't compared: in it, layers exchange statistics between processes"
            )
            return
        try:
            self._before["training"] = self._run("training")
        except ConvscopeError as error:
            self.notes.append(f"training mode wasn't compared: {error.given}")

    def differences(self, *, statistics: bool) -> tuple[Difference, ...]:
        """Run the network again and compare.

        Args:
            statistics: whether the running statistics after a training pass are compared too.

        Raises:
            ConvscopeError: the network doesn't run any more.
        """
        found = []
        for mode, before in self._before.items():
            after = self._run(mode)
            found.append(difference(mode, "outputs", before.outputs, after.outputs))
            if mode == "training" and statistics:
                found.append(difference(mode, "running statistics", before.statistics, after.statistics))
        return tuple(found)

    def _run(self, mode: Mode) -> "_Run":
        try:
            return _run(self._model, self._inputs, mode)
        except ConvscopeError:
            raise
        except Exception as error:
            raise ConvscopeError(
                f"the network doesn't run on the inputs in {mode} mode ({first_line(error)})",
                "inputs that it takes",
                "check their shape",
            ) from error


@dataclass(frozen=True, eq=False)
class _Run:
    """What one pass of a network left.

    Attributes:
        outputs: the tensors in what it returned.
        statistics: its running means, variances and counts after the pass, each in one tensor.
        shapes: of the results of every module call, by the module's path.
    """

    outputs: list[Tensor]
    statistics: list[Tensor]
    shapes: Mapping[str, list[tuple[int, ...]]]


def _run(model: nn.Module, inputs: Any, mode: Mode) -> _Run:
    """Run a network once, after which it is as it was."""
    args, kwargs = arguments(model, inputs)
    shapes: dict[str, list[tuple[int, ...]]] = {}

    def note(address: Any, result: Any) -> None:
        if isinstance(result, Tensor):
            path = "" if address.path == ROOT else address.path
            shapes.setdefault(path, []).append(tuple(result.shape))

    with probing(model, training=mode == "training") as probe, torch.no_grad():
        probe.at_module("*", note)
        torch.manual_seed(0)
        outputs = [tensor.detach().clone() for tensor in _tensors(model(*args, **kwargs))]
        statistics = _statistics(model)
    return _Run(outputs, statistics, shapes)


def _statistics(model: nn.Module) -> list[Tensor]:
    """All running means, all variances, all counts: a mean near zero is small beside the others."""
    named = [(name.rpartition(".")[2], buffer) for name, buffer in model.named_buffers()]
    return [
        torch.cat([buffer.flatten().to("cpu", torch.float64) for name, buffer in named if name == each])
        for each in _STATISTICS
        if any(name == each for name, _ in named)
    ]


def arguments(model: nn.Module, inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return what to call a network with: copies on its device; random numbers, always the same, for shapes.

    Raises:
        ConvscopeError: the inputs are no tensor, tuple or dict of tensors, or shape.
    """
    tensors = [*model.parameters(), *model.buffers()]
    device = next((tensor.device for tensor in tensors), torch.device("cpu"))
    dtype = next(
        (tensor.dtype for tensor in tensors if tensor.is_floating_point()), torch.get_default_dtype()
    )
    generator = torch.Generator().manual_seed(0)

    def made(item: Any) -> Any:
        if _is_shape(item):
            return torch.randn(item, generator=generator).to(device, dtype)
        return tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, item)

    if isinstance(inputs, Mapping):
        return (), {str(name): made(item) for name, item in inputs.items()}
    if isinstance(inputs, Tensor) or _is_shape(inputs):
        return (made(inputs),), {}
    if isinstance(inputs, tuple | list) and inputs:
        return tuple(map(made, inputs)), {}
    raise ConvscopeError(
        f"inputs of type {type(inputs).__name__}",
        "a tensor, a tuple or dict of tensors, or a shape such as (2, 3, 224, 224)",
        "pass one of these",
    )


def output_of(layer: nn.Module, x: Tensor) -> Tensor:
    """Return a layer's output in evaluation mode, past its hooks; the layer stays as it is."""
    with preserved(layer), torch.no_grad():
        for module in layer.modules():
            module.__dict__["training"] = False
        torch.manual_seed(0)
        output: Tensor = layer.forward(x.clone())
        return output.detach().clone()


def random_batch(layer: Any, rank: int | None) -> Tensor:
    """Return a batch of standard normal numbers for a layer of a rank, always the same."""
    tensors = [t for t in (*layer._parameters.values(), *layer._buffers.values()) if t is not None]
    dtype = next((t.dtype for t in tensors if t.is_floating_point()), torch.get_default_dtype())
    device = next((t.device for t in tensors), torch.device("cpu"))
    if hasattr(layer, "normalized_shape"):
        shape = (_BATCH, *layer.normalized_shape)
    else:
        channels = layer.num_channels if hasattr(layer, "num_channels") else layer.num_features
        shape = (_BATCH, channels, *_SHAPES[rank])
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device, dtype)


def difference(mode: Mode, what: str, before: Sequence[Tensor], after: Sequence[Tensor]) -> Difference:
    """Return how far tensors are from those before; infinite where shapes or the places of NaN differ."""
    if [tensor.shape for tensor in before] != [tensor.shape for tensor in after]:
        return Difference(mode, what, float("inf"), float("inf"), False)
    pairs = list(zip(before, after, strict=True))
    return Difference(
        mode,
        what,
        max((_apart(y0, y) for y0, y in pairs), default=0.0),
        max((relative(y0, y) for y0, y in pairs), default=0.0),
        all(same_bits(y0, y) for y0, y in pairs),
    )


def relative(before: Tensor, after: Tensor) -> float:
    """Return max|y − y₀| / max|y₀|, over the finite y₀."""
    size = (
        before.double().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).abs().max().item()
        if before.numel()
        else 0
    )
    return _apart(before, after) / (size or 1.0)


def _apart(before: Tensor, after: Tensor) -> float:
    same = (before == after) | (before.isnan() & after.isnan())
    apart = torch.where(same, 0.0, (after.double() - before.double()).abs())
    return apart.nan_to_num(nan=float("inf")).max().item() if apart.numel() else 0.0


def _tensors(outputs: Any) -> list[Tensor]:
    """All tensors in a network's outputs; complex ones as pairs of numbers."""
    leaves: list[Any] = []
    for leaf in tree_leaves(outputs):
        leaves += (
            tree_leaves(vars(leaf)) if hasattr(leaf, "__dict__") and not isinstance(leaf, Tensor) else [leaf]
        )
    found = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    return [torch.view_as_real(tensor) if tensor.is_complex() else tensor for tensor in found]


def _is_shape(item: Any) -> bool:
    return isinstance(item, tuple) and bool(item) and all(type(size) is int for size in item)


def first_line(error: Exception) -> str:
    """Return the first line of an exception's text, or its class's name if it has none."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
