"""Experiments by name."""

from collections.abc import Callable
from dataclasses import dataclass

from convscope.core.errors import ConvscopeError
from convscope.core.nearest import nearest
from convscope.core.result import Result
from convscope.train.comparing.experiment import Experiment

_EXPERIMENTS: dict[str, Callable[[], Experiment]] = {}


def register(name: str) -> Callable[[Callable[[], Experiment]], Callable[[], Experiment]]:
    """Register the decorated function, which makes the experiment when it is asked for."""

    def kept(make: Callable[[], Experiment]) -> Callable[[], Experiment]:
        _EXPERIMENTS[name] = make
        return make

    return kept


@dataclass(frozen=True)
class Registry(Result):
    """The experiments that there are.

    Attributes:
        experiments: in the order of their names.
    """

    experiments: tuple[Experiment, ...]


def experiments() -> Registry:
    """Return all experiments, each with its protocol, its table and its claims."""
    return Registry(tuple(_EXPERIMENTS[name]() for name in experiment_names()))


def experiment_names() -> tuple[str, ...]:
    """Return the names of all experiments."""
    return tuple(sorted(_EXPERIMENTS))


def experiment(name: str) -> Experiment:
    """Return the experiment of a name.

    Raises:
        ConvscopeError: there is none; names that are close are offered.
    """
    if name not in _EXPERIMENTS:
        names = experiment_names()
        raise ConvscopeError(
            f"unknown experiment {name!r}",
            f"one of {', '.join(names)}" if names else "a TOML file: no experiment is registered",
            nearest(name, names),
        )
    return _EXPERIMENTS[name]()
