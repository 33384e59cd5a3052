"""The picture of a first layer's filters: on the page of its report, and as a file beside it."""

import base64
import io
from pathlib import Path

from jaxtyping import Float
from PIL import Image, UnidentifiedImageError
from torch import Tensor

FILE = "first-layer.png"
_MOST_BYTES, _MOST_PIXELS = 8 * 2**20, 4096**2


def png_of(grid: Float[Tensor, "height width 3"]) -> bytes:
    """Return a picture with values from 0 to 1 as a PNG file."""
    values = (grid.detach().cpu().float().clamp(0, 1) * 255).round().byte().numpy()
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def data_address(png: bytes) -> str:
    """Return a PNG file as a ``data:`` address.

    Example:
        >>> data_address(b"png")
        'data:image/png;base64,cG5n'
    """
    return "data:image/png;base64," + base64.b64encode(png).decode()


def read_png(path: Path) -> tuple[bytes, int, int] | None:
    """Return a PNG file that lies at a path, its width and its height; None if none of a usual size does."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            return None
        content = path.read_bytes()
        with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
            width, height = picture.size
            if width * height > _MOST_PIXELS:
                return None
            picture.verify()
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError):
        return None
    return content, width, height
