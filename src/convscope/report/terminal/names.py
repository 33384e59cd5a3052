"""Long names in narrow columns: they break after dots, then after underscores, then anywhere."""

import re
from collections.abc import Iterator

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.text import Text

_WORDS = re.compile(r"[^. :]+[. ]*|[. :]+[^. :]*[. ]*")
_PARTS = re.compile(r"[^_-]*[_-]|[^_-]+")


class Name:
    """A text that breaks where its reader can still put it together.

    Args:
        text: the name, such as ``features.denseblock3.conv1#1:relu``, with its style.
    """

    def __init__(self, text: Text) -> None:
        self._text = text

    def __str__(self) -> str:
        return self._text.plain

    @property
    def width(self) -> int:
        """Cells of the whole name on one line."""
        return self._text.cell_len

    @property
    def word_width(self) -> int:
        """Cells of its longest part between dots, colons and spaces."""
        return max(map(_wide, _words(self._text.plain)), default=0)

    @property
    def part_width(self) -> int:
        """Cells of its longest part between underscores and hyphens too."""
        return max((_wide(part) for word in _words(self._text.plain) for part in _parts(word)), default=0)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Return the widths of the longest part and of the whole."""
        return Measurement(self.part_width, self.width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the name on as many lines as the room asks for."""
        lines = "\n".join(broken(self._text.plain, options.max_width))
        yield Text(lines, style=self._text.style, overflow="fold")


def broken(name: str, width: int) -> list[str]:
    """Return a name's lines in a column of so many cells.

    Example:
        >>> broken("features.denseblock3.conv1#1", 15), broken("adaptive_avg_pool2d", 13)
        (['features.', 'denseblock3.', 'conv1#1'], ['adaptive_avg_', 'pool2d'])
    """
    lines = [""]
    for word in _words(name):
        for part in [word] if _wide(word) <= width else _parts(word):
            if lines[-1] and _wide(lines[-1] + part) > width:
                lines.append("")
            lines[-1] += part
    return [line.rstrip() for line in lines]


def _words(name: str) -> list[str]:
    """``layer1.0:add`` as ``layer1.``, ``0`` and ``:add``."""
    return _WORDS.findall(name)


def _parts(word: str) -> Iterator[str]:
    return (match[0] for match in _PARTS.finditer(word))


def _wide(text: str) -> int:
    return cell_len(text.rstrip())
