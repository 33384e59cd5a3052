"""What is wrapped around a network, or hung into it: averages of weights, gradients of single samples.

Libraries are told by the names of their classes and attributes, so that none is imported for it.
"""

from typing import NamedTuple

from torch import nn

# Classes whose weights are averages of another network's, by the start of their module's name.
_AVERAGES = {
    "torch.optim.swa_utils": ("AveragedModel",),
    "timm.utils.model_ema": ("ModelEmaV2", "ModelEmaV3"),
    "ema_pytorch": ("EMA", "KarrasEMA", "PostHocEMA"),
}
# Wrappers hold the network as their only child, by one of these names, and have no tensors that it uses.
_INNER = ("module", "_orig_mod", "_module", "ema_model")
_OPACUS = ("GradSampleModule", "GradSampleModuleExpandedWeights", "GradSampleModuleNoOp")


class Inner(NamedTuple):
    """The network inside its wrappers.

    Attributes:
        network: the module.
        prefix: what leads its modules' paths in the wrapped model, such as ``"module."``; empty without
            wrappers.
    """

    network: nn.Module
    prefix: str


def inside(model: nn.Module) -> Inner:
    """Return the network inside wrappers such as ``DistributedDataParallel`` and ``AveragedModel``.

    Example:
        >>> from torch.optim.swa_utils import AveragedModel
        >>> inside(AveragedModel(nn.Linear(2, 1)))
        Inner(network=Linear(in_features=2, out_features=1, bias=True), prefix='module.')
    """
    prefix = ""
    while True:
        children = dict(model.named_children())
        name = next(iter(children), "")
        if (
            len(children) != 1
            or name not in _INNER
            or next(model.parameters(recurse=False), None) is not None
        ):
            return Inner(model, prefix)
        model, prefix = children[name], f"{prefix}{name}."


def averaging_wrapper(model: nn.Module) -> str:
    """Return the class of the wrapper that averages weights, if the model is one; empty if not.

    Example:
        >>> from torch.optim.swa_utils import AveragedModel
        >>> averaging_wrapper(AveragedModel(nn.Linear(2, 1))), averaging_wrapper(nn.Linear(2, 1))
        ('AveragedModel', '')
    """
    for base in type(model).__mro__:
        for room, names in _AVERAGES.items():
            if base.__name__ in names and base.__module__.startswith(room):
                return type(model).__name__
    return ""


def per_sample_gradients(model: nn.Module) -> str:
    """Return what asks for gradients of single samples of this model; empty if nothing does.

    Told from Opacus' wrapper or the attribute ``grad_sample`` that it gives to parameters, and from the
    mark that BackPACK's ``extend`` leaves on modules.
    """
    for module in model.modules():
        if any(base.__name__ in _OPACUS for base in type(module).__mro__):
            return f"Opacus' {type(module).__name__}"
        if getattr(module, "_backpack_extend", False):
            return "BackPACK's extend"
    if any(hasattr(parameter, "grad_sample") for parameter in model.parameters()):
        return "parameters with grad_sample, as of Opacus"
    return ""
