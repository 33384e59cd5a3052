"""``compare_galleries``: two checkpoints, or two stems, unit by unit."""

from collections.abc import Mapping
from pathlib import Path

from convscope.core.errors import ConvscopeError
from convscope.sight.comparing.layer import compared_layer
from convscope.sight.comparing.layers import paired_layers
from convscope.sight.comparing.likeness import likeness
from convscope.sight.comparing.reading import GalleryNumbers, joint_columns, read_gallery
from convscope.sight.comparing.remarks import findings_on
from convscope.sight.comparing.result import By, GalleryComparison
from convscope.sight.comparing.stem_layers import Stems, aliased_shares, checked_stems, left_out_stems
from convscope.sight.comparing.units import Units
from convscope.sight.picturing.album import Gallery


def compare_galleries(
    first: Gallery | str | Path,
    second: Gallery | str | Path,
    *,
    layers: Mapping[str, str] | None = None,
    by: By | None = None,
    stems: Stems | None = None,
) -> GalleryComparison:
    """Return which units of two galleries are the same, and what changed from the first to the second.

    Units are compared by their profiles: the largest activation in each of up to 256 images. Two checkpoints
    of one network keep their channels: unit i is compared with unit i, and it is told whether another one is
    more like it. Units of two networks, or of two stems, are matched one to one so that the sum of their
    correlations is the largest (exactly, by the method of Kuhn and Munkres); pairs below what chance gives
    (:mod:`convscope.sight.comparing.likeness`) aren't partners. No network is run.

    Args:
        first: a gallery, as its result or its folder.
        second: one of the same images.
        layers: the first's layers with their partners, by name or address. None: layers of the same name;
            where no name is on both sides, the first with the first, and so on.
        by: ``"channel"`` or ``"profile"``; None: by channel, layer by layer, where the widths are equal and
            for at least half of the units none is nearer than that of their own channel.
        stems: the two networks' :func:`~convscope.sight.stem`, for aliased shares beside the first layer's
            units.

    Raises:
        ConvscopeError: there is no whole gallery in a folder, or it was replaced; the galleries are of
            different images; there is no such layer; widths differ, and ``by="channel"``; stems of other
            networks.

    Example:
        >>> import tempfile, torch
        >>> from torch import nn
        >>> from convscope.sight import gallery
        >>> images, folder = torch.randn(40, 1, 9, 9), tempfile.mkdtemp()
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
        >>> before = gallery(net, images, out=folder + "/before")
        >>> _ = nn.init.constant_(net[0].bias[2], -100.0)  # the third unit dies
        >>> after = gallery(net, images, out=folder + "/after")
        >>> found = compare_galleries(before, after)
        >>> [pair.kind for pair in found.layers[0].pairs], found.findings[0].fault
        (['kept', 'kept', 'died', 'kept'], 'more-dead-units')
    """
    if by not in (None, "channel", "profile"):
        raise ConvscopeError(f"by={by!r}", "'channel', 'profile' or None", "None chooses by layer")
    one, other = read_gallery(first), read_gallery(second)
    _check_images(one, other)
    checked_stems((one, other), stems)
    pairs, columns = paired_layers(one, other, layers), joint_columns(one, other)
    top = min(one.top, other.top)
    found = []
    for mine, theirs in pairs.pairs:
        if by == "channel" and mine.num_units != theirs.num_units:
            raise _other_width(mine.name, mine.num_units, theirs.num_units)
        shares = aliased_shares((mine, theirs), stems)
        alike = likeness(mine.profile[:, columns[0]], theirs.profile[:, columns[1]])
        found.append(compared_layer(Units(mine, shares[0]), Units(theirs, shares[1]), alike, top, by))
    return GalleryComparison(
        folders=(one.folder, other.folder),
        digests=(one.digest, other.digest),
        num_images=(one.num_images, other.num_images),
        num_profile_images=len(columns[0]),
        top=top,
        layers_by=pairs.by,
        layers=tuple(found),
        left_out=(*pairs.left_out, *left_out_stems(pairs, stems)),
        findings=findings_on(tuple(found), len(columns[0])),
    )


def _check_images(first: GalleryNumbers, second: GalleryNumbers) -> None:
    if first.images_fingerprint != second.images_fingerprint:
        raise ConvscopeError(
            f"galleries of different images: {_difference(first, second)}",
            "the same images in the same order, of the same size and normalisation",
            "make both with one data set and one preprocessing; of pictures, in Python, with "
            "ImageSource.of_pictures(folder, loaded.preprocessing) of one of the networks",
        )


def _difference(first: GalleryNumbers, second: GalleryNumbers) -> str:
    one, other = (
        f"{gallery.num_images} of {gallery.image_size[0]}×{gallery.image_size[1]} pixels"
        for gallery in (first, second)
    )
    if one != other:
        return f"{one} in {first.folder!r}, {other} in {second.folder!r}"
    return (
        f"{one} in both {first.folder!r} and {second.folder!r}, but other files, another order, other "
        "channels or another normalisation"
    )


def _other_width(name: str, first: int, second: int) -> ConvscopeError:
    return ConvscopeError(
        f"by='channel' for layer {name!r} of {first} and {second} units",
        "layers of one width",
        "compare by profile, or state the layers that correspond",
    )
