"""One unit's projection beside the image that it was made in, as one picture."""

import numpy as np
from PIL import Image, ImageDraw

from convscope.report.pictures.panels import PANEL, Bytes, beside
from convscope.report.wording.formats import number
from convscope.sight import Projection, as_picture

_FRAME = (255, 80, 0)


def projection_picture(view: Projection, image: Bytes) -> Image.Image:
    """Return the image with the pixels that the unit sees in a frame, and the projection.

    Args:
        view: what to draw.
        image: (h, w, 3), the network's input as a reader should see it.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from convscope.sight import project
        >>> view = project(nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU()), torch.rand(3, 12, 12), "1", 0)
        >>> projection_picture(view, np.zeros((12, 12, 3), np.uint8)).size[0]
        606
    """
    height, width = image.shape[:2]
    factor = max(1, PANEL // max(height, width))
    framed = Image.fromarray(image.repeat(factor, axis=0).repeat(factor, axis=1))
    box = view.box
    corners = (box.left * factor, box.top * factor, box.right * factor - 1, box.bottom * factor - 1)
    thickness = -(-max(framed.size) // PANEL)  # large images are reduced, and a thin frame would be lost
    ImageDraw.Draw(framed).rectangle(corners, outline=_FRAME, width=thickness)
    projected = as_picture(view.image).repeat(factor, axis=0).repeat(factor, axis=1)
    seen = f"in the frame: the {box.height} by {box.width} pixels that it sees"
    said = f"{view.rule}: activation {number(view.seed_value)} projected back"
    return beside(
        [
            (np.asarray(framed), [("the network's input", None), (seen, None)]),
            (projected, [(f"unit {view.unit} of {view.address}", None), (said, None), ("grey: zero", None)]),
        ]
    )
