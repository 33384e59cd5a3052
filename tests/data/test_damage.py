import errno

import pytest
from PIL import UnidentifiedImageError

from convscope.core.printable import printable
from convscope.data import Damage
from convscope.data.damage import all_damaged, reason_of


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Füße 1.png", "Füße 1.png"),
        ("<b>.png", "<b>.png"),
        ("a\nb.png", r"a\nb.png"),
        ("\x1b[31m.png", r"\x1b[31m.png"),
        ("\udcff.png", r"\xff.png"),
        ("a\u202egnp.exe", r"a\u202egnp.exe"),
    ],
)
def test_names_are_one_printable_line(name, shown):
    assert printable(name) == shown
    assert Damage(name, name) == Damage(shown, shown)
    assert Damage(name, "x").path.encode() == shown.encode()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            UnidentifiedImageError("cannot identify <BytesIO at 0x7f>"),
            "not a PNG, JPEG, WebP, BMP or GIF picture",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "/secret"), "can't be read (Permission denied)"),
        (OSError("image file is truncated"), "OSError: image file is truncated"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_reasons_are_short(error, reason):
    assert reason_of(error) == reason


def test_an_error_names_the_first_reasons():
    text = str(all_damaged("pictures", [Damage(f"{i}.png", f"reason {i}") for i in range(1000)]))
    assert (
        "none of 1,000 can be read (0.png: reason 0; 1.png: reason 1; 2.png: reason 2; and 997 more)" in text
    )
    assert "more" not in str(all_damaged("pictures", [Damage("a.png", "why")]))
