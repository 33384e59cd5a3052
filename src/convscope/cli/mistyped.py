"""What is said of a command line that the parser refuses: what is missing, or what was meant."""

import difflib
from collections.abc import Iterable

from cyclopts import ConsumeMultipleError, MissingArgumentError, UnknownCommandError

from convscope.cli.quiet import FLAGS
from convscope.core.nearest import nearest

_ANYWHERE = ("--help", "--version", *FLAGS)
_NEAR = 0.7  # of 1: flags of commands that stand too early aren't meant for --version


def in_words(error: Exception, commands: Iterable[str]) -> str:
    """Return an error's message; of some that the parser raises, one that says what to type.

    Args:
        error: of the parser, or our own.
        commands: that there are.
    """
    if isinstance(error, MissingArgumentError) and not isinstance(error, ConsumeMultipleError):
        return _missing(error)
    if isinstance(error, UnknownCommandError):
        return _unknown((error.unused_tokens or [""])[0], commands)
    return str(error)


def _missing(error: MissingArgumentError) -> str:
    """A parameter that wasn't given isn't one that was given without its value."""
    argument = error.argument
    if argument is None or error.keyword is not None or argument.tokens or error.unused_tokens:
        return str(error)
    command = " ".join(("convscope", *(error.command_chain or ())))
    return f"{argument.name} is required; see {command} --help"


def _unknown(word: str, commands: Iterable[str]) -> str:
    """A word in the place of the command."""
    if not word.startswith("-"):
        return f"unknown command {word!r}; {nearest(word, commands, '`convscope --help` lists them')}"
    close = difflib.get_close_matches(word, _ANYWHERE, n=1, cutoff=_NEAR)
    meant = f"did you mean {close[0]!r}?" if close else "a command's flags stand behind it"
    return f"unknown option {word!r} before a command; {meant}"
