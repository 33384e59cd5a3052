"""Folds carried out on a network: new weights in the layers, identities in the batch norms' places."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from convscope.fold.identity import FoldedBatchNorm, FoldedBatchNormAct
from convscope.fold.layer import Layer, new_weights
from convscope.fold.plan import Fold


def apply(model: nn.Module, folds: Iterable[Fold]) -> None:
    """Fold batch norms of ``model`` in place; it is a copy of the network that the folds were planned for.

    The copy may have another dtype: all numbers are read from it. They are computed in float64 and cast once.
    """
    folds = tuple(folds)
    replaced: dict[str, list[Fold]] = {}
    for fold in folds:
        scale = fold.affine.scale_in(model)
        shift = fold.affine.shift_in(model, fold.layer.bias_in(model))
        _put(model, fold.layer, *new_weights(fold.layer, scale, shift, model))
        replaced.setdefault(fold.shell.path, []).append(fold)
    for path, group in replaced.items():
        _replace(model, model.get_submodule(path), group)


def _put(model: nn.Module, layer: Layer, weight: Tensor, bias: Tensor) -> None:
    held = layer.weight.tensor_in(model)
    with torch.no_grad():
        held.copy_(weight)
        if layer.has_bias:
            layer.bias.tensor_in(model).copy_(bias)
            return
    parameter = nn.Parameter(bias.contiguous(), requires_grad=held.requires_grad)
    layer.bias.module_in(model).register_parameter(layer.bias.attribute, parameter)


def _replace(model: nn.Module, batch_norm: nn.Module, folds: list[Fold]) -> None:
    """Put an identity in all the places where a module is registered."""
    into = tuple(dict.fromkeys(fold.layer.address for fold in folds))
    parts = {name: batch_norm.get_submodule(name) for name in folds[0].shell.parts}
    was = f"{type(batch_norm).__name__}({batch_norm.extra_repr()})"
    identity = FoldedBatchNormAct(was, into, parts) if parts else FoldedBatchNorm(was, into)
    identity.train(batch_norm.training)
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child is batch_norm:
                parent._modules[name] = identity
