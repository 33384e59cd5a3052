"""Every reason that the code of folds can give has a row in ``docs/folding.md``: both are read as texts."""

import ast
import re
from pathlib import Path

import pytest

import convscope as cs

FOLD = Path(cs.__file__).parent / "fold"
PAGE = (Path(__file__).parents[2] / "docs" / "folding.md").read_text()
SECTION = PAGE.partition("## What the ledger says")[2].partition("\n## ")[0]
CELLS = [line.split("|")[1].strip() for line in SECTION.splitlines() if line.startswith("| ")]
PHRASES = [phrase.strip() for cell in CELLS if cell != "the ledger says" for phrase in cell.split("<br>")]

# Which argument of a call is a reason; merged branches that stay apart give theirs to no ledger.
ARGUMENTS = {"Stays": 0, "ShiftStays": 0, "demand": 2, "fix": 1, "opaque": 1}
NAMES = {"why", "reason", "shift"}
RETURNS = (
    "planning/reasons.py",
    "planning/survey.py",
    "paths/certain.py",
    "proof/blame.py",
    "layers/kinds.py",
)
# What only holds other texts together.
PARTS = {"… can't go back: …; nor on: …", "… (…)", "… …"}


def pieces(text):
    """The words of a text between what is put into it."""
    return [piece.strip(" :,;()") for piece in re.split("…|, | but ", text) if piece.strip(" :,;()")]


def texts(node):
    """The texts that an expression may be, with … for what is put into them; none for what isn't a text."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.JoinedStr):
        return ["".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)]
    if isinstance(node, ast.IfExp):
        return texts(node.body) + texts(node.orelse)
    if isinstance(node, ast.BoolOp):
        return [text for value in node.values for text in texts(value)]
    return []


def reasons_in(path):
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            place = ARGUMENTS.get(name)
            if place is not None and len(node.args) > place:
                found += texts(node.args[place])
        elif (isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in NAMES) or (
            isinstance(node, ast.Return) and str(path).endswith(RETURNS)
        ):
            found += texts(node.value)
    return [text for text in found if " " in text.strip() and text not in PARTS]


FILES = [
    path for path in sorted(FOLD.rglob("*.py")) if path.relative_to(FOLD).parts[0] not in ("merge", "export")
]
REASONS = [(path.relative_to(FOLD).as_posix(), text) for path in FILES for text in reasons_in(path)]


def test_reasons_are_found_in_the_code():
    assert len(REASONS) > 70
    assert ("gauge/rules/maxima.py", "… passes no shift") in REASONS


def says(phrase, text):
    """Whether a phrase of the table is a reason's text, or how one begins that goes on in some other way."""
    begins = phrase.endswith("…") and all(piece in text for piece in pieces(phrase))
    return begins or all(piece in phrase for piece in pieces(text))


@pytest.mark.parametrize(("file", "text"), REASONS)
def test_a_reason_has_a_row(file, text):
    assert any(says(phrase, text) for phrase in PHRASES), file


@pytest.mark.parametrize("phrase", PHRASES)
def test_a_row_is_of_a_reason(phrase):
    """Words of the table that nothing in the code says are left over from an older version."""
    sources = " ".join(" ".join(path.read_text() for path in FILES).replace('"', "").split())
    assert any(piece in sources for piece in pieces(phrase) if " " in piece)
