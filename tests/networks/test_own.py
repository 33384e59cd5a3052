"""Our own networks by reference."""

import pytest

from convscope.core.errors import ConvscopeError
from convscope.networks import load


def test_options_are_the_builders_keywords():
    model, inputs = load(
        "alexnet", variant="published", width=0.05, num_classes=4, input_shape=(1, 67, 99), batch=3
    )
    assert inputs == (3, 1, 67, 99)
    assert model.features.conv2.groups == 2
    assert model.features.conv1.in_channels == 1
    assert model.classifier.fc8.out_features == 4


def test_defaults_are_those_of_the_notes():
    loaded = load("alexnet")
    assert loaded.inputs == (1, 3, 227, 227)
    assert sum(p.numel() for p in loaded.model.parameters()) == 62_378_344
    assert loaded.class_names[:2] == ("class 0", "class 1")
    assert len(loaded.class_names) == 1000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nrom": "batch"}, "option 'nrom'; expected one of .*did you mean 'norm'"),
        ({"convolutions": ()}, "option 'convolutions'"),
        ({"input_shape": (64, 64)}, "channels x height x width"),
        ({"input_shape": (3, 0, 64)}, "whole numbers from 1"),
        ({"batch": 0}, "whole numbers from 1"),
        ({"input_shape": (3, 40, 40)}, "at least 67 pixels"),
    ],
)
def test_what_is_not_offered_is_refused(options, message):
    with pytest.raises(ConvscopeError, match=message):
        load("alexnet", **options)
