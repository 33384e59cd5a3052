"""What happens to files: bits that flip, ends and middles that are missing, values that aren't theirs."""

import copy
from typing import Any

from hypothesis import strategies as st

TEXTS = (b"", b"\0", b"\n", b"{", b"[]", b"null", b"NaN", b"\xff\xfe", b"PK\3\4", b"\x89PNG\r\n\x1a\n",
         b"GIF89a", b"\x80\x02}.", b"\0" * 64, b"\x1b]0;title\x07\x1b[31m",
         b"<svg/>", b"a,b\n" * 9)  # fmt: skip


def damaged(content: bytes) -> st.SearchStrategy[bytes]:
    """Return what may have become of a file."""

    @st.composite
    def changed(
        draw: st.DrawFn,
    ) -> bytes:  # has no arguments, for whole files in a strategy's name are no use
        kind = draw(st.sampled_from(("flipped", "flipped", "end", "middle", "inserted", "other")))
        if kind == "flipped":
            return _flipped(draw, content)
        if kind == "other":
            return draw(st.sampled_from(TEXTS) | st.binary(max_size=200))
        place = draw(st.integers(0, len(content)))
        if kind == "end":
            return content[:place]
        if kind == "middle":
            return content[:place] + content[place + draw(st.integers(0, len(content))) :]
        return content[:place] + draw(st.binary(min_size=1, max_size=40)) + content[place:]

    return changed()


def _flipped(draw: st.DrawFn, content: bytes) -> bytes:
    changed = bytearray(content)
    reach = draw(st.sampled_from((16, 64, 512, len(content))))  # headers say more than what follows them
    for _ in range(draw(st.integers(1, 8))):
        changed[draw(st.integers(0, min(reach, len(content)) - 1))] = draw(st.integers(0, 255))
    return bytes(changed)


VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, -(10**30), 1e308, -0.5, 1e-300, float("nan"),
    float("inf"),
    "", " ", "x", "1", "\x1b[31m", "\u0000", "\u202e", "é", "../../x", "/dev/null", "a" * 3000, [], [[]],
    [None], [1, "a"],
    [0] * 50, {}, {"": 0}, {"a": {"b": []}}, {"x": None}, [{}], "nan", "Infinity", "null",
)  # fmt: skip
"""Whatever JSON or TOML may hold where something else belongs."""


def altered(content: Any) -> st.SearchStrategy[Any]:
    """Return nested dictionaries and lists in which a few values were replaced, lost, doubled or renamed."""

    @st.composite
    def changed(draw: st.DrawFn) -> Any:
        whole = copy.deepcopy(content)
        for _ in range(draw(st.sampled_from((1, 1, 2, 4)))):
            at, key = _place_in(draw, whole)
            if key is None:
                return copy.deepcopy(draw(st.sampled_from(VALUES)))
            _alter(draw, at, key)
        return whole

    return changed()


def _place_in(draw: st.DrawFn, whole: Any) -> tuple[Any, Any]:
    """A dictionary or list inside and one of its keys; None where there is none."""
    at, key = whole, None
    for _ in range(draw(st.integers(1, 6))):
        inner = at if key is None else at[key]
        if not isinstance(inner, dict | list) or not inner:
            break
        keys = list(inner) if isinstance(inner, dict) else range(len(inner))
        at, key = inner, draw(st.sampled_from(keys))
    return at, key


def _alter(draw: st.DrawFn, at: Any, key: Any) -> None:
    kind = draw(st.sampled_from(("value", "value", "value", "lost", "doubled", "renamed", "wrapped")))
    if kind == "value":
        at[key] = copy.deepcopy(draw(st.sampled_from(VALUES)))
    elif kind == "wrapped":
        at[key] = [at[key]] if draw(st.booleans()) else {"x": at[key]}
    elif kind == "lost" or (kind == "renamed" and isinstance(at, list)):
        del at[key]
    elif isinstance(at, list):
        at.append(copy.deepcopy(at[key]))
    else:
        name = draw(st.sampled_from(("x", "", f"{key}s", str(key)[:-1], f"{key}\x1b[31m", "a.b")))
        at[name] = copy.deepcopy(at[key])
        if kind == "renamed" and name != key:
            del at[key]
