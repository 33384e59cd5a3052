"""What a page says that a command prints, and whether it does.

A block of ``bash`` with one command, and the block without a language behind it, belong together. In the
latter a line ``…`` stands for any lines, and ``…`` within a line for anything in it; the rest is compared
character by character, but for spaces at the ends of lines.
"""

import re
import shlex

_PAIR = re.compile(
    r"^```bash\n(?P<command>(?:(?!```)[^\n]*\n)+)```\n\n```\n(?P<told>(?:(?!```)[^\n]*\n)*)```$", re.MULTILINE
)


def commands_with_output(text):
    """The words after ``convscope`` of each command whose output a page quotes, with what it quotes."""
    return [(_words(found["command"]), found["told"]) for found in _PAIR.finditer(text)]


def _words(command):
    (line,) = re.sub(r"\\\n\s*", " ", command).strip().splitlines()
    program, *words = shlex.split(line, comments=True)
    assert program == "convscope", line
    return tuple(words)


def pattern(told):
    """The pattern of a whole output of which a page quotes this."""
    parts = []
    for line in told.splitlines():
        if line.strip() == "…":
            parts.append(r"(?:.*\n)*?")
        else:
            parts.append(".*".join(map(re.escape, line.rstrip().split("…"))) + r"[ ]*\n")
    return re.compile("".join(parts))


def first_line_missed(told, printed):
    """The first quoted line that the output doesn't have in its place, or None where all is as quoted."""
    printed = printed.rstrip("\n") + "\n"
    if pattern(told).fullmatch(printed):
        return None
    lines = told.splitlines()
    for count in range(1, len(lines) + 1):
        if not pattern("\n".join(lines[:count])).match(printed):
            return lines[count - 1]
    return "the end: more was printed than is quoted"


def shortened(told):
    """The quoted lines, with any lines between them."""
    lines = [line for line in told.splitlines() if line.strip()]
    return "…\n" + "".join(f"{line}\n…\n" for line in lines)


def without_decimals(text):
    """The text with # for each number with decimals, which machines differ in, and one space for several."""
    return re.sub(r"[ ]+", " ", re.sub(r"-?\d+\.\d+(?:e[-+]\d+)?", "#", text))
