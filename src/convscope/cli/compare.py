"""``convscope compare``: a table of trainings with paired seeds."""

import os
import shlex
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from convscope.cli.comparison_bar import ComparisonBar
from convscope.cli.comparison_words import choices_of, options_of, pairs_of, seeds_of
from convscope.cli.options import Json
from convscope.cli.show import note, show
from convscope.core.errors import ConvscopeError

if TYPE_CHECKING:
    from convscope.train.comparing import Comparison

_Words = Annotated[list[str] | None, Parameter(negative="")]
_Flag = Annotated[bool, Parameter(negative="")]


def compare(
    what: str | None = None,
    /,
    *,
    data: str | None = None,
    choose: _Words = None,
    set: _Words = None,
    option: _Words = None,
    input: str | None = None,
    seeds: str | None = None,
    target: float | None = None,
    baseline: str | None = None,
    image_size: int | None = None,
    out: str | None = None,
    processes: int | None = None,
    threads: int | None = None,
    list: _Flag = False,
    forecast: _Flag = False,
    yes: _Flag = False,
    json: Json = False,
) -> None:
    """Run a table of trainings with paired seeds, and compare its arms.

    Interrupted at any moment and started again with the same words, it goes on.

    Args:
        what: A TOML file, the name of an experiment (--list shows them), or, with --data, a network.
        data: photos, digits or a folder with a subfolder for each class.
        choose: NAME=VALUE,VALUE of a training setting, an option of the network, or network; every
            combination of several is an arm.
        set: NAME=VALUE of a training setting, the same in every arm.
        option: NAME=VALUE of an option of the network, the same in every arm.
        input: Shape of one image, such as 3x64x64.
        seeds: How many, or which: 5, or 0,1,2. Five or more can establish a sign; 5 if left out.
        target: Error to whose first reaching steps are counted, such as 0.05; what the baseline reaches in
            half of its seeds if left out.
        baseline: Name of the arm that others are compared with; the first if left out.
        image_size: Side of the images in pixels, where --set crop=... cuts windows of them.
        out: Folder of the comparison: runs, comparison.json and index.html.
        processes: Runs side by side; 0: one after the other in this process. As the machine allows if left
            out: one for each GPU, or as many as there are cores.
        threads: Of each run.
        list: Only say what would be run and how it would be judged; without a name, which experiments
            there are.
        forecast: Only say what it would take.
        yes: Don't ask before a long comparison begins on a terminal.
    """
    from convscope.train.comparing import Execution, experiments
    from convscope.train.comparing import compare as compared
    from convscope.train.comparing import forecast as foretell
    from convscope.train.comparing.asking import request_of

    if what is None:
        if not list:
            raise ConvscopeError(
                "nothing to compare",
                "a TOML file, the name of an experiment, or a network with --data",
                "`convscope compare --list` shows the experiments",
            )
        show(experiments(), as_json=json)
        return
    words: dict[str, Any] = {"seeds": seeds and seeds_of(seeds), "target": target, "baseline": baseline,
             "image_size": image_size, "settings": set and pairs_of("--set", set),
             "network_options": options_of(option, input)}  # fmt: skip
    choices = choices_of(choose) if choose else None
    if data is None and (choices or any(word is not None for word in words.values())):
        raise ConvscopeError(
            f"{what!r} with choices and no --data",
            "the images, or a whole table",
            "give --data, such as photos",
        )
    given = {name: word for name, word in words.items() if word is not None} if data is not None else {}
    command = shlex.join(["convscope", *sys.argv[1:]])
    execution = Execution(out=out, processes=processes, threads=threads, command=command)
    if list:
        show(request_of(what, data, choices, execution, given).experiment, as_json=json)
    elif forecast:
        show(foretell(what, data, choices, execution=execution, **given), as_json=json)
    else:
        run = partial(compared, what, data, choices, execution=execution, **given)
        _run(run, asks=not yes and sys.stdin.isatty() and sys.stderr.isatty(), as_json=json)


def _run(run: Callable[..., "Comparison"], *, asks: bool, as_json: bool) -> None:
    is_first = int(os.environ.get("RANK", "0")) == 0  # of a launcher's processes, the first tells
    try:
        with redirect_stdout(sys.stderr):  # what the user's code prints is no result
            found = run(progress=ComparisonBar(asks=asks))
    except KeyboardInterrupt:
        if is_first:
            print("convscope: interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    if is_first:
        note(f"page written to {found.folder}/index.html")
        show(found, as_json=as_json)
    if not any(each.has_ended for arm in found.arms for each in arm.runs):
        raise ConvscopeError(
            "no run of the comparison could be trained", "at least one", "see the notes above"
        )
