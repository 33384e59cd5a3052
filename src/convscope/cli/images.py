"""Images for a loaded network: of its size, normalised as it was trained."""

from pathlib import Path
from typing import TYPE_CHECKING

from convscope.cli.show import note
from convscope.core.errors import ConvscopeError

if TYPE_CHECKING:
    from torch import Tensor

    from convscope.data import ImageData
    from convscope.networks import Loaded


def data_for(loaded: "Loaded", reference: str) -> "ImageData":
    """Return the data set that a text names, fitted to a network.

    A network that says how its images were normalised gets them so; fresh networks and those of which only
    a default is known get the data's own mean and deviation.
    """
    from convscope.data import load_data

    channels, height, width = image_shape(loaded)
    data = load_data(reference, size=(height, width), channels=channels)
    tell_left_out(data)
    known = loaded.preprocessing
    if known is None or "default" in known.source:
        return data
    return data.normalised_with(known.mean, known.std)


def tell_left_out(data: "ImageData") -> None:
    """Name the files of a data set that can't be used, on standard error."""
    shown = 5
    for damage in data.damaged[:shown]:
        note(f"left out: {damage.path} ({damage.reason})")
    if len(data.damaged) > shown:
        note(f"left out: {len(data.damaged) - shown} more damaged files")
    if data.ignored:
        note(f"ignored: files that aren't pictures ({data.ignored})")


def image_for(loaded: "Loaded", file: str) -> "Tensor":
    """Return one picture as the network's input, (c, h, w)."""
    from PIL import Image

    from convscope.data import read_picture
    from convscope.networks import default_preprocessing

    try:
        pixels = read_picture(Path(file))
    except Exception as error:  # broken bytes make decoders raise almost anything
        raise ConvscopeError(
            f"image {file!r} can't be read ({type(error).__name__}: {error})",
            "a whole PNG, JPEG, WebP, BMP or GIF picture",
            "check the path and the file",
        ) from error
    preprocessing = loaded.preprocessing or default_preprocessing(image_shape(loaded), loaded.reference)
    assert preprocessing is not None
    return preprocessing(Image.fromarray(pixels))


def image_shape(loaded: "Loaded") -> tuple[int, int, int]:
    """Return the shape (c, h, w) of one image that a network takes.

    Raises:
        ConvscopeError: the network's input isn't an image.
    """
    inputs = loaded.inputs
    shape = tuple(getattr(inputs, "shape", inputs)) if not isinstance(inputs, dict | list) else ()
    if len(shape) != 4 or not all(isinstance(size, int) for size in shape):
        raise ConvscopeError(
            f"network {loaded.reference!r} with inputs {inputs if shape else type(inputs).__name__}",
            "a network that takes images of 1 or 3 channels",
            "give the shape of one image with --input 3x224x224",
        )
    return shape[1], shape[2], shape[3]
