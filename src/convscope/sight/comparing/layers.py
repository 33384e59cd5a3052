"""Which layer of one gallery is compared with which of the other: as stated, by name, or by order."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from convscope.core.errors import ConvscopeError
from convscope.sight.comparing.reading import GalleryNumbers, LayerNumbers

LayersBy = Literal["name", "order", "given"]


@dataclass(frozen=True)
class LayerPairs:
    """Layers that are compared.

    Attributes:
        by: how they found one another.
        pairs: in the first gallery's order.
        left_out: sentences about the others.
    """

    by: LayersBy
    pairs: tuple[tuple[LayerNumbers, LayerNumbers], ...]
    left_out: tuple[str, ...]


def paired_layers(
    first: GalleryNumbers, second: GalleryNumbers, stated: Mapping[str, str] | None
) -> LayerPairs:
    """Return the pairs of layers; by order only where no name is on both sides.

    Args:
        first: one gallery.
        second: the other.
        stated: names or addresses of the first's layers, each with that of its partner; None: find them.

    Raises:
        ConvscopeError: a gallery hasn't got a layer that is stated, or one is stated twice.
    """
    if stated is not None:
        return _stated(first, second, stated)
    of_second = {layer.name: layer for layer in reversed(second.layers)}
    pairs = [(layer, of_second.pop(layer.name)) for layer in first.layers if layer.name in of_second]
    by: LayersBy = "name" if pairs else "order"
    pairs = pairs or list(zip(first.layers, second.layers))
    return LayerPairs(by, tuple(pairs), _alone(first, second, pairs))


def _stated(first: GalleryNumbers, second: GalleryNumbers, stated: Mapping[str, str]) -> LayerPairs:
    if not isinstance(stated, Mapping) or not stated:
        raise ConvscopeError(
            f"layers={stated!r}", "layers of the first gallery with their partners", "{'conv1': 'stem.conv'}"
        )
    pairs = [(_named(first, one), _named(second, other)) for one, other in stated.items()]
    for side, gallery in enumerate((first, second)):
        addresses = [pair[side].unit_address for pair in pairs]
        if len(set(addresses)) < len(addresses):
            raise ConvscopeError(
                f"a layer of {gallery.folder!r} twice in layers", "each layer once", "compare them one by one"
            )
    pairs.sort(key=lambda pair: [layer is pair[0] for layer in first.layers].index(True))
    return LayerPairs("given", tuple(pairs), _alone(first, second, pairs))


def _named(gallery: GalleryNumbers, name: str) -> LayerNumbers:
    for layer in gallery.layers:
        if name in (layer.name, layer.unit_address, layer.address):
            return layer
    known = ", ".join(layer.name for layer in gallery.layers[:8])
    more = f" and {len(gallery.layers) - 8} more" if len(gallery.layers) > 8 else ""
    raise ConvscopeError(
        f"layer {name!r}, which the gallery in {gallery.folder!r} hasn't got",
        f"one of {known}{more}",
        "choose another, or make the gallery with it",
    )


def _alone(
    first: GalleryNumbers, second: GalleryNumbers, pairs: list[tuple[LayerNumbers, LayerNumbers]]
) -> tuple[str, ...]:
    taken = [{pair[side].unit_address for pair in pairs} for side in (0, 1)]
    return tuple(
        f"{layer.name} ({which} gallery): no partner in the other one"
        for gallery, which, used in zip((first, second), ("first", "second"), taken)
        for layer in gallery.layers
        if layer.unit_address not in used
    )
