"""On which line of a TOML text a key stands; the standard parser doesn't tell.

The text is parsed up to every line in turn: the first beginning that holds the key ends with the key's
statement, and the last beginning that could be parsed before it ends right before that statement.
"""

import re
import tomllib
from collections.abc import Sequence
from typing import Any

Key = str | int
_BARE = r"(?<![\w\"'.-]){}(?=\s*[=.\]}}])"


def line_of(text: str, path: Sequence[Key]) -> int | None:
    r"""Return the line, from 1, of the key that a path leads to; None if the text can't say.

    Args:
        text: valid TOML.
        path: keys of tables, and positions in arrays.

    Example:
        >>> line_of('network = "zfnet"\n[settings]\nepohs = 3\n', ["settings", "epohs"])
        3
    """
    lines = text.split("\n")
    whole = 0
    for number in range(1, len(lines) + 1):
        try:
            parsed = tomllib.loads("\n".join(lines[:number]) + "\n")
        except tomllib.TOMLDecodeError:
            continue
        if _holds(parsed, path):
            return _within(lines, range(whole, number), str(path[-1]))
        whole = number
    return None


def _holds(content: Any, path: Sequence[Key]) -> bool:
    for key in path:
        try:
            content = content[key]
        except (KeyError, IndexError, TypeError):
            return False
    return True


def _within(lines: Sequence[str], statement: range, key: str) -> int:
    """Of a statement over several lines, the one with the key if a single one has it, else the first."""
    bare = re.escape(key)
    pattern = re.compile(f"{_BARE.format(bare)}|\"{bare}\"\\s*=|'{bare}'\\s*=")
    found = [number for number in statement if pattern.search(lines[number].split("#")[0])]
    return (found[0] if len(found) == 1 else statement[0]) + 1
