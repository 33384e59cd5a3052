"""Pictures beside one another with captions, as one picture file."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Bytes = NDArray[np.uint8]
Line = tuple[str, tuple[int, int, int] | None]
"""A line of a caption, and the colour of a square before it."""
Panel = tuple[Bytes, list[Line]]
"""A picture (h, w, 3), and its caption."""

PANEL = 288
_MARGIN, _LINE = 10, 17


def beside(panels: Sequence[Panel]) -> Image.Image:
    """Return panels of one size beside one another, each with its lines below it."""
    height, width = panels[0][0].shape[:2]
    scale = PANEL / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    lines = max(len(said) for _, said in panels)
    whole = (
        _MARGIN + len(panels) * (PANEL + _MARGIN),
        2 * _MARGIN + size[1] + lines * _LINE,
    )
    sheet = Image.new("RGB", whole, "white")
    drawer, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for place, (picture, said) in enumerate(panels):
        left = _MARGIN + place * (PANEL + _MARGIN)
        sheet.paste(Image.fromarray(picture).resize(size, Image.Resampling.NEAREST), (left, _MARGIN))
        for line, (text, colour) in enumerate(said):
            top = _MARGIN + size[1] + 3 + line * _LINE
            if colour is not None:
                drawer.rectangle((left, top + 2, left + 11, top + 13), fill=colour)
            start = left + (16 if colour is not None else 0)
            drawer.text((start, top), _fitting(text, font, PANEL - 18), fill="black", font=font)
    return sheet


def _fitting(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The text without what doesn't fit, and without what a font can't draw."""
    text = "".join(character if character.isprintable() else "?" for character in text)
    while text and font.getlength(text) > width:
        text = text[:-2] + "…" if len(text) > 2 else ""
    return text
