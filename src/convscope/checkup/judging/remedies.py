"""How running statistics are estimated anew, by who holds them."""

from collections.abc import Sequence

from convscope.checkup.observed import NormCall

_OF_MODULES = (
    "estimate them anew: cs.norm.recalibrate(model, loader) with shuffled training batches, which reports "
    "what is left; then check again"
)
_OF_FUNCTIONS = (
    "they are given to torch.nn.functional.batch_norm, where cs.norm.recalibrate doesn't reach: run shuffled "
    "training batches in training mode (model.train(), then model(images) under torch.no_grad()), 50 of them "
    "at momentum 0.1; then check again"
)


def estimate_anew(*norms: NormCall) -> str:
    """Return the remedy for wrong running statistics of these calls, of which any but none is a module's."""
    return _OF_FUNCTIONS if are_functions(norms) else _OF_MODULES


def are_functions(norms: Sequence[NormCall]) -> bool:
    """Return whether all of these are calls of batch norm as a function, and there is one."""
    return bool(norms) and all(norm.training is None for norm in norms)
