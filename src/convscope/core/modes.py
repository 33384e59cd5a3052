"""Evaluation or training mode, for all modules of a network; exported programs have neither."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from convscope.core.errors import ConvscopeError


def has_modes(model: nn.Module) -> bool:
    """Return whether a network can be put into a mode; ``torch.export`` gives programs methods that refuse.

    Example:
        >>> has_modes(nn.ReLU())
        True
    """
    own = vars(model).get("eval")
    return not str(getattr(own, "__module__", "")).startswith("torch.export")


def require_modes(model: nn.Module) -> None:
    """Refuse an exported program.

    Raises:
        ConvscopeError: ``model`` is one.
    """
    if not has_modes(model):
        raise ConvscopeError(
            "an exported program, which has neither modules nor modes any more",
            "the network that it was exported from",
            "pass that one",
        )


def set_modes(model: nn.Module, *, training: bool) -> None:
    """Put a network into evaluation mode, or into training mode; there, its modules keep their own modes.

    Args:
        model: the network; an exported program stays as it is.
        training: True leaves a network in training mode as it is, whatever the modes of its modules.

    Example:
        >>> net = nn.Sequential(nn.Dropout(), nn.ReLU().eval())
        >>> set_modes(net, training=True)
        >>> [module.training for module in net]
        [True, False]
        >>> set_modes(net, training=False)
        >>> [module.training for module in net]
        [False, False]
    """
    if not has_modes(model):
        return
    if not training:
        model.eval()
    elif not model.training:
        model.train()


@contextmanager
def in_evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put every module of a network into evaluation mode for a block; afterwards each is in its own again.

    Example:
        >>> net = nn.Sequential(nn.Dropout(), nn.ReLU().eval())
        >>> with in_evaluation_mode(net):
        ...     print([module.training for module in net])
        [False, False]
        >>> [module.training for module in net]
        [True, False]
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
