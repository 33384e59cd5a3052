"""How the pictures of a gallery stand up to their scores: what is held good, what is doubted.

A unit's standing is a short text with a letter for each score: small where the score speaks for the picture,
large where it speaks against it, none where it says nothing. ``s`` is selectivity, ``i`` image dependence,
``r`` randomisation, ``m`` masking drop. What is doubted is what :func:`remarks_on` would remark. ``a`` is
added for a filter of the first layer that folds much of its energy into false frequencies.
"""

from typing import Any

from convscope.report.wording.census import census_words
from convscope.sight import Gallery, Layer, Stem
from convscope.sight.judging.remarks import NEARLY_SAME, remarks_on
from convscope.sight.picturing.album import Unit
from convscope.sight.projecting.projection import Rule
from convscope.sight.stems.stride_symptoms import ALIASED

_FAULTS = {
    "selectivity": "unselective-projection",
    "image_dependence": "image-independent-projection",
    "randomisation": "insensitive-to-training",
    "masking_drop": "unconfirmed-projection",
}


def standing(gallery: Gallery, stem: Stem | None = None) -> dict[str, Any]:
    """Return what the gallery's script needs beside the gallery, as plain values.

    Args:
        gallery: whose units are judged.
        stem: of the same network, where there is one.

    Returns:
        ``layers``: for each, ``census`` in words (None without projections), ``units`` with a text each, and
        ``stem``: whether its filters' aliasing is known.
    """
    return {"layers": [_layer(layer, gallery.rule, stem) for layer in gallery.layers]}


def _layer(layer: Layer, rule: Rule, stem: Stem | None) -> dict[str, Any]:
    is_stem = stem is not None and stem.address == layer.address
    shares = {each.index: each.aliased_share for each in stem.filters} if stem and is_stem else {}
    return {
        "census": None if layer.census is None else census_words(layer.census),
        "units": [
            _unit(layer, unit, rule) + ("a" if shares.get(unit.index, 0.0) > ALIASED else "")
            for unit in layer.units
        ],
        "stem": is_stem,
    }


def _unit(layer: Layer, unit: Unit, rule: Rule) -> str:
    if unit.scores is None or layer.census is None:
        return ""
    doubted = {finding.fault for finding in remarks_on(layer.address, rule, layer.census, unit.scores)}
    letters = ""
    for name, fault in _FAULTS.items():
        score = getattr(unit.scores, name)
        if fault in doubted:
            letters += name[0].upper()
        # A first layer's picture isn't doubted for ignoring the image, but ignores it.
        elif score is not None and (name != "image_dependence" or score >= NEARLY_SAME):
            letters += name[0]
    return letters
