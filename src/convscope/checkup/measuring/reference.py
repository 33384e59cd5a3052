"""The model beside the network that it was made from, or beside a checkpoint.

Layers and tensors belong together by their paths, without those of wrappers on either side.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_map

from convscope.checkup.measuring.batches import Batch
from convscope.checkup.measuring.counterpart import (
    NAMES,
    STATISTICS,
    apart,
    difference,
    family,
    is_batch_norm,
    lost,
)
from convscope.checkup.measuring.outputs import tensors_of
from convscope.checkup.measuring.wrappers import Inner, inside
from convscope.checkup.observed import ReferenceFacts, ReferenceNorm
from convscope.checkup.unchecked import Unchecked
from convscope.core.address import ROOT
from convscope.core.errors import ConvscopeError
from convscope.core.preserved import same_bits
from convscope.networks.checkpoint import checkpoint_of, read_checkpoint
from convscope.networks.weights import fitting
from convscope.norm.conversion.changing import class_of_layer
from convscope.norm.conversion.kinds import class_name
from convscope.probe import probing
from convscope.tape import device_of, require_values

_SAMPLES = 16  # that both networks are run on
_ROUNDING, _ROUNDINGS = 1e-3, 16  # at least; and in units of the coarsest dtype's ε


@dataclass(frozen=True, eq=False)
class _Reference:
    """A reference as it was read.

    Attributes:
        tensors: parameters and buffers by name, without wrappers' prefixes.
        network: without wrappers; None for a checkpoint.
    """

    tensors: Mapping[str, Tensor]
    network: nn.Module | None

    @property
    def source(self) -> Literal["network", "checkpoint"]:
        return "checkpoint" if self.network is None else "network"

    def layer(self, path: str) -> nn.Module | None:
        """The module at a path; None for a checkpoint, or if there is none."""
        try:
            return None if self.network is None else self.network.get_submodule(path)
        except AttributeError:
            return None


def reference_facts(model: nn.Module, reference: Any, batch: Batch | None) -> ReferenceFacts | None:
    """Return how a model differs from its reference; None without one.

    Args:
        model: comes back as it was, as does the reference.
        reference: a network, a state dict (also within others, as training scripts save them), or a
            checkpoint's file.
        batch: inputs for both, or None.

    Raises:
        ConvscopeError: the reference is none of these, can't be read, or has no tensor's name in common with
            the model.
    """
    if reference is None:
        return None
    ours = inside(model)
    own = _tensors_of(ours.network)
    theirs = _read(reference, own)
    common = own.keys() & theirs.tensors.keys()
    if not common:
        raise ConvscopeError(
            f"a reference with tensors such as {next(iter(theirs.tensors), 'none')!r}",
            f"names of {type(ours.network).__name__}, such as {next(iter(own), 'none: it has no tensors')!r}",
            "pass the network or checkpoint that the model was made from",
        )
    parameters = [name for name, _ in ours.network.named_parameters() if name in common]
    outputs, unchecked = _output_difference(ours.network, theirs, batch)
    other = _of_other_shapes(ours, theirs, own)
    norms = {norm.path: norm for norm in _norms(ours, theirs, own) if norm.path not in other}
    differences = {path: _layer_difference(ours, theirs, path) for path in norms}
    return ReferenceFacts(
        source=theirs.source,
        norms=norms,
        same_parameters=all(_same(own[name], theirs.tensors[name]) for name in parameters),
        missing=tuple(_missing(ours, theirs, norms)),
        output_difference=outputs,
        layer_differences={path: each for path, each in differences.items() if each is not None},
        rounding=max(_ROUNDING, _ROUNDINGS * _coarsest([*own.values(), *theirs.tensors.values()])),
        unchecked=(*unchecked, *_not_compared(other)),
    )


def _read(reference: Any, own: Mapping[str, Tensor]) -> _Reference:
    if isinstance(reference, nn.Module):
        require_values(reference)
        network = inside(reference).network
        return _Reference(_tensors_of(network), network)
    if isinstance(reference, str | Path):
        return _Reference(fitting(own, read_checkpoint(reference)), None)
    if isinstance(reference, Mapping):
        return _Reference(fitting(own, checkpoint_of(reference)), None)
    raise ConvscopeError(
        f"a reference of type {type(reference).__name__}",
        "a network, a state dict, or a checkpoint's file",
        "pass what the model was made from, or leave it out",
    )


def _tensors_of(network: nn.Module) -> dict[str, Tensor]:
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def _norms(ours: Inner, theirs: _Reference, own: Mapping[str, Tensor]) -> Iterator[ReferenceNorm]:
    """The layers that are batch norms in either, and that both have."""
    for path, layer in ours.network.named_modules():
        before = theirs.layer(path)
        lead = f"{path}." if path else ""
        tensors = {name: theirs.tensors.get(f"{lead}{name}") for name in NAMES}
        if before is None and (
            theirs.network is not None or not any(t is not None for t in tensors.values())
        ):
            continue
        if not is_batch_norm(layer) and (before is None or not is_batch_norm(before)):
            continue
        mean, variance, counter, *_ = tensors.values()
        known = {name: (own.get(f"{lead}{name}"), tensor) for name, tensor in tensors.items()}
        yield ReferenceNorm(
            path=_full(ours, path),
            kind="" if before is None else class_name(class_of_layer(before)),
            own_kind=class_name(class_of_layer(layer)),
            lost=lost(before, layer) if before is not None and is_batch_norm(before) else (),
            regrouped=family(layer) == "group",
            removed=isinstance(layer, nn.Identity),
            eps=getattr(before, "eps", None),
            same_statistics=_all_same([known[name] for name in STATISTICS]),
            same_affine=_all_same([known[name] for name in ("weight", "bias")]),
            running_mean=_wide(mean),
            running_variance=_wide(variance),
            num_batches_tracked=None if counter is None else float(counter.max()),
        )


def _of_other_shapes(ours: Inner, theirs: _Reference, own: Mapping[str, Tensor]) -> dict[str, str]:
    """Layers that the reference has with tensors of other shapes, by path, and how one of those differs."""
    found: dict[str, str] = {}
    for name, tensor in own.items():
        other = theirs.tensors.get(name)
        if other is not None and other.shape != tensor.shape:
            path, _, leaf = name.rpartition(".")
            found.setdefault(_full(ours, path), f"{leaf} {tuple(tensor.shape)}, not {tuple(other.shape)}")
    return found


def _not_compared(other: Mapping[str, str]) -> Iterator[Unchecked]:
    if other:
        path, difference = next(iter(other.items()))
        reason = f"{len(other)} couldn't be compared: their shapes differ, first {path} ({difference})"
        yield Unchecked("layers beside the reference's", reason)


def _missing(ours: Inner, theirs: _Reference, norms: Mapping[str, ReferenceNorm]) -> Iterator[str]:
    for path, layer in ours.network.named_modules():
        if theirs.network is not None or _full(ours, path) not in norms or not isinstance(layer, _BatchNorm):
            continue
        lead = f"{path}." if path else ""
        names = (f"{lead}{name}" for name in STATISTICS if getattr(layer, name) is not None)
        yield from (f"{ours.prefix}{name}" for name in names if name not in theirs.tensors)


def _layer_difference(ours: Inner, theirs: _Reference, path: str) -> float | None:
    inner = "" if path == ROOT else path.removeprefix(ours.prefix)
    before = theirs.layer(inner)
    return None if before is None else difference(before, ours.network.get_submodule(inner))


def _output_difference(
    network: nn.Module, theirs: _Reference, batch: Batch | None
) -> tuple[float | None, tuple[Unchecked, ...]]:
    if batch is None or theirs.network is None:
        return None, ()
    few = batch.first(_SAMPLES)
    try:
        before = _outputs(theirs.network, few)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return None, (Unchecked("outputs beside the reference's", f"the reference doesn't run ({reason})"),)
    found = apart(before, _outputs(network, few))
    if found is None:
        note = Unchecked("outputs beside the reference's", "its outputs are of other shapes")
        return None, (note,)
    return found, ()


def _outputs(network: nn.Module, batch: Batch) -> list[Tensor]:
    device = device_of(network)

    def there(*args: Any, **kwargs: Any) -> Any:
        moved = tree_map(lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf, (args, kwargs))
        return network(*moved[0], **moved[1])

    with probing(network), torch.no_grad():
        return [out.detach().clone() for out in tensors_of(batch.run(there))]


def _full(ours: Inner, path: str) -> str:
    return f"{ours.prefix}{path}".removesuffix(".") or ROOT


def _all_same(pairs: list[tuple[Tensor | None, Tensor | None]]) -> bool | None:
    """Whether all pairs of tensors hold the same bits; None if one has no partner."""
    if any(mine is None or other is None for mine, other in pairs):
        return None
    return all(_same(mine, other) for mine, other in pairs if mine is not None and other is not None)


def _same(mine: Tensor, other: Tensor) -> bool:
    return same_bits(mine.detach().cpu(), other.detach().cpu())


def _wide(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach().double().cpu().clone()


def _coarsest(tensors: list[Tensor]) -> float:
    return max((torch.finfo(t.dtype).eps for t in tensors if t.is_floating_point()), default=0.0)
