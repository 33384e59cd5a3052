"""The diagnoses of two stems beside the galleries: the aliased shares of the first layer's filters."""

from convscope.core.errors import ConvscopeError
from convscope.sight.comparing.layers import LayerPairs
from convscope.sight.comparing.reading import GalleryNumbers, LayerNumbers
from convscope.sight.comparing.units import Shares
from convscope.sight.stems.diagnosis import Stem

Stems = tuple[Stem, Stem]


def checked_stems(galleries: tuple[GalleryNumbers, GalleryNumbers], stems: Stems | None) -> None:
    """Refuse diagnoses that aren't those of the galleries' networks.

    Raises:
        ConvscopeError: they aren't two, or a gallery has no layer with the stem's address and width.
    """
    if stems is None:
        return
    if not (isinstance(stems, tuple) and len(stems) == 2 and all(isinstance(s, Stem) for s in stems)):
        raise ConvscopeError(
            "stems that aren't two results of stem()", "one for each gallery", "pass stems=(first, second)"
        )
    for gallery, stem in zip(galleries, stems):
        if not any(_is_of(stem, layer) for layer in gallery.layers):
            raise ConvscopeError(
                f"the stem {stem.name!r} with {len(stem.filters)} filters, which is no layer of the gallery "
                f"in {gallery.folder!r}",
                "the diagnosis of the same network",
                "make both with one model, the gallery with that layer",
            )


def aliased_shares(pair: tuple[LayerNumbers, LayerNumbers], stems: Stems | None) -> tuple[Shares, Shares]:
    """Return the filters' shares where both layers of a pair are the stems, else None twice."""
    if stems is None or not (_is_of(stems[0], pair[0]) and _is_of(stems[1], pair[1])):
        return None, None
    first, second = (tuple(each.aliased_share for each in stem.filters) for stem in stems)
    return first, second


def left_out_stems(pairs: LayerPairs, stems: Stems | None) -> tuple[str, ...]:
    """Return a sentence if the two stems aren't compared with one another."""
    if stems is None or any(aliased_shares(pair, stems)[0] is not None for pair in pairs.pairs):
        return ()
    names = f"{stems[0].name} and {stems[1].name}"
    return (f"aliased shares of {names}: these two layers aren't compared with one another",)


def _is_of(stem: Stem, layer: LayerNumbers) -> bool:
    return (stem.address, len(stem.filters)) == (layer.address, layer.num_units)
