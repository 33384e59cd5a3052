"""One bad input, given to the command line in this process, and what is asked of every one.

A command that refuses an input exits with 2, says one line of standard error and nothing else, and leaves
every file as it was and none of its own behind. Whatever it does, no exception leaves it, no control
character reaches the terminal, it ends within seconds, and it takes no memory that the input merely claims.
"""

import contextlib
import io
import os
import resource
import shutil
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from convscope.cli.main import main

SECONDS = 30
"""Of one command; most take a hundredth of one."""
MEMORY = 3 << 30
"""Bytes of address space that one command may add."""
LONGEST = 2000
"""Characters of a refusal: what is refused may be long, what is said of it not."""


@dataclass(frozen=True)
class Case:
    """A command line, and files that are bad beside those that are always there.

    Attributes:
        words: what stands after ``convscope``.
        files: content by name; None: the file that is always there is missing.
        own: folder of what is always there that the command may write to if it does its work.
    """

    words: tuple[str, ...]
    files: Mapping[str, bytes | None] = field(default_factory=dict)
    own: str = ""

    @property
    def key(self) -> tuple[object, ...]:
        """The same for the same input."""
        return self.words, tuple(sorted(self.files.items()))


@dataclass(frozen=True)
class Outcome:
    """How a command ended, with all that it printed."""

    code: object
    out: str
    err: str


class Hung(BaseException):
    """A command that took too long; no ``except Exception`` holds it."""


def typed(words: tuple[str, ...]) -> Outcome:
    """Run a command line as its user does, warnings on standard error included."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = lambda message, *place: print(f"warning: {message}", file=sys.stderr)
        try:
            main([*words, "--quiet"])
            code: object = 0
        except SystemExit as stop:
            code = stop.code
    return Outcome(code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Let a block have so many seconds and so much more memory; pytest's own alarm goes on afterwards."""

    def hung(*_: object) -> None:
        raise Hung(f"more than {SECONDS} s")

    earlier = signal.signal(signal.SIGALRM, hung)
    left = signal.setitimer(signal.ITIMER_REAL, SECONDS)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    pages = Path("/proc/self/statm")
    if pages.exists():
        now = int(pages.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.setitimer(signal.ITIMER_REAL, *left)
        signal.signal(signal.SIGALRM, earlier)


class Workplace:
    """A folder with files that are always there, in which inputs are tried one after the other.

    Args:
        folder: is the current one while a command runs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._always = self._content()

    def refuses(self, case: Case) -> bool:
        """Whether an input is refused as it should be; False if it is no bad one, and the command ran.

        Raises:
            AssertionError: something that is asked of every input doesn't hold.
        """
        modules, path = set(sys.modules), list(sys.path)
        self._lay(case)
        before = self._content()
        try:
            with contextlib.chdir(self.folder), bounded(), mock.patch.object(sys, "argv", ["convscope"]):
                outcome = typed(case.words)
            after = self._content()
        finally:
            self._restore()
            sys.path[:] = path
            for name in set(sys.modules) - modules:
                if getattr(sys.modules[name], "__file__", None) or name.startswith("convscope_reference"):
                    self._forget(name)
        assert judged(outcome), outcome
        lost = {name for name in before if after.get(name) != before[name]}
        if outcome.code != 2 and case.own:
            lost = {name for name in lost if not name.startswith(f"{case.own}/")}
        assert not lost, (lost, outcome)
        if outcome.code == 2:
            assert not after.keys() - before.keys(), (after.keys() - before.keys(), outcome)
        return outcome.code == 2

    def _forget(self, name: str) -> None:
        """Take a module of this folder out, for another case may give its file another content."""
        file = getattr(sys.modules[name], "__file__", None) or ""
        if name.startswith("convscope_reference") or Path(file).is_relative_to(self.folder):
            del sys.modules[name]

    def _content(self) -> dict[str, bytes | None]:
        """Every file's bytes; None for a folder."""
        return {
            str(path.relative_to(self.folder)): path.read_bytes() if path.is_file() else None
            for path in sorted(self.folder.rglob("*"))
            if "__pycache__" not in path.parts
        }

    def _lay(self, case: Case) -> None:
        for name, content in case.files.items():
            file = self.folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.unlink(missing_ok=True) if content is None else file.write_bytes(content)

    def _restore(self) -> None:
        for name, content in self._content().items():
            path = self.folder / name
            if name not in self._always and (path.is_file() or path.is_symlink()):
                path.unlink()
            elif name not in self._always:
                shutil.rmtree(path, ignore_errors=True)
            elif content != self._always[name]:
                path.write_bytes(self._always[name] or b"")
        for name, content in self._always.items():
            if content is None:
                (self.folder / name).mkdir(exist_ok=True)
            elif not (self.folder / name).exists():
                (self.folder / name).write_bytes(content)


def judged(outcome: Outcome) -> bool:
    """Whether what a command said and its exit code are in order, whatever it was given."""
    if not is_plain(outcome.out) or not is_plain(outcome.err):
        return False
    if outcome.code in (0, 1):  # 1: a gate that failed, or no batch that fits
        return bool(outcome.out)
    lines = outcome.err.splitlines()
    said = len(lines) == 1 and lines[0].startswith("convscope: ") and len(lines[0]) <= LONGEST
    # Of several networks, those that can be read are shown before the others are refused.
    return outcome.code == 2 and said and (not outcome.out or "couldn't be read" in outcome.err)


def is_plain(text: str) -> bool:
    """Whether a terminal only prints it: no control character, no stray byte, no turned direction."""
    return all(char.isprintable() or char == "\n" for char in text)
