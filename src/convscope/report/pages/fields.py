"""Numbers and texts of a page, each carrying the place in the page's data that it was written from.

``<span data-field="cost.totals.params" data-format="count">62.4 M</span>`` says: take the field ``cost``,
in it ``totals``, in it ``params``, of the JSON in the page, and write it with the format ``count``.
Templates never write a result's value in any other way, so page and data can't disagree.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from convscope.report.wording.formats import MISSING, evidence_format, exact, singular, write
from convscope.report.wording.speed import about_one

_METHODS = {"the table's rows": "a sum over rows of the cost table, whole batch"}
_NO_NAME = re.compile(r"[^\w-]+")
_NUMBER = re.compile(r"-?\d[\d.,]*(?:e[+-]?\d+)?")


def at(data: Any, path: str) -> Any:
    """Return what lies at a path in plain data; None where a part of the path is None.

    Args:
        data: nested dictionaries and lists.
        path: keys and list positions, separated by dots. A key may contain dots: the longest key that
            fits is taken.

    Raises:
        KeyError: there is no such place.

    Example:
        >>> at({"rows": [{"macs": 3}]}, "rows.0.macs")
        3
    """
    parts = path.split(".")
    while parts:
        if data is None:
            return None
        if isinstance(data, Sequence) and not isinstance(data, str):
            data = data[int(parts.pop(0))]
            continue
        for length in range(len(parts), 0, -1):
            key = ".".join(parts[:length])
            if isinstance(data, Mapping) and key in data:
                data, parts = data[key], parts[length:]
                break
        else:
            raise KeyError(path)
    return data


def script_json(value: Any) -> Markup:
    r"""Return JSON that may stand inside a ``<script>`` element: no text in it can end the element.

    ``<``, ``>``, ``&`` and the line separators of JavaScript are written as ``\u`` escapes, which JSON
    reads as the same characters.

    Example:
        >>> print(script_json({"name": "</script>"}))
        {"name":"\u003c/script\u003e"}
    """
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # the escapes above make it safe


@dataclass(frozen=True)
class Fields:
    """Writes the fields of one page's data.

    Attributes:
        data: the page's data: plain dictionaries, lists, strings and numbers.
    """

    data: Mapping[str, Any]

    def get(self, path: str) -> Any:
        """Return the value at ``path``."""
        return at(self.data, path)

    def has(self, path: str) -> bool:
        """Whether there is a value at ``path``."""
        try:
            return self.get(path) is not None
        except (KeyError, IndexError, ValueError):
            return False

    def items(self, path: str) -> list[str]:
        """Return the paths of the items of the list (or of the dictionary's values) at ``path``."""
        value = self.get(path)
        if value is None:
            return []
        keys = value if isinstance(value, Mapping) else range(len(value))
        return [f"{path}.{key}" for key in keys]

    def number(self, path: str, form: str, unit: str, method: str) -> Markup:
        """Return the number at ``path`` as an element with its unit, and how it was measured as its title.

        Args:
            path: where it is in the data.
            form: a name in :data:`convscope.report.wording.formats.FORMATS`.
            unit: written behind the number, where the format doesn't write it; may be empty.
            method: how the number was had, in a few words.
        """
        value = self.get(path)
        if value is None:
            return Markup(
                '<span class="n none" data-field="{}" data-format="{}" title="{}">{}</span>'
            ).format(path, form, method, MISSING)
        title = " · ".join(part for part in (_exact(value, form, unit), method) if part)
        if title == write(form, value):  # nothing that doesn't stand there already
            title = ""
        hover = Markup(' title="{}"').format(title) if title else ""
        written = Markup('<span class="n" data-field="{}" data-format="{}"{}>{}</span>').format(
            path, form, hover, write(form, value)
        )
        return written + (Markup('<span class="unit">&#8239;{}</span>').format(unit.strip()) if unit else "")

    def in_column(self, path: str, form: str, unit: str = "") -> Markup:
        """Return the number at ``path`` for a table whose column's head says how its numbers were had.

        The page's script adds the head's words to the number's title when it is pointed at; in the page they
        would stand once for every layer.
        """
        return self.number(path, form, unit, "")

    def text(self, path: str, form: str = "text") -> Markup:
        """Return the text at ``path`` as an element; names with mark-up in them are escaped."""
        return Markup('<span data-field="{}" data-format="{}">{}</span>').format(
            path, form, write(form, self.get(path))
        )

    def evidence(self, path: str, in_column: bool = False) -> Markup:
        """Return the number of the evidence at ``path``, in the form that its unit asks for.

        Args:
            path: where it is in the data.
            in_column: it stands in a table whose column's head says how it was had.
        """
        name = self.get(f"{path}.name")
        how = "" if in_column else _METHODS.get(method := self.get(f"{path}.method"), method) or name
        form, unit = evidence_format(self.get(f"{path}.unit"), name, self.get(f"{path}.value"))
        return self.number(f"{path}.value", form, unit, how)

    def alike(self, first: str, second: str) -> bool:
        """Whether two findings say the same but for numbers, and rest on the same kinds of evidence."""
        kinds = [[(e["name"], e["unit"]) for e in self.get(f"{path}.evidence")] for path in (first, second)]
        same = all(
            self.get(f"{first}.{name}") == self.get(f"{second}.{name}") for name in ("remedy", "source")
        )
        words = [_NUMBER.sub("", self.get(f"{path}.why")) for path in (first, second)]
        return same and bool(kinds[0]) and kinds[0] == kinds[1] and words[0] == words[1]

    def card_id(self, listed: str, path: str) -> str:
        """Return the name, within the page, of the card with the findings of one fault and severity.

        Args:
            listed: where the findings of a reading are in the data: ``"checkup.findings"``.
            path: where one of them is.
        """
        parts = listed.split(".")[0], self.get(f"{path}.severity"), self.get(f"{path}.fault")
        return _NO_NAME.sub("-", "-".join(("finding", *parts)))

    def card_of(self, path: str) -> str:
        """Return the name of the card of the ranked finding at ``path``; empty if there is none."""
        listed = f"{self.get(f'{path}.reading')}.findings"
        wanted = [self.get(f"{path}.finding.{name}") for name in ("severity", "fault")]
        known = self.get(listed) if self.has(listed) else ()
        is_there = any([each["severity"], each["fault"]] == wanted for each in known)
        return self.card_id(listed, f"{path}.finding") if is_there else ""

    def noun(self, path: str, plural: str) -> str:
        """Return a noun in the number that the value at ``path`` asks for."""
        return singular(plural) if self.get(path) == 1 else plural

    def spans_one(self, path: str) -> bool:
        """Whether the quartiles of the ratio at ``path`` have 1 between them: it may be noise."""
        return about_one(self.get(f"{path}_low"), self.get(f"{path}_high"))

    def bar(self, path: str, largest: float) -> Markup:
        """Return a bar as long as the value's share of ``largest``; nothing for 0. It has no words."""
        value = self.get(path)
        if not value:
            return Markup()
        share = 100 * value / largest if largest else 0.0
        return Markup('<i class="bar"><i style="width:{}%"></i></i>').format(f"{share:.2f}")

    def largest(self, paths: Sequence[str], field: str) -> float:
        """Return the largest value of ``field`` below the given paths; 0 if there is none."""
        return max((self.get(f"{path}.{field}") or 0 for path in paths), default=0)


def _exact(value: Any, form: str, unit: str) -> str:
    """The number with all its digits, where the format rounds it."""
    whole = {"count": unit.strip(), "bytes": "B", "percent": "", "ratio": "", "seconds": "s"}
    if form not in whole or isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    return f"{exact(value)} {whole[form]}".strip()
