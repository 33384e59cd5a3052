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


_NAMED = 3  # layers that are named one by one


def estimate_anew(*norms: NormCall) -> str:
    """Return the remedy for wrong running statistics of these calls, of which any but none is a module's.

    Where momentum 0 keeps them from ever following, that comes first, or they would go stale again.
    """
    still = list(dict.fromkeys(norm.path for norm in norms if never_moves(norm)))
    more = f" and {len(still) - _NAMED} more" if len(still) > _NAMED else ""
    first = f"set the momentum of {', '.join(still[:_NAMED])}{more} to 0.1; then " if still else ""
    return first + (_OF_FUNCTIONS if are_functions(norms) else _OF_MODULES)


def never_moves(norm: NormCall) -> bool:
    """Return whether momentum 0 keeps a batch norm module's running statistics where they are."""
    return norm.training is not None and not norm.frozen and bool(norm.tracks) and norm.momentum == 0


def freeze(norm: NormCall) -> str:
    """Return the call that freezes a layer; one that is the whole model has no name in it."""
    return "cs.norm.freeze(model)" if norm.path == "self" else f'cs.norm.freeze(model, only="{norm.path}")'


def are_functions(norms: Sequence[NormCall]) -> bool:
    """Return whether all of these are calls of batch norm as a function, and there is one."""
    return bool(norms) and all(norm.training is None for norm in norms)
