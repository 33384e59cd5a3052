"""Images for a loaded network: of its size, normalised as it was trained."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import Parameter

from convscope.cli.show import note
from convscope.core.errors import ConvscopeError

if TYPE_CHECKING:
    from torch import Tensor

    from convscope.data import ImageData
    from convscope.networks import Loaded


@Parameter(name="*")
@dataclass(frozen=True)
class NormalisationOptions:
    """How pixels become numbers, where the network doesn't say it.

    Attributes:
        mean: What was taken away from pixels when the network was trained, on a scale of 0 to 1, such as
            0.485,0.456,0.406, or one number for all channels. Without it: as the network or its weights say;
            else the mean of the images given, which shifts the inputs if training used another.
        std: By what they were divided, on the same scale, such as 0.229,0.224,0.225.
    """

    mean: str | None = None
    std: str | None = None

    @property
    def is_given(self) -> bool:
        """Whether either is."""
        return self.mean is not None or self.std is not None

    def of_channels(self, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Return mean and deviation, a value a channel; None if neither is given.

        Raises:
            ConvscopeError: one without the other, no numbers, as many as fit no images, or off the scale.
        """
        if not self.is_given:
            return None
        if self.mean is None or self.std is None:
            given = "--mean without --std" if self.std is None else "--std without --mean"
            raise ConvscopeError(given, "both", "give those that the network was trained with")
        mean, std = _per_channel("--mean", self.mean, channels), _per_channel("--std", self.std, channels)
        if max(map(abs, (*mean, *std))) > 1 or min(std) <= 0:
            raise ConvscopeError(
                f"--mean {self.mean} --std {self.std}",
                "a scale of 0 to 1, and deviations above 0",
                "divide numbers of a scale of 0 to 255 by 255",
            )
        return mean, std


def _per_channel(flag: str, text: str, channels: int) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) not in (1, channels) or not all(map(math.isfinite, values)):
        raise ConvscopeError(
            f"{flag} {text!r}",
            f"{channels} numbers with commas between them, one for each channel, or one for all",
            f"write it as {flag} {','.join(['0.5'] * channels)}",
        )
    return values * (channels if len(values) == 1 else 1)


def data_for(
    loaded: "Loaded", reference: str, stated: NormalisationOptions = NormalisationOptions()
) -> "ImageData":
    """Return the data set that a text names, fitted to a network.

    Mean and deviation that were stated count first. A network that says how its images were normalised gets
    them so; fresh networks and those of which only a default is known get the data's own.
    """
    from convscope.data import load_data

    channels, height, width = image_shape(loaded)
    constants = stated.of_channels(channels)
    data = load_data(reference, size=(height, width), channels=channels)
    tell_left_out(data)
    if constants is not None:
        return data.normalised_with(*constants)
    known = loaded.preprocessing
    if known is None or not is_known(loaded):
        return data
    return data.normalised_with(known.mean, known.std)


def is_known(loaded: "Loaded") -> bool:
    """Whether a network says how its images were normalised."""
    return loaded.preprocessing is not None and "default" not in loaded.preprocessing.source


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
    is_shape = all(isinstance(size, int) for size in shape)
    if len(shape) != 4 or not is_shape:
        raise ConvscopeError(
            f"network {loaded.reference!r} with inputs {shape if shape and is_shape else 'of its own'}",
            "images: channels, height and width, and how many",
            "give the shape of one image, such as --input 3x224x224",
        )
    return shape[1], shape[2], shape[3]
