"""Evaluation or training mode, for all modules of a network."""

from torch import nn


def set_modes(model: nn.Module, *, training: bool) -> bool:
    """Put a network into evaluation mode, or into training mode; there, its modules keep their own modes.

    Args:
        model: the network.
        training: True leaves a network in training mode as it is, whatever the modes of its modules.

    Returns:
        False if it has no modes that could be changed, since it is an exported program.

    Example:
        >>> net = nn.Sequential(nn.Dropout(), nn.ReLU().eval())
        >>> set_modes(net, training=True), [module.training for module in net]
        (True, [True, False])
        >>> set_modes(net, training=False), [module.training for module in net]
        (True, [False, False])
    """
    try:
        if not training:
            model.eval()
        elif not model.training:
            model.train()
    except NotImplementedError:  # that is what torch.export makes of both
        return False
    return True
