"""Which module a batch norm call belongs to, and what else that module does."""

from dataclasses import dataclass

from convscope.fold.affine import Affine
from convscope.fold.flow import Flow, Stays, addresses, has_hooks, path_of
from convscope.tape import ModuleCall, OperatorCall


@dataclass(frozen=True)
class Shell:
    """The module around a batch norm operator.

    Attributes:
        path: its path.
        parts: names of its own submodules that run on the normalised value, one after the other.
    """

    path: str
    parts: tuple[str, ...] = ()


def shell_of(flow: Flow, call: OperatorCall, affine: Affine) -> Shell:
    """Return the module that exists to run one batch norm call, and then perhaps its own submodules.

    Raises:
        Stays: the batch norm is a function call in a module that does other things, whose code would run
            it again; or the module does more than can be told apart; or hooks see its input.
    """
    module_call = None if call.module is None else flow.tape.modules[call.module]
    if module_call is None or path_of(module_call) != affine.mean.path or not affine.mean.path:
        raise Stays(f"is called as a function in the code of {call.address.module}, which would run it again")
    others = [operator for operator in flow.operators_of(module_call) if operator.index != call.index]
    if others:
        raise Stays(f"its module does more than normalise: {addresses(others)}")
    if not set(module_call.inputs) <= {call.tensor("input")}:
        raise Stays("its module is given other tensors than the one that it normalises")
    if has_hooks(flow.module_of(module_call)):
        raise Stays("has hooks, which would see other values if it were folded")
    return Shell(path_of(module_call), _parts(flow, module_call, call))


def _parts(flow: Flow, module_call: ModuleCall, call: OperatorCall) -> tuple[str, ...]:
    """Names of the submodules which the normalised value runs through, in order."""
    path, value, names = path_of(module_call), call.output, []
    for child in flow.children_of(module_call):
        head, _, name = path_of(child).rpartition(".")
        if head != path or child.inputs != (value,) or len(child.outputs) != 1 or name in names:
            raise Stays(f"its module does more than hand the normalised value through: {child.address}")
        value = child.outputs[0]
        names.append(name)
    if module_call.outputs != (value,):
        raise Stays("its module returns something else than the normalised value")
    return tuple(names)
