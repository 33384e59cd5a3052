"""Every command of the documentation's pages, and what a reader who tries it puts in its places.

A command is a line with ``convscope`` in a block of ``bash``, or stands between backticks. In a line such as
``torchrun … -m convscope train …`` the command is what follows ``convscope``.
"""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
FIRST = [DOCS / "start.md", *sorted((DOCS / "questions").glob("*.md"))]
TOUR = sorted((DOCS / "tour").glob("*.md"))

PLACES = {
    "FOLDER": "pictures",
    "DIR": "pictures",
    "NETWORK": "net.py:build",
    "MODEL": "net.py:build",
    "FILE": "net.onnx",
    "FILE.safetensors": "mended.safetensors",
    "FAULT": "stale-statistics",
    "FIRST": "before",
    "SECOND": "after",
    "NAME": "bn-speed",
    "name": "bn-speed",
}
"""What the pages write where the reader is to put something, and what is put there."""
_PLACE = re.compile(r"(?<![\w./-])(?:[A-Z]{2,}(?:\.safetensors)?|(?<=compare )name)(?![\w./-])")
_FOUND = re.compile(
    r"^```bash\n(?P<block>.*?)^```|(?<!`)`(?P<between>(?:torchrun [^`]*-m )?convscope [^`]+)`(?!`)",
    re.DOTALL | re.MULTILINE,
)


def shell_lines(page):
    """The lines of a page's shell blocks and its commands between backticks, in the order of reading."""
    lines = []
    for found in _FOUND.finditer(page.read_text(encoding="utf-8")):
        if found["between"]:
            lines.append(" ".join(found["between"].split()))
        else:
            block = re.sub(r"\s*\\\n\s*", " ", found["block"])
            lines += [line.partition("  #")[0].strip() for line in block.splitlines()]
    return list(dict.fromkeys(line for line in lines if line))


def commands(page):
    """Those of them that run convscope, with every place filled."""
    return [filled(line) for line in shell_lines(page) if "convscope " in line]


def filled(line):
    """The line with what is put in its places."""
    return _PLACE.sub(lambda place: PLACES[place[0]], line)


def words_of(line):
    """What follows ``convscope``."""
    return line.partition("convscope ")[2]


def is_mention(words):
    """Whether they only name a command that takes more: ``convscope cost``."""
    return " " not in words and words != "networks"


ALL = [
    (page.relative_to(ROOT).as_posix(), line)
    for page in PAGES
    for line in commands(page)
    if not is_mention(words_of(line))
]
