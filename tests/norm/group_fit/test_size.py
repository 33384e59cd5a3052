import pytest

from convscope.norm.group_fit.size import group_size


@pytest.mark.parametrize(
    ("channels", "positions", "groups", "values"),
    [
        (256, 49, 32, 392),
        (64, 4, 16, 16),  # 32 groups would leave 2·4 values
        (64, 1, 4, 16),
        (96, 1, 6, 16),
        (40, 2, 5, 16),
        (8, 1, 1, 8),  # no number of groups leaves 16
        (7, 3, 1, 21),
        (1, 2, 1, 2),
    ],
)
def test_at_least_16_values_a_group_where_there_are(channels, positions, groups, values):
    assert group_size(channels, positions) == (groups, values, None)


@pytest.mark.parametrize(
    ("channels", "positions", "groups", "words"),
    [(1, 1, None, "the one group would be"), (8, 1, 8, "each of the 8 groups"), (1, 1, 1, "the one group")],
)
def test_single_values_are_refused(channels, positions, groups, words):
    refused = group_size(channels, positions, groups).refused
    assert refused is not None
    assert words in refused


def test_a_number_that_is_given_is_taken():
    assert group_size(8, 2, 4) == (4, 4, None)
    assert group_size(8, 2, 8) == (8, 2, None)
