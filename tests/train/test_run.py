import itertools
import json

import pytest

from convscope.train.config import TrainConfig
from convscope.train.run import EpochRecord, Run, StepRecord, thinned


def _run(accuracies, steps=(), losses=None):
    pairs = zip(accuracies, losses or [1.0] * len(accuracies), strict=True)
    epochs = [
        EpochRecord(i, i, 1.0, 0.5, loss, a, None, 0.1, 10.0, 1.0) for i, (a, loss) in enumerate(pairs, 1)
    ]
    last = accuracies[-1] if accuracies else None
    told = ("r", "Net", "toy", ("a", "b"), TrainConfig(), tuple(epochs), tuple(steps), 2.0, 10.0, last)
    return Run(*told, None, None, None)


def test_the_best_epoch_is_the_earliest_of_the_highest_with_the_lowest_loss():
    assert _run([0.2, 0.7, 0.7, 0.3]).best_epoch.epoch == 2
    assert _run([0.2, 0.7, 0.7, 0.7], losses=[0.1, 0.5, 0.4, 0.4]).best_epoch.epoch == 3
    assert _run([]).best_epoch is None


@pytest.mark.parametrize("count", [0, 1, 2, 999, 1000, 1001, 1999, 12345])
def test_thinned_records_are_spread_evenly_with_both_ends(count):
    records = [StepRecord(i, 1, 0.0, 0.0, 0.1) for i in range(1, count + 1)]
    kept = [record.step for record in thinned(records)]
    assert len(kept) == min(count, 1000)
    if count:
        assert (kept[0], kept[-1]) == (1, count)
    gaps = {after - before for before, after in itertools.pairwise(kept)}
    assert len(gaps) <= 2
    assert max(gaps, default=0) - min(gaps, default=0) <= 1


def test_a_run_is_json_whose_numbers_equal_its_fields():
    run = _run([0.25], [StepRecord(1, 1, float("nan"), 0.5, 0.1)])
    told = json.loads(run.to_json())
    assert told["schema_version"] == 1
    assert told["epochs"][0]["validation_accuracy"] == 0.25
    assert told["steps"][0] == {"step": 1, "epoch": 1, "loss": None, "accuracy": 0.5, "learning_rate": 0.1}
    assert told["config"]["momentum"] == 0.9
    assert told["classes"] == ["a", "b"]
