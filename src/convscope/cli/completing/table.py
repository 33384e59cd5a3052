"""Which words can stand where in a command line: commands, networks, flags and their values.

The parser knows the flags; the values of those that take a name are gathered here from their owners. Files
are left to the shell. Names of networks are those that can be loaded where the script is printed.
"""

from dataclasses import dataclass
from typing import Any, get_args

from cyclopts import App

_SHARED_DATA = ("photos", "digits", "mnist5k")
_LONGEST = 78  # characters of a flag's help


@dataclass(frozen=True)
class Flag:
    """A flag of a command.

    Attributes:
        names: all its spellings, such as ``--fix``.
        help: one sentence at most.
        takes_value: whether a value follows.
        values: names that it takes; empty for files, numbers and free text.
        also_files: whether a file may stand in place of those.
    """

    names: tuple[str, ...]
    help: str
    takes_value: bool = False
    values: tuple[str, ...] = ()
    also_files: bool = False


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        name: what it is called.
        help: its first sentence.
        flags: all of them.
        takes_networks: whether networks are named.
        words: other words that it takes.
    """

    name: str
    help: str
    flags: tuple[Flag, ...]
    takes_networks: bool
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """Everything that is completed.

    Attributes:
        commands: all of them.
        networks: the references of networks that are known by name, and beginnings such as ``hf:``.
    """

    commands: tuple[Command, ...]
    networks: tuple[str, ...]


COMMON = (
    Flag(("--help", "-h"), "Show the help and exit."),
    Flag(("--quiet", "-q"), "Only results and errors, no progress or notes."),
)
"""Flags of every command."""
ROOT = (*COMMON, Flag(("--version",), "Show the version and exit."))
"""Flags in place of a command."""


def table(app: App, helps: dict[str, str]) -> Table:
    """Return the words of a command line.

    Args:
        app: the commands.
        helps: what is said of each.
    """
    from convscope.networks import PREFIXES, names

    known = _values()
    commands = tuple(_command(app, name, text, known) for name, text in helps.items())
    return Table(commands, (*names(), *(f"{prefix}:" for prefix in PREFIXES)))


def _command(app: App, name: str, text: str, known: dict[tuple[str, str], tuple[str, ...]]) -> Command:
    flags: list[Flag] = []
    takes_networks, words = False, tuple[str, ...]()
    for argument in app[name].assemble_argument_collection(parse_docstring=True):
        if not argument.show:
            continue
        choices = tuple(str(choice) for choice in argument.get_choices() or ())
        if not argument.name.startswith("-"):
            takes_networks = takes_networks or argument.name == "NETWORK"
            words = choices or words
            continue
        values = known.get((name, argument.name)) or known.get(("", argument.name)) or choices
        takes_value = argument.token_count()[0] > 0
        help_text = _sentence(argument.parameter.help or "")
        positive = tuple(word for word in argument.names if not word.startswith("--no-") or not takes_value)
        negative = tuple(word for word in argument.names if word not in positive)
        if argument.name.startswith("--no-"):
            positive, negative = argument.names, ()
        flags.append(Flag(positive, help_text, takes_value, values, argument.name == "--data"))
        if negative:
            flags.append(Flag(negative, help_text))
    return Command(name, _sentence(text), (*flags, *COMMON), takes_networks, words)


def _values() -> dict[tuple[str, str], tuple[str, ...]]:
    """The names that flags take, by command (empty: every other one) and flag."""
    from convscope.checkup.explain import page_names
    from convscope.checkup.judging.faults import fault_names
    from convscope.cost.views.columns import COLUMNS
    from convscope.gate.limits import UNMEASURED_GAP
    from convscope.networks import NORMS
    from convscope.networks.alexnet import PLANS
    from convscope.tape.plan import Optimizer, Precision
    from convscope.train.recipes import RECIPES
    from convscope.train.setting_rules import CHOICES

    training = {("train", f"--{name}"): tuple(names) for name, names in CHOICES.items()}
    anywhere: dict[str, Any] = {
        "--optimizer": get_args(Optimizer),
        "--precision": get_args(Precision),
        "--norm": NORMS,
        "--variant": PLANS,
        "--data": _SHARED_DATA,
        "--device": ("cuda", "cpu"),
        "--recipe": RECIPES,
        "--sort": COLUMNS,
        "--allow": (*fault_names(), UNMEASURED_GAP),
    }
    explained = {("checkup", "--explain"): tuple(page_names())}
    return {**{("", flag): tuple(names) for flag, names in anywhere.items()}, **training, **explained}


def _sentence(text: str) -> str:
    first = " ".join(text.split()).split(". ")[0].rstrip(".")
    return first if len(first) <= _LONGEST else first[: _LONGEST - 1] + "…"
