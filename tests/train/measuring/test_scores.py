import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from convscope.core.errors import ConvscopeError
from convscope.train.measuring.scores import at_least_float32, scores_of, true_class_rank, which_scores

_SCORES = st.sampled_from([-1.0, 0.0, 0.5, 2.0, math.inf, -math.inf, math.nan])


@given(st.data(), st.integers(1, 5), st.integers(1, 8))
def test_the_rank_is_where_the_true_class_stands_in_an_explicit_ranking(data, rows, classes):
    scores = data.draw(
        st.lists(st.lists(_SCORES, min_size=classes, max_size=classes), min_size=rows, max_size=rows)
    )
    labels = data.draw(st.lists(st.integers(0, classes - 1), min_size=rows, max_size=rows))
    ranks = true_class_rank(torch.tensor(scores), torch.tensor(labels)).tolist()
    for row, label, rank in zip(scores, labels, ranks):
        if math.isnan(row[label]):
            assert rank == classes
            continue
        before = 0
        for number, score in enumerate(row):
            if math.isnan(score) or score > row[label] or (score == row[label] and number < label):
                before += 1
        assert rank == before


def test_top_1_is_argmax_and_top_5_is_topk_where_no_scores_are_equal():
    scores, labels = torch.randn(200, 12), torch.randint(12, (200,))
    rank = true_class_rank(scores, labels)
    assert torch.equal(rank == 0, scores.argmax(1) == labels)
    assert torch.equal(rank < 5, (scores.topk(5).indices == labels[:, None]).any(1))


def test_scores_are_found_in_what_networks_return():
    scores = torch.zeros(2, 3)

    class Output:
        logits = scores

    for output in (scores, (scores, torch.ones(2, 3)), [scores], {"aux": None, "out": scores}, Output()):
        assert scores_of(output) is scores
    for output in (torch.zeros(2, 3, 4, 4), {"features": scores}, (), None):
        with pytest.raises(ConvscopeError, match="class scores"):
            scores_of(output)


def test_which_of_several_outputs_the_scores_are_is_told_or_refused():
    def out(*widths):
        return tuple(torch.zeros(2, width) for width in widths)

    told = "output 1 of {}, of shape (images, 10)"
    for output, words in [
        (out(10)[0], ""), (out(10), ""), (out(10, 1), told.format(2)), (out(10, 64, 1000), told.format(3)),
        (out(10, 10, 10), told.format(3)), ([*out(10), torch.zeros(2, 8, 4, 4)], told.format(2)),
        (dict(zip(("features", "logits"), out(64, 10))), "output 2 of 2, of shape (images, 10)"),
    ]:  # fmt: skip
        assert which_scores(output, 10) == words
    # More scores than classes are fine where nothing else may be the scores.
    assert which_scores(out(64, 1), 10) == "output 1 of 2, of shape (images, 64)"
    for output in (out(64, 10), out(64, 1000), out(5, 10)):
        with pytest.raises(ConvscopeError, match=r"shapes \(2, .*for 10 classes; .*or in a dict as 'logits'"):
            which_scores(output, 10)


def test_half_precision_scores_are_widened_and_double_ones_kept():
    kinds = {torch.bfloat16: torch.float32, torch.float16: torch.float32, torch.float64: torch.float64}
    for given_dtype, expected in kinds.items():
        assert at_least_float32(torch.zeros(1, dtype=given_dtype)).dtype == expected
