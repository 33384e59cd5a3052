"""``compare``: from a table, a file or an experiment's name to the runs and their comparison."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from convscope.train.comparing.asking import Execution, What, request_of
from convscope.train.comparing.course import ComparingProgress, NoComparingProgress
from convscope.train.comparing.forecast import ComparisonForecast
from convscope.train.comparing.result import Comparison
from convscope.train.comparing.work import Work


def compare(
    what: What,
    data: str | Path | None = None,
    choices: Mapping[str, Sequence[Any]] | None = None,
    *,
    execution: Execution | None = None,
    progress: ComparingProgress | None = None,
    **rest: Any,
) -> Comparison:
    """Run a table of trainings with paired seeds, and return how its arms compare.

    Every arm is trained once with each seed, as :func:`convscope.train.train` does, in a folder of its own.
    A seed gives all arms the same order of images, the same augmentation and, where shapes agree, the same
    initial weights. Interrupted at any moment and called again, it goes on; runs that ended are read. A run
    that fails or diverges is reported and ends no other. Under ``torchrun`` or ``accelerate launch`` every
    rank takes its share of the runs, each by itself. CPU runs end with the same weights whatever the number
    of processes.

    Args:
        what: a TOML file, an experiment or its name, a :class:`Table`; or, with ``data``, a network's
            reference.
        data: reference of images, for a table that is given by choices.
        choices: values of settings, of options of the network, or of ``network``; every combination is an
            arm.
        execution: how it is run; single values may be given by name instead: ``out=``, ``processes=``,
            ``threads=``, ``command=``.
        progress: is told the course, on the first rank.
        **rest: ``seeds``, ``settings``, ``network_options``, ``target``, ``baseline`` and ``image_size`` of
            :func:`table_of`; or of :class:`Execution`.

    Returns:
        The comparison, also in ``OUT/comparison.json``.

    Raises:
        ConvscopeError: the table isn't possible, the folder holds another one, there is no room, or no arm
            can be trained.

    Example::

        found = cs.compare("zfnet", "photos", {"norm": ["none", "batch"], "learning_rate": [0.01, 0.1]},
                           seeds=5, settings={"epochs": 10}, out="comparison")
        print(found)
    """
    work = Work(request_of(what, data, choices, execution, rest), progress or NoComparingProgress())
    return work.done()


def forecast(
    what: What,
    data: str | Path | None = None,
    choices: Mapping[str, Sequence[Any]] | None = None,
    *,
    execution: Execution | None = None,
    **rest: Any,
) -> ComparisonForecast:
    """Return what :func:`compare` would take, after a few steps of every distinct network and batch size.

    Nothing is written. Parameters and errors are those of :func:`compare`.
    """
    return Work(request_of(what, data, choices, execution, rest), NoComparingProgress()).forecast()
