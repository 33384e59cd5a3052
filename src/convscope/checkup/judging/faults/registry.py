"""The table of faults. A fault is a function from an observation to findings; anyone may add one."""

from collections.abc import Callable, Iterator
from typing import TypeVar

from convscope.checkup.observed import Observation
from convscope.checkup.unchecked import Unchecked
from convscope.core.errors import ConvscopeError
from convscope.core.finding import Finding

Rule = Callable[[Observation], Iterator[Finding | Unchecked]]
"""Yields findings, the largest effect first, and what it couldn't judge."""

_R = TypeVar("_R", bound=Rule)
_RULES: dict[str, Rule] = {}


def fault(name: str) -> Callable[[_R], _R]:
    """Register the decorated function as the judge of the fault ``name``.

    Args:
        name: stable identifier, which its findings carry.

    Raises:
        ConvscopeError: there is a fault of that name already.

    Example:
        >>> @fault("huge-gain")
        ... def huge_gain(observation):
        ...     for norm in observation.norms:
        ...         if norm.gamma is not None and norm.gamma.abs().max() > 100:
        ...             yield Finding("huge-gain", "warning", norm.address, (), "a gain is above 100")
        >>> remove_fault("huge-gain")
    """

    def register(rule: _R) -> _R:
        if name in _RULES:
            raise ConvscopeError(f"fault {name!r}", "a name that isn't taken", "choose another one")
        _RULES[name] = rule
        return rule

    return register


def remove_fault(name: str) -> None:
    """Take a fault out of the table, so that no check-up looks for it.

    Raises:
        ConvscopeError: there is no fault of that name.
    """
    if _RULES.pop(name, None) is None:
        raise ConvscopeError(f"fault {name!r}", f"one of {', '.join(_RULES)}", "check the name")


def fault_names() -> tuple[str, ...]:
    """Return the names of all faults that a check-up looks for, in order of judgement."""
    return tuple(_RULES)


def judge(observation: Observation) -> tuple[tuple[Finding, ...], tuple[Unchecked, ...]]:
    """Return the findings of all faults, and what could not be judged.

    Errors come first; findings of one severity by measured effect, and by the order of the table where
    effects are alike.
    """
    results = [result for rule in tuple(_RULES.values()) for result in rule(observation)]
    findings = [result for result in results if isinstance(result, Finding)]
    ranks = {"error": 0, "warning": 1, "advice": 2, "info": 3}
    findings.sort(key=lambda finding: (ranks[finding.severity], -finding.effect))
    return tuple(findings), tuple(result for result in results if isinstance(result, Unchecked))
