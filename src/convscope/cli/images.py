"""Images for a loaded network: of its size, normalised as it was trained."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import Parameter

from convscope.cli.show import note
from convscope.core.errors import ConvscopeError
from convscope.core.paths import exists

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from convscope.data import Damage, ImageData, Listing
    from convscope.networks import Loaded, Preprocessing
    from convscope.sight import ImageSource

_SHOWN = 5  # damaged files named one by one


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


def source_for(
    loaded: "Loaded",
    reference: str,
    limit: int | None = None,
    stated: NormalisationOptions = NormalisationOptions(),
) -> "ImageSource":
    """Return the images that a text names, to be looked at rather than learnt from: none is opened yet.

    Of a built-in data set, and of a folder with ``train`` and ``validation`` in it, the validation images.
    They are prepared as the network says; where only a default is known, with the images' own mean and
    deviation, measured on up to 512. What is damaged is met while it is read: afterwards, give
    ``source.damaged`` to :func:`tell_damaged`.

    Args:
        loaded: the network.
        reference: ``photos``, ``digits``, ``mnist5k``, a folder, tar files, a folder that ``datasets`` wrote,
            ``hf:FOLDER`` or ``torchvision:NAME``.
        limit: so many at most, evenly spaced; None: all.
        stated: mean and deviation, where they were given.

    Raises:
        ConvscopeError: there is no such data, or the network doesn't take pictures.
    """
    from convscope.data import list_pictures, names_data_set
    from convscope.sight import ImageSource

    channels, *_ = image_shape(loaded)
    if limit is not None and limit < 1:
        raise ConvscopeError(f"--limit {limit}", "a whole number from 1", "say how many images to look at")
    if channels not in (1, 3):
        raise ConvscopeError(
            f"network {loaded.reference!r}, which takes {channels} channels",
            "1 (grey) or 3 (colour) for pictures",
            "give tensors with all channels from Python",
        )
    if names_data_set(reference):
        return _source_of_set(data_for(loaded, reference, stated), limit)
    listing = list_pictures(_to_look_at(reference))
    source = ImageSource.of_pictures(listing, _preprocessing_for(loaded, listing, stated), limit=limit)
    note(f"looking at {source.length:,} of {len(listing):,} pictures")
    _tell_ignored(listing.ignored)
    return source


def _source_of_set(data: "ImageData", limit: int | None) -> "ImageSource":
    from convscope.data import ImageSet
    from convscope.data.pictures import evenly_spaced
    from convscope.sight import ImageSource

    given = data.validation if len(data.validation) else data.train
    chosen = [given.indices[place] for place in evenly_spaced(len(given), limit)]
    images = ImageSet(given.pictures, chosen, given.normalisation)
    names = [f"{data.classes[images.label(number)]}, no. {number}" for number in range(len(images))]
    return ImageSource(images, data.mean, data.std, names)


def _to_look_at(reference: str) -> str:
    """The validation folder where there is one beside a training folder."""
    from convscope.data import SETS, split_folders
    from convscope.data.hugging_face import PREFIX
    from convscope.data.listing import no_such_data
    from convscope.data.tar.patterns import names_archives

    if names_archives(reference) or reference.startswith(PREFIX):
        return reference
    if not exists(reference):
        raise no_such_data(reference, SETS)
    splits = split_folders(Path(reference))
    if splits is None:
        return reference
    note(f"looking at the validation images, in {splits[1]}")
    return str(splits[1])


def _preprocessing_for(loaded: "Loaded", listing: "Listing", stated: NormalisationOptions) -> "Preprocessing":
    from convscope.data import listed_normalisation
    from convscope.networks import Preprocessing

    channels, *size = image_shape(loaded)
    height, width = size
    constants = stated.of_channels(channels)
    known = loaded.preprocessing if is_known(loaded) else None
    if constants is None and (known is None or len(known.mean) != channels):
        measured = listed_normalisation(listing, (height, width), channels)
        constants = measured.mean, measured.std
    if known is None:
        assert constants is not None
        return Preprocessing((height, width), *constants, crop_pct=1.0)
    mean, std = constants or (known.mean, known.std)
    return replace(known, size=(height, width), mean=mean, std=std)


def is_known(loaded: "Loaded") -> bool:
    """Whether a network says how its images were normalised."""
    return loaded.preprocessing is not None and "default" not in loaded.preprocessing.source


def tell_left_out(data: "ImageData") -> None:
    """Name what a data set can't use or lacks, on standard error: files, classes of one split, imbalance."""
    from convscope.core.printable import printable

    tell_damaged(data.damaged)
    _tell_ignored(data.ignored)
    if len(data.validation):
        _tell_classes("without validation images, so not judged", data.classes_without_images("validation"))
    _tell_classes("without training images, so not learnt", data.classes_without_images("train"))
    if data.imbalance is not None:
        note(f"unequal classes: {printable(str(data.imbalance))}")


def _tell_classes(what: str, names: "Sequence[str]") -> None:
    from convscope.core.printable import printable

    if names:
        more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
        note(f"classes {what}: {', '.join(map(printable, names[:_SHOWN]))}{more}")


def _tell_ignored(count: int) -> None:
    if count:
        note(f"ignored: files that aren't pictures ({count:,})")


def tell_damaged(damaged: "Sequence[Damage]") -> None:
    """Name what was left out, on standard error: the first few, and how many more."""
    for damage in damaged[:_SHOWN]:
        note(f"left out: {damage.path} ({damage.reason})")
    if len(damaged) > _SHOWN:
        note(f"left out: {len(damaged) - _SHOWN:,} more damaged files")


def image_for(loaded: "Loaded", file: str) -> "Tensor":
    """Return one picture as the network's input, (c, h, w)."""
    from convscope.data import read_picture
    from convscope.data.damage import reason_of
    from convscope.networks import default_preprocessing
    from convscope.sight.sources.pictures import prepared

    preprocessing = loaded.preprocessing or default_preprocessing(image_shape(loaded), loaded.reference)
    assert preprocessing is not None
    try:
        return prepared(read_picture(Path(file)), preprocessing)
    except Exception as error:  # broken bytes make decoders raise almost anything
        raise ConvscopeError(
            f"image {file!r}: {reason_of(error)}",
            "a whole PNG, JPEG, WebP, BMP or GIF picture",
            "check the path and the file",
        ) from error


def shown_image(loaded: "Loaded", pixels: "Tensor") -> "NDArray[np.uint8]":
    """Return a network's input (c, h, w) as a reader should see it, (h, w, 3)."""
    from convscope.sight import ImageSource
    from convscope.sight.picturing.tiles import as_rgb

    known = loaded.preprocessing
    source = ImageSource(pixels[None], *((known.mean, known.std) if known is not None else ()))
    return as_rgb(source.shown(pixels.float().numpy()))


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
