"""What is to be compared, from the many ways in which it can be said."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convscope.core.errors import ConvscopeError
from convscope.core.paths import exists
from convscope.train.comparing.choices import check_one_network, crossed_arms, made_arm
from convscope.train.comparing.experiment import Experiment
from convscope.train.comparing.registry import experiment as known_experiment
from convscope.train.comparing.registry import experiment_names
from convscope.train.comparing.table import Table, as_seeds
from convscope.train.comparing.toml_table import as_size, read_table

What = str | Path | Table | Experiment
"""A TOML file, an experiment or its name, a table; or, beside data, a network's reference."""


@dataclass(frozen=True)
class Execution:
    """How a comparison is run; none of it changes a result but the threads.

    Attributes:
        out: its folder; None: ``comparisons/NAME``.
        processes: side by side on this machine, or of each rank of a launcher; 0: all in this process, one
            after the other; None: one for each GPU, or as many as the cores have room for.
        threads: of each run; None: those of earlier sessions in the folder, or the cores shared out among
            all runs of the table.
        command: that makes the comparison again; None: the call in Python.
    """

    out: str | Path | None = None
    processes: int | None = None
    threads: int | None = None
    command: str | None = None


@dataclass(frozen=True)
class Asked:
    """What is to be compared and how.

    Attributes:
        experiment: with the table.
        execution: how it is run.
    """

    experiment: Experiment
    execution: Execution = field(default_factory=Execution)

    @property
    def out(self) -> Path:
        """The folder."""
        return Path(self.execution.out or Path("comparisons") / self.experiment.name)


# Nine parameters: they are the keys of a table, and all but the first have defaults.
def table_of(
    network: str,
    data: str,
    choices: Mapping[str, Sequence[Any]] | None = None,
    *,
    seeds: int | Sequence[int] = 5,
    settings: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    target: float | None = None,
    baseline: str = "",
    image_size: int | tuple[int, int] | None = None,
) -> Table:
    """Return the table of all combinations of some choices.

    Args:
        network: reference such as ``"zfnet"``; an empty text where ``network`` is a choice.
        data: reference such as ``"photos"``, or a folder.
        choices: values of settings, of options of the network, or of ``network``.
        seeds: how many, or which.
        settings: of :class:`~convscope.train.TrainConfig`, the same in every arm.
        options: of the network, the same in every arm.
        target: see :class:`Table`.
        baseline: see :class:`Table`.
        image_size: see :class:`Table`.

    Raises:
        ConvscopeError: a name or a value isn't possible.

    Example:
        >>> table = table_of("zfnet", "digits", {"norm": ["none", "batch"]}, settings={"epochs": 2})
        >>> [arm.name for arm in table.arms]
        ['no norm', 'batch']
    """
    check_one_network(network, choices or {})
    given, kept = dict(settings or {}), dict(options or {})
    crossed = crossed_arms(network, choices, given, kept) if choices else None
    arms = crossed or (made_arm(network, {}, given, kept),)
    size = as_size(image_size)
    return Table(str(data), arms, as_seeds(seeds), target=target, baseline=baseline, image_size=size)


def asked(what: What, execution: Execution) -> Asked:
    """Return what is meant by a table, an experiment, the name of one, or a TOML file.

    Raises:
        ConvscopeError: there is no such file or experiment, the file has a fault, or a table that isn't an
            experiment's has a single arm.
    """
    if isinstance(what, Experiment):
        return Asked(what, execution)
    if isinstance(what, Table):
        return Asked(_plain("table", what), execution)
    if str(what) in experiment_names() or (not str(what).endswith(".toml") and not exists(what)):
        return Asked(known_experiment(str(what)), execution)
    written = read_table(what)
    merged = Execution(
        out=execution.out if execution.out is not None else written.out,
        processes=execution.processes if execution.processes is not None else written.processes,
        threads=execution.threads if execution.threads is not None else written.threads,
        command=execution.command,
    )
    return Asked(_plain(Path(what).stem, written.table, f"{what}: "), merged)


def _plain(name: str, table: Table, where: str = "") -> Experiment:
    """A table that nobody put a question to; only an experiment knows what one arm is compared with."""
    if len(table.arms) < 2:
        raise ConvscopeError(
            f"{where}1 arm, {table.arms[0].name!r}",
            "at least two to compare",
            "choose among several values, such as norm=none,batch, or use convscope train",
        )
    return Experiment(name, "", "", (), table)


def request_of(
    what: What,
    data: str | Path | None,
    choices: Mapping[str, Sequence[Any]] | None,
    execution: Execution | None,
    rest: dict[str, Any],
) -> Asked:
    """Return what the arguments of :func:`~convscope.train.comparing.request.compare` ask for.

    Raises:
        ConvscopeError: they contradict one another, or one doesn't exist.
    """
    of_execution = {name: rest.pop(name) for name in list(rest) if name in Execution.__annotations__}
    run = Execution(**{**vars(execution or Execution()), **of_execution})
    if data is None:
        if choices is not None or rest:
            given = ", ".join(["choices"] * (choices is not None) + list(rest))
            raise ConvscopeError(
                f"{given} without data", "a network's reference and data, or a whole table", "give data=..."
            )
        return asked(what, run)
    if not isinstance(what, str):
        raise ConvscopeError(
            f"a {type(what).__name__} with data", "a network's reference", "give 'zfnet', or 'file.py:build'"
        )
    if not isinstance(data, str | Path):
        raise ConvscopeError(
            f"data of type {type(data).__name__}",
            "a reference, which other processes can load",
            "give a folder or a name",
        )
    if "network_options" in rest:
        rest["options"] = rest.pop("network_options")
    known = ("seeds", "settings", "options", "target", "baseline", "image_size")
    unknown = [name for name in rest if name not in known]
    if unknown:
        raise ConvscopeError(
            f"unknown argument {unknown[0]!r}",
            f"one of {', '.join((*known, *Execution.__annotations__))}",
            "settings of the training go into settings={...}",
        )
    name = Path(run.out).name if run.out is not None else ""
    return Asked(_plain(name or "table", table_of(what, str(data), choices, **rest)), run)
