"""Youth is silenced only by data that show the statistics to be right, beyond doubt."""

from dataclasses import replace

import pytest
import torch

from checkup.judging.observed import norm, observation, shifted
from convscope.checkup.judging.faults.settings import static_dummy_forwards
from convscope.checkup.judging.faults.young import young_statistics
from convscope.checkup.judging.residuals import shown_right
from convscope.checkup.observed import OptimizerFacts


def _young(call):
    return list(young_statistics(observation(call)))


@pytest.mark.parametrize(("number", "by", "scale"), [(512, 0.6, 1.38), (64, 0.9, 1.5), (16, 2.0, 1.5)])
def test_statistics_that_were_never_updated_and_are_wrong_within_doubt(number, by, scale):
    """Off by less than tolerance and five standard errors, so not stale; but not right either."""
    (finding,) = _young(norm(shifted(number, by, scale)))
    assert finding.severity == "warning"
    assert "after 0 batches" in finding.why


def test_data_that_show_the_start_to_be_right():
    call = norm(shifted(2000))
    assert shown_right(call)
    assert _young(call) == []
    assert len(_young(norm(shifted(32)))) == 1  # right, but 32 images don't show it


def test_more_data_would_tell_of_a_counter_that_was_reset():
    away = {"running_mean": torch.full((3,), 2.0).double(), "num_batches_tracked": 2}
    (finding,) = _young(norm(shifted(32, by=2.0), **away))
    assert finding.severity == "advice"
    assert "more data would tell" in finding.why
    assert _young(norm(shifted(3000, by=2.0), **away)) == []
    (finding,) = _young(norm(shifted(320, by=9.0), **away))
    assert finding.severity == "warning"  # shown to be wrong


def test_dummy_forwards_aren_t_silenced_by_weak_data():
    facts = OptimizerFacts({}, num_foreign=0, missing=(), kind="AdamW", has_stepped=False)
    moved = {"running_mean": torch.full((3,), 0.3).double(), "num_batches_tracked": 3}
    few, many = (norm(shifted(number, by=0.3), **moved) for number in (32, 3000))
    (finding,) = static_dummy_forwards(replace(observation(few), optimizer=facts))
    assert "another optimizer" in finding.why
    assert "cs.norm.recalibrate(model, loader)" in finding.remedy
    assert list(static_dummy_forwards(replace(observation(many), optimizer=facts))) == []
