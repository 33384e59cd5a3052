"""Names of tar files: braces such as ``{000..009}`` and globs such as ``*.tar`` written out."""

import glob
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from convscope.core.errors import ConvscopeError
from convscope.core.paths import exists, is_folder

_ARCHIVE = re.compile(r"\.(tar|tar\.\w+|tgz|tbz2?|txz)$", re.IGNORECASE)
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MOST = 1_000_000


def names_archives(pictures: Any) -> bool:
    """Whether a text or a list of texts names tar files, plain or compressed."""
    if isinstance(pictures, str | Path):
        return bool(_ARCHIVE.search(str(pictures))) and not is_folder(pictures)
    is_list = isinstance(pictures, list | tuple) and bool(pictures)
    return is_list and all(isinstance(each, str | Path) and names_archives(each) for each in pictures)


def shard_files(pictures: str | Path | list[str | Path] | tuple[str | Path, ...]) -> list[Path]:
    """Return the files that names stand for, each once, in the order of the names.

    Raises:
        ConvscopeError: one doesn't exist, or a glob matches none.
    """
    texts = [pictures] if isinstance(pictures, str | Path) else pictures
    return [Path(file) for file in dict.fromkeys(file for text in texts for file in _files(str(text)))]


def _files(text: str) -> Iterator[str]:
    for name in [text] if exists(text) else written_out(text):
        found = [name] if exists(name) else sorted(glob.glob(name, recursive=True))  # noqa: PTH207 (pathlib takes no absolute patterns)
        if not found:
            raise _missing(name, text)
        yield from found


def written_out(text: str) -> Iterator[str]:
    """Yield what braces stand for: ``{08..11}`` for a range, as wide as written; ``{a,b}`` for choices.

    Raises:
        ConvscopeError: that would be more than a million names.

    Example:
        >>> list(written_out("{train,val}-{08..10}.tar"))  # doctest: +NORMALIZE_WHITESPACE
        ['train-08.tar', 'train-09.tar', 'train-10.tar', 'val-08.tar', 'val-09.tar', 'val-10.tar']
    """
    pieces = _BRACES.split(text)  # what lies outside, inside, outside, … the braces
    choices = [[piece] if place % 2 == 0 else _choices(piece, text) for place, piece in enumerate(pieces)]
    count = 1
    for each in choices:
        count *= len(each)
        if count > _MOST:
            raise _too_many(text)
    return map("".join, product(*choices))


def _choices(inside: str, text: str) -> list[str]:
    span = _RANGE.fullmatch(inside)
    if span is None:
        return inside.split(",") if "," in inside else [f"{{{inside}}}"]
    first, last = span.groups()
    if abs(int(last) - int(first)) >= _MOST:
        raise _too_many(text)
    width = max(len(first), len(last)) if "0" in (first[0], last[0]) else 0
    step = 1 if int(first) <= int(last) else -1
    return [str(number).zfill(width) for number in range(int(first), int(last) + step, step)]


def _too_many(text: str) -> ConvscopeError:
    return ConvscopeError(f"pattern {text!r}", f"at most {_MOST:,} names", "give a smaller range")


def _missing(name: str, text: str) -> ConvscopeError:
    whole = "" if name == text else f" (of {text!r})"
    action = "nothing is downloaded: copy it here first" if "://" in name else "check the path or the range"
    return ConvscopeError(f"no tar file {name!r}{whole}", "files that exist", action)
