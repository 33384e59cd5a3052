"""What is known of a network's batch norms without running them: modules, modes, optimizer groups."""

from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm

from convscope.checkup.measuring.wrappers import inside
from convscope.checkup.observed import NormCall, OptimizerFacts
from convscope.core.address import ROOT, Address
from convscope.core.errors import ConvscopeError
from convscope.norm.conversion.kinds import class_name
from convscope.norm.freezing.frozen import FrozenNorm
from convscope.norm.momentum import declared_updates

_DROPS = (_DropoutNd, nn.RReLU)  # without parameters, and not the same in training

# Settings of an optimizer's groups that only one with a memory of past steps has; 0 switches that off.
_REMEMBER = ("betas", "momentum", "alpha", "rho", "etas", "lambd", "lr_decay", "history_size")


class Roster:
    """The modules of a model by path, and its parameters' names, as they were given.

    Raises:
        ConvscopeError: a batch norm's momentum is no number, or its statistics are of other channels.

    Attributes:
        training: whether the model was given in training mode; a wrapper that is new, around a network in
            evaluation mode, doesn't count.
        norms: its batch norm modules by path.
    """

    def __init__(self, model: nn.Module) -> None:
        self.training = _is_in_training(model)
        self.modules = {path or ROOT: module for path, module in model.named_modules()}
        self.norms = {p: m for p, m in self.modules.items() if isinstance(m, _BatchNorm)}
        for path, norm in self.norms.items():
            _require_sound(path, norm)
        self.names = {id(parameter): name for name, parameter in model.named_parameters()}
        self._memory = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        self._modes = {path: module.training for path, module in self.modules.items()}

    def is_instance_norm(self, path: str) -> bool:
        """Return whether a path is an instance norm's, which runs the same operator."""
        return isinstance(self.modules.get(path), _InstanceNorm)

    def holds(self, tensor: Tensor) -> bool:
        """Return whether a tensor lies in the memory of one of the model's parameters, as a view does."""
        return tensor.untyped_storage().data_ptr() in self._memory

    def is_frozen(self, path: str) -> bool:
        """Return whether a batch norm module keeps to its running statistics while the model trains.

        In a model given in evaluation mode nobody can tell what its modules do in training: none is frozen,
        but those of :func:`convscope.norm.freeze`, which stay so.
        """
        module = self.norms[path]
        by_mode = self.training and not self._modes[path]
        return module.running_mean is not None and (by_mode or isinstance(module, FrozenNorm))

    def from_module(self, path: str) -> NormCall:
        """Describe a batch norm module that wasn't run."""
        module = self.norms[path]
        return self.describe(
            Address(path), None, module.num_features, module.eps, module.momentum,
            (module.weight, module.bias, module.running_mean, module.running_var),
        )  # fmt: skip

    def describe(
        self,
        address: Address,
        operator: str | None,
        channels: int,
        eps: float,
        momentum: float | None,
        tensors: tuple[Tensor | None, ...],
    ) -> NormCall:
        """Describe a batch norm call by its operands: gamma, beta, running mean and running variance."""
        gamma, beta, running_mean, running_variance = tensors
        path = address.path
        module = self.norms.get(path)
        counter = None if module is None else module.num_batches_tracked
        affine = [t for t in (gamma, beta) if t is not None]
        parameters = [t for t in affine if id(t) in self.names]
        return NormCall(
            address=str(address.module) if module is not None else operator or str(address),
            path=path,
            operator=operator,
            channels=channels,
            eps=eps,
            momentum=momentum if module is None else module.momentum,
            num_batches_tracked=None if counter is None else int(counter),
            gamma=_copied(gamma),
            beta=_copied(beta),
            running_mean=_copied(running_mean),
            running_variance=_copied(running_variance),
            statistics_dtype=None if running_variance is None else running_variance.dtype,
            frozen=module is not None and self.is_frozen(path),
            tracks=None if module is None else bool(module.track_running_stats),
            training=None if module is None else self._modes[path],
            affine_names=tuple(self.names[id(t)] for t in parameters),
            trains=any(t.requires_grad for t in parameters) if parameters else None,
            kind="" if module is None else class_name(type(module)),
            counter_dtype=None if counter is None else counter.dtype,
            updates_per_step=1 if module is None else declared_updates(module),
        )


def _require_sound(path: str, norm: _BatchNorm) -> None:
    if norm.momentum is not None and not isinstance(norm.momentum, Real | Tensor):
        raise ConvscopeError(
            f"momentum={norm.momentum!r} in {path}", "a number from 0 to 1, or None", "set it, say to 0.1"
        )
    for name in ("running_mean", "running_var"):
        held = getattr(norm, name)
        if held is not None and not nn.parameter.is_lazy(held) and held.shape != (norm.num_features,):
            raise ConvscopeError(
                f"{path}.{name} of shape {tuple(held.shape)} for {norm.num_features} channels",
                "one value a channel",
                "load the right checkpoint, or call reset_running_stats() on a new layer",
            )


def optimizer_facts(model: nn.Module, optimizer: Any) -> OptimizerFacts | None:
    """Return what the optimizer holds; None if there is none.

    Raises:
        ConvscopeError: it isn't an optimizer.
    """
    if optimizer is None:
        return None
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ConvscopeError(
            f"optimizer of type {type(optimizer).__name__}", "a torch.optim.Optimizer", "pass one, or none"
        )
    while isinstance(inner := getattr(optimizer, "optimizer", None), torch.optim.Optimizer):
        optimizer = inner  # accelerate's and others' wrappers
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decay: dict[str, float] = {}
    num_foreign = 0
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if id(parameter) in names:
                decay[names[id(parameter)]] = float(group.get("weight_decay", 0.0))
            else:
                num_foreign += 1
    trainable = (name for name, parameter in model.named_parameters() if parameter.requires_grad)
    missing = tuple(name for name in trainable if name not in decay)
    return OptimizerFacts(decay, num_foreign, missing, type(optimizer).__name__, _has_stepped(optimizer))


def _is_in_training(model: nn.Module) -> bool:
    """Whether a model was given in training mode: by its root, or by what shows that it trains.

    A wrapper is made in training mode, whatever the mode of the network inside. So where no batch norm
    trains, the root's word counts only if something trains that has parameters, or drops values.
    """
    network = inside(model).network
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    if not network.training or not norms or any(norm.training for norm in norms):
        return network.training
    leaves = (module for module in network.modules() if next(module.children(), None) is None)
    return any(leaf.training and (isinstance(leaf, _DROPS) or _has_parameters(leaf)) for leaf in leaves)


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _has_stepped(optimizer: torch.optim.Optimizer) -> bool | None:
    """Whether an optimizer remembers a step; None for one without a memory, or of which that isn't known."""
    states = [state for state in optimizer.state.values() if state]
    counts = [state["step"] for state in states if "step" in state]
    if counts:  # some, such as Adagrad, make their state before the first step
        return any(float(count) > 0 for count in counts)
    if states:
        return True
    remembers = any(group.get(name) for group in optimizer.param_groups for name in _REMEMBER)
    return False if remembers else None


def _copied(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach().double().cpu().clone()
