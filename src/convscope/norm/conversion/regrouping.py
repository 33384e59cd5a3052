"""Group norm in the place of batch norm: γ and β fitted again, new ones where there were none.

The change of class is the same as for other kinds; this is what comes with it. γ and β stay the very
parameters that they were and get other values, so that the optimizer's references and state stay valid.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from convscope.norm.conversion.changing import change_to
from convscope.norm.conversion.planning import Decision
from convscope.norm.group_fit.fit import GroupFit, fit_groups

_AFFINE = ("weight", "bias")


def fitted(
    model: nn.Module, decisions: Sequence[Decision], data: Any, num_groups: int | None
) -> Mapping[str, GroupFit]:
    """Return γ and β for the layers that are to become group norm, by path; nothing without data."""
    paths = [each.entry.path for each in decisions if each.change is not None]
    return fit_groups(model, paths, data, num_groups) if data is not None and paths else {}


def settled(decision: Decision, fit: GroupFit | None) -> Decision:
    """Return a decision with the number of groups of a fit, or refused if none was possible."""
    if fit is None or decision.change is None:
        return decision
    if fit.refused is not None:
        entry = replace(
            decision.entry, status="refused", reason=fit.refused, after=decision.entry.before, num_groups=None
        )
        return Decision(entry, decision.layer)
    entry = replace(decision.entry, residual=fit.residual, num_groups=fit.num_groups)
    change = change_to(decision.layer, decision.change.new_class, num_groups=fit.num_groups)
    return Decision(entry, decision.layer, change)


class Regrouping:
    """What comes with the change to group norm, to be made after it, and undone.

    Args:
        model: the network.
        decisions: about its layers, settled.
        fits: γ and β, by the layer's path.
        optimizer: gets new parameters.

    Attributes:
        new_parameters: paths of the parameters that were added.
    """

    def __init__(
        self,
        model: nn.Module,
        decisions: Sequence[Decision],
        fits: Mapping[str, GroupFit],
        optimizer: torch.optim.Optimizer | None,
    ) -> None:
        self._model, self._optimizer = model, optimizer
        self._layers = {
            each.entry.path: each.layer for each in decisions if each.entry.num_groups is not None
        }
        self._fits = {path: fit for path, fit in fits.items() if path in self._layers}
        own = [p for path in self._fits for p in self._layers[path].parameters(recurse=False)]
        self._values = [(parameter, parameter.detach().clone()) for parameter in own]
        self._where = {path: _where(self._layers[path]) for path in self._fits}
        groups = [] if optimizer is None else optimizer.param_groups
        self._members = [(group, list(group["params"])) for group in groups]
        self.new_parameters: tuple[str, ...] = ()

    @torch.no_grad()
    def make(self) -> None:
        """Give γ and β their values, and add those that are missing, to the optimizer too."""
        added: dict[str, nn.Parameter] = {}
        for path, fit in self._fits.items():
            layer: Any = self._layers[path]
            layer.affine = True
            for name, value in zip(_AFFINE, (fit.weight, fit.bias), strict=True):
                parameter = getattr(layer, name)
                if parameter is not None:
                    parameter.copy_(value)
                    continue
                added[f"{path}.{name}".lstrip(".")] = made = nn.Parameter(value.to(*self._where[path]))
                setattr(layer, name, made)
        if added and self._optimizer is not None:
            self._main_group()["params"].extend(added.values())
        self.new_parameters = tuple(added)

    @torch.no_grad()
    def undo(self) -> None:
        """Take the values and the optimizer's groups back; the layers' own undo removes what was added."""
        for parameter, value in self._values:
            parameter.copy_(value)
        for group, members in self._members:
            group["params"][:] = members

    @property
    def notes(self) -> Iterator[str]:
        """What the user is to know or do."""
        if not self._layers:
            return
        if not self._fits:
            yield "γ and β are those of batch norm: train the network again, or give data to fit them on"
        elif self._optimizer is not None and self._values:
            yield "the optimizer's state (momentum) of γ and β stays, from before they were fitted"
        if self.new_parameters and self._optimizer is None:
            yield "new parameters are in no optimizer: add them with optimizer.add_param_group"

    def _main_group(self) -> dict[str, Any]:
        """The parameter group that holds most of the network's parameters."""
        assert self._optimizer is not None
        own = {id(parameter) for parameter in self._model.parameters()}
        groups: list[dict[str, Any]] = self._optimizer.param_groups
        return max(groups, key=lambda group: sum(id(each) in own for each in group["params"]))


def _where(layer: nn.Module) -> tuple[torch.device, torch.dtype]:
    """The device and dtype that a layer's parameters have, or would have."""
    tensors = (*layer.parameters(), *layer.buffers())
    tensor = next((each for each in tensors if each.is_floating_point()), torch.empty(0))
    return tensor.device, tensor.dtype
