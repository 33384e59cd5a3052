"""The table of faults. A fault is a function from an observation to findings; anyone may add one."""

from collections.abc import Callable, Iterator
from typing import TypeVar, get_args

from convscope.checkup.observed import Observation
from convscope.checkup.unchecked import Unchecked
from convscope.core.errors import ConvscopeError
from convscope.core.finding import Finding, Severity

Rule = Callable[[Observation], Iterator[Finding | Unchecked]]
"""Yields findings, the largest effect first, and what it couldn't judge."""

_R = TypeVar("_R", bound=Rule)
_RULES: dict[str, Rule] = {}
_RANKS = {severity: rank for rank, severity in enumerate(get_args(Severity))}
_MEND = "mend the rule, or take it out with cs.checkup.remove_fault"


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


def rule_of(name: str) -> Rule | None:
    """Return the function that judges a fault; None if there is none of that name."""
    return _RULES.get(name)


def judge(observation: Observation) -> tuple[tuple[Finding, ...], tuple[Unchecked, ...]]:
    """Return the findings of all faults, and what could not be judged.

    Errors come first; findings of one severity by measured effect, and by the order of the table where
    effects are alike.

    Raises:
        ConvscopeError: a rule raises an exception, or yields something else than findings of its own fault.
    """
    rules = tuple(_RULES.items())
    results = [result for name, rule in rules for result in _judged(name, rule, observation)]
    findings = [result for result in results if isinstance(result, Finding)]
    findings.sort(key=lambda finding: (_RANKS[finding.severity], -finding.effect))
    return tuple(findings), tuple(result for result in results if isinstance(result, Unchecked))


def _judged(name: str, rule: Rule, observation: Observation) -> list[Finding | Unchecked]:
    """What one rule says, checked."""
    told = f"rule {getattr(rule, '__name__', repr(rule))!r} of the fault {name!r}"
    try:
        found = list(rule(observation) or ())
    except ConvscopeError:
        raise
    except Exception as error:
        raise ConvscopeError(
            f"{told} fails ({type(error).__name__}: {error})",
            "a function of an observation that yields findings, whatever was measured",
            _MEND,
        ) from error
    for result in found:
        _require_sound(told, name, result)
    return found


def _require_sound(told: str, name: str, result: object) -> None:
    if isinstance(result, Unchecked):
        return
    if not isinstance(result, Finding):
        raise ConvscopeError(f"{told} yields {result!r}"[:200], "Finding(...) or Unchecked(what, why)", _MEND)
    if result.fault != name:
        raise ConvscopeError(f"{told} yields a finding of {result.fault!r}", f"Finding({name!r}, ...)", _MEND)
    if result.severity not in _RANKS:
        known = ", ".join(map(repr, _RANKS))
        raise ConvscopeError(
            f"{told} yields a finding of severity {result.severity!r}", f"one of {known}", _MEND
        )
