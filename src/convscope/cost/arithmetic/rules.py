"""Tables of rules per operator, and what a rule sees of an operator call.

A rule is a small function from the shapes and arguments of one operator call to a number. Users add their
own for operators that have none:

    @macs_rule("mylib_correlate")
    def correlate(call: OperatorShapes) -> int: ...

Operators of other libraries are named ``LIBRARY_OPERATOR``, or ``LIBRARY::OPERATOR`` as PyTorch writes it;
in-place variants (``relu_``) share the rule of their functional form. A rule replaces one that there was, and
goes before the lists of operators without arithmetic.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, Generic, TypeVar

from convscope.core.errors import ConvscopeError
from convscope.tape import OperatorCall, Ref, Tape, Value
from convscope.tape.operator_names import plain_name

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class OperatorShapes:
    """One operator call as rules see it: shapes, element types and plain arguments.

    Attributes:
        tape: the recording.
        call: the operator call.
    """

    tape: Tape
    call: OperatorCall

    @property
    def output(self) -> tuple[int, ...]:
        """Shape of the first result; () if there is none."""
        return self._shape(next((value for value in self.call.outputs if value is not None), None))

    @property
    def outputs(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the results that there are."""
        return tuple(self._shape(value) for value in self.call.outputs if value is not None)

    @property
    def inputs(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the tensor arguments, in schema order."""
        return tuple(self._shape(value) for value in self.call.inputs)

    @property
    def num_outputs(self) -> int:
        """Elements of the first result."""
        return prod(self.output)

    @property
    def num_inputs(self) -> int:
        """Elements of the first tensor argument; 0 if there is none."""
        return prod(self.inputs[0]) if self.inputs else 0

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of the tensor argument ``name``; () for a scalar or none."""
        return self._shape(self.call.tensor(name))

    def argument(self, name: str) -> Any:
        """Return the argument ``name``, tensors as references; None if the operator has none of that name."""
        return self.call.arguments.get(name)

    def tensors(self, name: str) -> tuple[Value, ...]:
        """Return the tensors of the list argument ``name``."""
        items = self.argument(name) or ()
        return tuple(self.tape.values[item.value] for item in items if isinstance(item, Ref))

    def _shape(self, value: int | None) -> tuple[int, ...]:
        return () if value is None else self.tape.values[value].shape


class RuleTable(Generic[_Result]):
    """Rules by operator name, each a function from an operator call to a result.

    Args:
        result: the type of the rules' results.

    Example:
        >>> table = RuleTable(int)
        >>> @table.register("aten::relu")
        ... def one_per_element(call): return call.num_outputs
        >>> table.find("relu_") is one_per_element, table.find("fft")
        (True, None)
    """

    def __init__(self, result: type[_Result]) -> None:
        self._result = result
        self._rules: dict[str, Callable[[OperatorShapes], _Result]] = {}

    def register(
        self, *operators: str
    ) -> Callable[[Callable[[OperatorShapes], _Result]], Callable[[OperatorShapes], _Result]]:
        """Return a decorator which makes a function the rule of these operators.

        Raises:
            ConvscopeError: a name can't be an operator's.
        """
        names = [plain_name(operator) for operator in operators]

        def decorate(rule: Callable[[OperatorShapes], _Result]) -> Callable[[OperatorShapes], _Result]:
            self._rules.update(dict.fromkeys(names, rule))
            return rule

        return decorate

    def find(self, operator: str) -> Callable[[OperatorShapes], _Result] | None:
        """Return the rule of an operator, its functional form's if it is in place, or None."""
        return self._rules.get(operator) or self._rules.get(operator.removesuffix("_"))

    def apply(self, shapes: OperatorShapes) -> _Result | None:
        """Return what an operator call's rule says, or None if there is no rule.

        Raises:
            ConvscopeError: the rule raises an exception, or its result is of another type.
        """
        call = shapes.call
        rule = self.find(call.op)
        if rule is None:
            return None
        name = getattr(rule, "__name__", repr(rule))
        told = f"rule {name!r} for operator {call.op!r}, at {call.address},"
        try:
            found = rule(shapes)
        except Exception as error:
            raise ConvscopeError(
                f"{told} fails ({type(error).__name__}: {error})",
                "a rule that works for every call of its operators",
                "mend the rule, or register another one for this operator",
            ) from error
        if not isinstance(found, self._result):
            raise ConvscopeError(f"{told} returns {found!r}", f"{self._result.__name__}", "mend the rule")
        return found
