"""Words that come from outside, such as file names, on a terminal: nothing in them is obeyed."""

import json
import re

_OVERLONG = re.compile(r"(\S{100})\S{200,}(\S{100})")


def printable(text: str) -> str:
    r"""Return a text on one line, with escapes for what can't be printed: line ends, codes, stray bytes.

    File names may hold any byte. Those that aren't UTF-8 reach Python as surrogates, which no file in UTF-8
    takes; terminals obey control characters; others turn the direction of writing.

    Example:
        >>> print(printable("a\nb\udcff.png"), printable("Füße 1.png"))
        a\nb\xff.png Füße 1.png
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def in_short(text: str) -> str:
    """Return a text whose overlong words have lost their middles: a message shall not drown in its input.

    Example:
        >>> in_short("no file " + 5000 * "x") == "no file " + 100 * "x" + "…" + 100 * "x"
        True
    """
    return _OVERLONG.sub(r"\1…\2", text)


def printable_json(text: str) -> str:
    r"""Return a JSON text, which may have lines, with escapes for what else can't be printed.

    Example:
        >>> print(printable_json('["\u009b31m", "é"]'))
        ["\u009b31m", "é"]
    """
    return "".join(char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in text)


def _escaped(char: str) -> str:
    is_stray_byte = "\udc80" <= char <= "\udcff"
    return f"\\x{ord(char) - 0xDC00:02x}" if is_stray_byte else repr(char)[1:-1]
