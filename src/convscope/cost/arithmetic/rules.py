"""Tables of rules per operator, and what a rule sees of an operator call.

A rule is a small function from the shapes and arguments of one operator call to a number. Users add their
own for operators that have none:

    @macs_rule("mylib_correlate")
    def correlate(call: OperatorShapes) -> int: ...

Operators of other libraries are named ``LIBRARY_OPERATOR``; in-place variants (``relu_``) share the rule of
their functional form.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, Generic, TypeVar

from convscope.tape import OperatorCall, Ref, Tape, Value

_Rule = TypeVar("_Rule", bound=Callable[..., Any])


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


class RuleTable(Generic[_Rule]):
    """Rules by operator name.

    Example:
        >>> table: RuleTable = RuleTable()
        >>> @table.register("relu")
        ... def one_per_element(call): return call.num_outputs
        >>> table.find("relu_") is one_per_element, table.find("fft")
        (True, None)
    """

    def __init__(self) -> None:
        self._rules: dict[str, _Rule] = {}

    def register(self, *operators: str) -> Callable[[_Rule], _Rule]:
        """Return a decorator which makes a function the rule of these operators."""

        def decorate(rule: _Rule) -> _Rule:
            self._rules.update(dict.fromkeys(operators, rule))
            return rule

        return decorate

    def find(self, operator: str) -> _Rule | None:
        """Return the rule of an operator, its functional form's if it is in place, or None."""
        return self._rules.get(operator) or self._rules.get(operator.removesuffix("_"))
