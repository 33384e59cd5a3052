"""Which module a batch norm call belongs to, and what else that module does."""

from dataclasses import dataclass

from convscope.fold.norms.units import Unit
from convscope.fold.recorded.constants import Constants
from convscope.fold.recorded.flow import Flow, Stays, addresses, has_hooks, path_of
from convscope.tape import ModuleCall, OperatorCall

_VIEWS = {"view", "_unsafe_view", "reshape", "_reshape_alias"}


@dataclass(frozen=True)
class Shell:
    """The module around a batch norm.

    Attributes:
        path: its path.
        parts: names of its own submodules that run on the normalised value, one after the other.
    """

    path: str
    parts: tuple[str, ...] = ()


def shell_of(flow: Flow, constants: Constants, unit: Unit) -> Shell:
    """Return the module that exists to run one batch norm call, and then perhaps its own submodules.

    Raises:
        Stays: the batch norm is a function call in a module that does other things, whose code would run
            it again; or the module does more than can be told apart; or hooks see its input.
    """
    module_call = unit.module
    if module_call is None or not unit.buffers or path_of(module_call) != unit.buffers:
        where = unit.last.address.module
        raise Stays(f"is called as a function in the code of {where}, which would run it again")
    own = [
        call
        for call in flow.operators_of(module_call)
        if not unit.first.index <= call.index <= unit.last.index
        and not all(constants.holds(value) for value in call.inputs)
    ]
    others = [call for call in own if call.op not in _VIEWS]
    if others:
        raise Stays(f"its module does more than normalise: {addresses(others)}")
    given = set(module_call.inputs) or {unit.before}  # none are listed where they're passed by name
    entered = next(iter(given))
    if len(given) != 1 or not _leads(own, entered, unit.before):
        raise Stays("its module is given other tensors than the one that it normalises")
    if has_hooks(flow.module_of(module_call)):
        raise Stays("has hooks, which would see other values if it were folded", "take its hooks off first")
    value = _normalised(flow, entered, unit, own)
    return Shell(path_of(module_call), _parts(flow, module_call, value))


def _leads(views: list[OperatorCall], value: int, target: int) -> bool:
    """Whether a value is another one, or is viewed as it."""
    return value == target or any(view.inputs[0] == value and view.output == target for view in views)


def _normalised(flow: Flow, given: int, unit: Unit, views: list[OperatorCall]) -> int:
    """The normalised value in the shape in which the module was given it."""
    shape = flow.tape.values[given].shape
    viewed = [view.output for view in views if view.inputs[0] == unit.after]
    for value in (unit.after, *viewed):
        if flow.tape.values[value].shape == shape:
            return value
    raise Stays("its module changes the shape of what it normalises")


def _parts(flow: Flow, module_call: ModuleCall, value: int) -> tuple[str, ...]:
    """Names of the submodules which the normalised value runs through, in order."""
    path, names = path_of(module_call), list[str]()
    for child in flow.children_of(module_call):
        head, _, name = path_of(child).rpartition(".")
        if head != path or child.inputs != (value,) or len(child.outputs) != 1 or name in names:
            raise Stays(f"its module does more than hand the normalised value through: {child.address}")
        value = child.outputs[0]
        names.append(name)
    if module_call.outputs != (value,):
        raise Stays("its module returns something else than the normalised value")
    return tuple(names)
