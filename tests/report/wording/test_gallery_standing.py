"""What the page of a gallery says about how far a unit's picture can be trusted."""

from dataclasses import replace

import pytest

from convscope.report.wording.gallery_standing import standing
from convscope.sight.projecting.projection import Census, Scores

BEHIND_POOL = Census(("relu#1",), (), (), ("pool#1",), (), (), 3, 2)
FIRST = Census(("relu#1",), (), (), (), (), (), 2, 1)
TEMPLATE = Census(("relu#1",), (), (), (), (), (), 4, 2)


def letters(gallery, census, scores):
    layer = gallery.layers[0]
    unit = replace(layer.units[0], scores=scores)
    one = replace(gallery, layers=(replace(layer, units=(unit,), census=census),))
    return standing(one)["layers"][0]["units"][0]


@pytest.mark.parametrize(
    ("census", "scores", "expected"),
    [
        (BEHIND_POOL, Scores(0.5, 0.5, 0.5, 0.1), "sirm"),
        (BEHIND_POOL, Scores(0.1, 0.01, 0.01, -0.1), "SIRM"),
        (BEHIND_POOL, Scores(0.5, None, None, 0.0), "sM"),
        (BEHIND_POOL, None, ""),
        (FIRST, Scores(0.5, 0.0, None, 0.1), "sm"),  # a filter's picture is the filter: no reproach
        (TEMPLATE, Scores(0.5, None, 0.5, 0.1), "sIrm"),  # without switches, no measurement is needed
        (None, Scores(0.5, 0.5, 0.5, 0.5), ""),
    ],
)
def test_small_letters_speak_for_a_picture_large_ones_against_it(gallery, census, scores, expected):
    assert letters(gallery, census, scores) == expected


def test_filters_that_fold_much_energy_are_marked_in_their_layer_only(gallery, stem):
    aliased = replace(
        stem,
        address=gallery.layers[0].address,
        filters=tuple(
            replace(each, aliased_share=share)
            for each, share in zip(stem.filters, (0.1, 0.26, float("nan"), 0.9), strict=True)
        ),
    )
    first, second = standing(gallery, aliased)["layers"]
    assert [number for number, text in enumerate(first["units"]) if text.endswith("a")] == [1, 3]
    assert not any("a" in text for text in second["units"])
    assert (first["stem"], second["stem"]) == (True, False)
    assert not any(layer["stem"] for layer in standing(gallery)["layers"])


def test_the_census_is_told_in_words(gallery):
    told = standing(gallery)["layers"][0]["census"]
    assert told == "1 ReLU rewritten, 1 gate or statistic frozen, 2 linear (of them 1 convolution)"
