"""Names of batch norm calls from one stage of a fold to the next.

A batch norm that is called as a function is named by its number among such calls of a module call. Once one
before it is gone, it has another number; or the module's own name, if it is the only operator that is left.
"""

from collections import defaultdict
from collections.abc import Iterable

from torch import nn

from convscope.core.address import parse_address
from convscope.fold.norms.units import units_of
from convscope.fold.recorded.constants import Constants
from convscope.fold.recorded.flow import Flow
from convscope.tape import Tape


class Untold(Exception):  # noqa: N818 - no error: a verdict
    """It can't be told which batch norm is which."""


def first_names(left: Iterable[str], tape: Tape, model: nn.Module) -> dict[str, str]:
    """Return the names that batch norms had before others went, by those that they have now.

    Args:
        left: the names of those left, as they were before, in order.
        tape: a recording of what is left.
        model: the network that was recorded.

    Raises:
        Untold: another number of them is there.
    """
    names = tuple(left)
    if not any(_is_function(name) for name in names):
        return {}
    flow = Flow(tape, model)
    return paired(names, [unit.address for unit in units_of(flow, Constants(flow))])


def paired(left: Iterable[str], now: Iterable[str]) -> dict[str, str]:
    """Return the old names of function calls by their new ones; both are in order.

    Raises:
        Untold: there are more or fewer than there were.

    Example:
        >>> paired(["self#1:batch_norm.2", "bn#1", "two#1:batch_norm.2"],
        ...        ["self#1:batch_norm.1", "bn#1", "two#1"])
        {'self#1:batch_norm.1': 'self#1:batch_norm.2', 'two#1': 'two#1:batch_norm.2'}
    """
    before, after = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
    for name in left:
        if _is_function(name):
            before[_caller(name)].append(name)
    for name in now:
        after[_caller(name)].append(name)
    if any(len(after[caller]) != len(names) for caller, names in before.items()):
        raise Untold
    return {new: old for caller in before for new, old in zip(after[caller], before[caller], strict=True)}


def _is_function(name: str) -> bool:
    return parse_address(name).op is not None


def _caller(name: str) -> str:
    return str(parse_address(name).module)
