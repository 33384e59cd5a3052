"""``convscope compare``: a table of trainings with paired seeds."""

import os
import re
import shlex
import sys
import tomllib
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from convscope.cli.options import Json
from convscope.cli.show import note, show
from convscope.core.errors import ConvscopeError

if TYPE_CHECKING:
    from convscope.train.comparing import ComparisonForecast, Standing

_ASKS_FROM_SECONDS = 60
_OF_PYTHON: dict[str, bool | str] = {"True": True, "False": False, "None": "none"}
_BETWEEN_COMMAS = re.compile(r"""(?:\([^()]*\)|\[[^\[\]]*\]|"[^"]*"|'[^']*'|[^,])+""")
"""One value; commas within brackets and quotes belong to it."""
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
    words = {"seeds": seeds and _seeds(seeds), "target": target, "baseline": baseline,
             "image_size": image_size, "settings": set and _pairs("--set", set),
             "network_options": _options(option, input)}  # fmt: skip
    choices = _choices(choose) if choose else None
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
        return
    if forecast:
        show(foretell(what, data, choices, execution=execution, **given), as_json=json)
        return
    bar = ComparisonBar(asks=not yes and sys.stdin.isatty() and sys.stderr.isatty())
    is_first = int(os.environ.get("RANK", "0")) == 0  # of a launcher's processes, the first tells
    try:
        with redirect_stdout(sys.stderr):  # what the user's code prints is no result
            found = compared(what, data, choices, execution=execution, progress=bar, **given)
    except KeyboardInterrupt:
        if is_first:
            print("convscope: interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    if is_first:
        note(f"page written to {found.folder}/index.html")
        show(found, as_json=json)
    if not any(run.has_ended for arm in found.arms for run in arm.runs):
        raise ConvscopeError(
            "no run of the comparison could be trained", "at least one", "see the notes above"
        )


def _seeds(text: str) -> int | list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ConvscopeError(f"--seeds {text!r}", "a number, or numbers with commas", "--seeds 5") from error
    return numbers if "," in text else numbers[0]


def _options(option: Sequence[str] | None, shape: str | None) -> dict[str, Any] | None:
    options = _pairs("--option", option) if option else {}
    if shape is not None:
        options["input_shape"] = shape
    return options or None


def _pairs(flag: str, words: Sequence[str]) -> dict[str, Any]:
    return {name: _value(text) for name, text in _split(flag, words)}


def _choices(words: Sequence[str]) -> dict[str, list[Any]]:
    return {name: _values(text) for name, text in _split("--choose", words)}


def _split(flag: str, words: Sequence[str]) -> list[tuple[str, str]]:
    pairs = [
        (name.strip().replace("-", "_"), text) for name, _, text in (word.partition("=") for word in words)
    ]
    wrong = [word for word, (name, text) in zip(words, pairs, strict=True) if not name or not text]
    if wrong:
        raise ConvscopeError(f"{flag} {wrong[0]!r}", "NAME=VALUE", f"write {flag} epochs=10")
    names = [name for name, _ in pairs]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ConvscopeError(f"{flag} {twice[0]} twice", "each name once", "separate values by commas")
    return pairs


def _values(text: str) -> list[Any]:
    """The values of a choice: a TOML list without its brackets, or words with commas between them."""
    try:
        values: list[Any] = tomllib.loads(f"value = [{text}]")["value"]
    except tomllib.TOMLDecodeError:
        values = [_value(part) for part in _BETWEEN_COMMAS.findall(text)]
    return values


def _value(text: str) -> Any:
    """A number, a truth value or a list as TOML or Python writes it, else the word itself."""
    word = text.strip()
    if word in _OF_PYTHON:
        return _OF_PYTHON[word]
    if word.startswith("(") and word.endswith(")"):
        word = f"[{word[1:-1]}]"
    try:
        return tomllib.loads(f"value = {word}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()


class ComparisonBar:
    """Shows a comparison on standard error: a bar on a terminal, else a line for each run that ends.

    Args:
        asks: whether to ask before a long comparison begins.
    """

    def __init__(self, *, asks: bool) -> None:
        self._asks = asks
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        rest = TextColumn("{task.fields[rest]}")
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), rest)
        hidden = not sys.stderr.isatty()
        self._bar = Progress(*columns, console=self._console, transient=True, disable=hidden)
        self._lines, self._done = hidden, -1
        self._task = self._bar.add_task("runs", total=None, rest="")

    def forecast(self, forecast: "ComparisonForecast") -> None:
        """Show what it will take; on a terminal, ask before a long one."""
        note(forecast)
        asks = self._asks and forecast.seconds > _ASKS_FROM_SECONDS
        if asks and input("Go on? [Y/n] ").strip().lower() not in ("", "y", "yes"):
            raise KeyboardInterrupt
        self._bar.start()

    def note(self, text: str) -> None:
        """Leave a line."""
        note(text)

    def standing(self, standing: "Standing") -> None:
        """Move the bar, or leave a line if a run has ended."""
        left = "" if standing.seconds_left is None else f", {standing.seconds_left:,.0f} s left"
        ended = f"{standing.done}/{standing.total} runs"
        bad = "".join(
            f", {number} {word}"
            for number, word in ((standing.diverged, "diverged"), (standing.failed, "failed"))
            if number
        )
        running = "; ".join(f"{name} {share:.0%}" for name, share in list(standing.running.items())[:2])
        more = f" and {len(standing.running) - 2} more" if len(standing.running) > 2 else ""
        if self._lines and standing.done != self._done:
            self._console.print(f"{ended}{bad}{left}", markup=False)
        self._done = standing.done
        done = standing.done + sum(standing.running.values())
        self._bar.update(
            self._task, description=ended, total=standing.total, completed=done,
            rest=f"{running}{more}{bad}{left}",
        )  # fmt: skip

    def stop(self) -> None:
        """Take the bar away."""
        self._bar.stop()
