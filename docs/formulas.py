"""The formulas of a page as MathML, which browsers draw by themselves: the site loads nothing for them.

In the repository they stand as GitHub shows them: blocks of ``math`` with a number, ``$…$`` within a line.
"""

import re

_BLOCK = re.compile(r"^```math\n(.*?)\n```$", re.MULTILINE | re.DOTALL)
_TAG = re.compile(r"\s*\\tag\{(\d+)\}")
_CODE = re.compile(r"(^```.*?^```$|`[^`]*`)", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"\$([^$\n]+)\$")
_MARKDOWN = str.maketrans({sign: f"&#{ord(sign)};" for sign in "*_|`\\[]~^"})


def with_formulas(text: str) -> str:
    """Return a page in Markdown whose formulas are MathML; code stays as it is."""
    parts = _CODE.split(_BLOCK.sub(lambda found: _block(found[1]), text))
    for place in range(0, len(parts), 2):  # between code
        parts[place] = _INLINE.sub(_inline, parts[place])
    return "".join(parts)


def _block(formula: str) -> str:
    number = _TAG.search(formula)
    drawn = _mathml(_TAG.sub("", formula), "block")
    label = f'<span style="float:right">({number[1]})</span>' if number else ""
    return f'<div style="overflow-x:auto;margin:1em 0">{label}{drawn}</div>'


def _inline(found: re.Match[str]) -> str:
    """A formula within a line; Markdown would take one that begins a line for a block of its own."""
    return f"<span>{_mathml(found[1], 'inline')}</span>"


def _mathml(formula: str, display: str) -> str:
    from latex2mathml.converter import convert

    plain = formula.replace("{gathered}", "{matrix}")  # several lines under each other
    return str(convert(plain, display=display)).translate(_MARKDOWN)
