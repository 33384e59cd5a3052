"""An occlusion as one picture: the image, probability, label map with legend, and each unit's activity.

Heat lies over the grey image: red where hiding a place lowers a value, blue where it raises it, as strong as
the change is beside the largest one of its panel. Every place of the window colours the pixels nearest to its
centre.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from convscope.report.pictures.panels import Bytes, Panel, beside
from convscope.report.wording.formats import number
from convscope.sight import Occlusion
from convscope.sight.occluding.result import ClassMaps

_LOWER, _HIGHER = np.array([200, 40, 30], np.float64), np.array([40, 90, 200], np.float64)
_LEGEND = "red: hiding lowers it, blue: raises it"
_COLOURS = (
    (43, 138, 153), (201, 118, 43), (122, 111, 176), (163, 58, 44), (104, 146, 60), (214, 170, 60),
    (70, 100, 160), (180, 100, 140), (120, 120, 120),
)  # fmt: skip


def occlusion_picture(found: Occlusion, image: Bytes, names: Sequence[str] = ()) -> Image.Image:
    """Return the picture.

    Args:
        found: what to draw.
        image: (h, w, 3), as a reader should see it.
        names: of the classes.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from convscope.sight import occlusion
        >>> found = occlusion(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), torch.rand(3, 12, 12))
        >>> occlusion_picture(found, np.zeros((12, 12, 3), np.uint8)).size[0]
        904
    """
    panels: list[Panel] = [(image, [("image", None)])]
    grey = image.astype(np.float64).mean(2, keepdims=True).repeat(3, 2)
    if found.classes is not None:
        panels.append(_probability(found, found.classes, grey, names))
        panels.append(_labels(found, found.classes, grey, names))
    for unit in found.units:
        caption = f"total of unit {unit.unit}, {unit.layer}"
        drops = unit.clean_total - unit.total
        said = f"clean {number(unit.clean_total)}, greatest drop {number(unit.drop.largest)}"
        panels.append((_heat(found, grey, drops), [(caption, None), (said, None), (_LEGEND, None)]))
    return beside(panels)


def _probability(
    found: Occlusion, classes: ClassMaps, grey: NDArray[np.float64], names: Sequence[str]
) -> Panel:
    name = _name(classes.label, names)
    heat = _heat(found, grey, classes.clean_probability - classes.probability)
    lowest = classes.clean_probability - classes.drop.largest
    said = f"clean {number(classes.clean_probability)}, lowest {number(lowest)}"
    return heat, [(f"probability of {name}", None), (said, None), (_LEGEND, None)]


def _labels(found: Occlusion, classes: ClassMaps, grey: NDArray[np.float64], names: Sequence[str]) -> Panel:
    """The most frequent labels have colours of their own, the others share the last one."""
    order = [label for label, _ in Counter(classes.labels.flatten().tolist()).most_common()]
    own = {label: _COLOURS[min(place, len(_COLOURS) - 1)] for place, label in enumerate(order)}
    places = _nearest(found, grey.shape[:2])
    flat = np.array([own[label] for label in classes.labels.flatten().tolist()], np.float64)
    picture = 0.35 * grey + 0.65 * flat[places]
    shown = [(_name(label, names), own[label]) for label in order[: len(_COLOURS) - 1]]
    rest = [("others", _COLOURS[-1])] if len(order) >= len(_COLOURS) else []
    return picture.round().clip(0, 255).astype(np.uint8), [("most probable class", None), *shown, *rest]


def _heat(found: Occlusion, grey: NDArray[np.float64], drops: Float[Tensor, "rows columns"]) -> Bytes:
    values = drops.flatten().numpy()
    largest = float(np.abs(values).max())
    strength = (values / largest if largest > 0 else np.zeros_like(values))[_nearest(found, grey.shape[:2])]
    colour = np.where(strength[..., None] > 0, _LOWER, _HIGHER)
    weight = np.abs(strength)[..., None] * 0.85
    return ((1 - weight) * grey + weight * colour).round().clip(0, 255).astype(np.uint8)


def _nearest(found: Occlusion, size: tuple[int, ...]) -> NDArray[np.int64]:
    """The number of the place whose centre is nearest, for each pixel."""
    boxes, columns = found.boxes, found.columns
    rows = [(boxes[row * columns].top + boxes[row * columns].bottom) / 2 for row in range(found.rows)]
    sides = [(box.left + box.right) / 2 for box in boxes[:columns]]
    nearest = [
        np.abs(np.arange(length)[:, None] * scale + scale / 2 - np.array(centres)).argmin(1)
        for length, centres, scale in zip(
            size,
            (rows, sides),
            (whole / length for whole, length in zip(found.image_size, size)),
            strict=True,
        )
    ]
    found_places: NDArray[np.int64] = nearest[0][:, None] * columns + nearest[1]
    return found_places


def _name(label: int, names: Sequence[str]) -> str:
    plain = f"class {label}"
    return f"{label} {names[label]}" if label < len(names) and names[label] != plain else plain
