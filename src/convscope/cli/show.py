"""How a command's result reaches its reader: a table on a terminal, or JSON."""

import sys

from rich.console import Console, RenderableType

from convscope.cli.quiet import is_quiet
from convscope.cli.waiting import stop_waiting
from convscope.core.printable import printable, printable_json
from convscope.core.result import Result

# Wide enough for every table when the output isn't a terminal (a file, a pipe).
_FILE_WIDTH = 160


def aside(*, shown: bool = True, always: bool = False) -> Console:
    """Return the console of what is said about the work: standard error, or nothing if it is to be quiet."""
    quiet = (is_quiet() and not always) or not shown
    return Console(stderr=True, highlight=False, soft_wrap=True, quiet=quiet)


def show(result: Result, *, as_json: bool) -> None:
    """Print a result to standard output; colours only on a terminal."""
    stop_waiting()
    if as_json:
        print(printable_json(result.to_json(indent=2)))
        return
    draw(result)


def draw(rendering: RenderableType, file_width: int = _FILE_WIDTH) -> None:
    """Print a rendering to standard output; colours only on a terminal, ``file_width`` cells elsewhere."""
    stop_waiting()
    console = Console(width=None if sys.stdout.isatty() else file_width)
    console.print(rendering)


def note(said: str | Result, *, always: bool = False) -> None:
    """Say something about the work on standard error, so that standard output holds the result alone.

    Args:
        said: a sentence, or a result.
        always: even with ``--quiet``: a result mustn't be read without it.
    """
    shown = "\n".join(map(printable, said.split("\n"))) if isinstance(said, str) else said
    stop_waiting()
    aside(always=always).print(shown, markup=False)
