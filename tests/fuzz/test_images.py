"""Pictures: damaged, cut off, of odd modes and kinds, with false names, with sizes that they only claim."""

import io
import struct
import zlib

import pytest
from hypothesis import strategies as st
from PIL import Image

from fuzz.damage import damaged
from fuzz.rounds import QUICK, refused
from fuzz.trial import Case
from fuzz.words import TERMINAL

NOISE = Image.effect_noise((24, 20), 80)
MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"), "JPEG": ("L", "RGB", "CMYK", "YCbCr"),
    "WEBP": ("RGB", "RGBA"),
    "BMP": ("1", "L", "P", "RGB"), "GIF": ("L", "P"), "TIFF": ("RGB", "F"), "PPM": ("L", "RGB"),
    "ICO": ("RGBA",),
    "TGA": ("RGB",), "PCX": ("L",), "SGI": ("RGB",), "PDF": ("RGB",), "EPS": ("RGB",),
    "DIB": ("RGB",),
}  # fmt: skip
READ = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
SIDES = (0, 1, 2, 65_535, 10**6, 2**31 - 1, 2**31, 2**32 - 1)
ENDINGS = (".png", ".jpg", ".JPEG", ".gif", ".txt", ".svg", "", ".png.exe", ".tar", ".pt2")
LINES = (
    ("project", "net.py:build", "{}", "--layer", "2", "--unit", "0"),
    ("occlusion", "net.py:build", "{}", "--window", "16", "--stride", "16"),
)


def _saved(kind, mode, **options):
    buffer = io.BytesIO()
    image = NOISE.convert("I").convert("I;16") if mode == "I;16" else NOISE.convert(mode)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


NOTES = (
    b"",
    _chunk(b"tEXt", b"a" * 9),
    _chunk(b"iCCP", b"x\0\0y"),
    _chunk(b"acTL", b"\xff" * 8),
    _chunk(b"zTXt", b"k\0\0" + zlib.compress(b"b" * 10**7)),
    _chunk(b"eXIf", b"MM\0*"),
)


@st.composite
def _claiming(draw):
    """A whole header of a small file that says it is of any size, depth and kind."""
    width, height = draw(st.sampled_from(SIDES)), draw(st.sampled_from(SIDES))
    kind = draw(st.sampled_from(("png", "png", "bmp", "gif", "jpeg", "webp")))
    pixels = draw(st.sampled_from((b"", b"\0" * 20, zlib.compress(b"\0" * 10**6), zlib.compress(b"")[:4])))
    if kind == "png":
        depth, colour = draw(st.sampled_from((1, 8, 16, 3, 255))), draw(st.sampled_from((0, 2, 3, 4, 6, 9)))
        head = struct.pack(
            ">IIBBBBB", width, height, depth, colour, *draw(st.sampled_from(((0, 0, 0), (1, 0, 9))))
        )
        extra = draw(st.sampled_from(NOTES))
        return (
            b"\x89PNG\r\n\x1a\n"
            + _chunk(b"IHDR", head)
            + extra
            + _chunk(b"IDAT", pixels)
            + _chunk(b"IEND", b"")
        )
    if kind == "bmp":
        bits, packing = draw(st.sampled_from((1, 4, 8, 24, 32, 7))), draw(st.sampled_from((0, 1, 3, 99)))
        return (
            b"BM"
            + struct.pack("<IIIIIIHHIIiiII", 99, 0, 54, 40, width, height, 1, bits, packing, 0, 0, 0, 0, 0)
            + pixels
        )
    if kind == "gif":
        return b"GIF89a" + struct.pack("<HHBBB", width & 0xFFFF, height & 0xFFFF, 0xF7, 0, 0) + pixels
    if kind == "webp":
        return (
            b"RIFF" + struct.pack("<I", 30) + b"WEBPVP8X" + struct.pack("<IB", 10, 2) + b"\xff" * 9 + pixels
        )
    size = struct.pack(">BHHB", 8, height & 0xFFFF, width & 0xFFFF, 3)
    return b"\xff\xd8\xff\xc0\0\x11" + size + b"\1\x11\0\2\x11\1\3\x11\1" + pixels + b"\xff\xd9"


@st.composite
def _exif(draw):
    """A picture whose notes about itself are noise: kinds, counts and places that lead nowhere."""
    order = draw(st.sampled_from((b"MM\0*", b"II*\0", b"XX")))
    entry = st.binary(min_size=12, max_size=12) | st.just(b"\1\x12\0\3\0\0\0\1\0\x09\0\0")
    entries = draw(st.lists(entry, max_size=4))
    notes = (
        b"Exif\0\0" + order + b"\0\0\0\x08" + struct.pack(">H", draw(st.integers(0, 9))) + b"".join(entries)
    )
    return draw(damaged(_saved(draw(st.sampled_from(("JPEG", "WEBP", "PNG"))), "RGB", exif=notes)))


@st.composite
def lines(draw):
    """A command that looks at one picture which is none, or at a folder of such."""
    kind = draw(st.sampled_from((*READ * 3, *MODES)))
    whole = _saved(kind, draw(st.sampled_from(MODES[kind])))
    content = draw(damaged(whole) | _claiming() | _exif() | st.just(whole))
    if draw(st.integers(0, 7)) == 0:  # several, of which none may be left
        files = {f"odd/{number}.png": content[number:] for number in range(3)}
        command = draw(st.sampled_from(("stem", "gallery", "invariance", "checkup")))
        return Case((command, "net.py:build", "--data", "odd"), files)
    name = "odd" + draw(st.sampled_from(("", "", "", *TERMINAL[:7]))) + draw(st.sampled_from(ENDINGS))
    words = draw(st.sampled_from(LINES))
    return Case(tuple(word.format(name) for word in words), {name: content})


@pytest.mark.parametrize("share", [QUICK, pytest.param(1, marks=pytest.mark.slow)])
def test_they_are_refused(place, share):
    refused("test_images", lines(), place, share)
