"""Steps at any batch: networks that refuse some batches, and how much is held on to."""

import weakref

import pytest
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.cost.batch.largest import largest_batch
from convscope.cost.batch.steps import BatchSteps
from convscope.report.terminal import max_batch  # noqa: F401 - registers the renderer
from convscope.tape import record

MIB = 2**20


class Clips(nn.Module):
    """Averages over the eight frames of each clip."""

    def forward(self, frames):
        return frames.view(-1, 8, frames.shape[1]).mean(1)


class Fixed(nn.Module):
    def forward(self, x):
        return x.view(16, 4)


class AllPairs(nn.Module):
    def forward(self, x):
        return x @ x.t()


def test_a_network_of_clips_is_looked_at_in_multiples_of_eight():
    """4 KiB per frame and an eighth of that per frame in the means: 8 frames take 36 KiB."""
    found = largest_batch(Clips(), (16, 1024), "1MiB", None, device="cpu")
    assert found.stride == 8
    assert found.likely.batch == MIB // (36 * 1024) * 8 == 224
    assert (found.likely.stops_at, found.likely.multiple_of_8) == (232, 224)
    assert found.likely.allocated_peak_bytes == 224 // 8 * 36 * 1024
    assert found.likely.bytes_per_item == 36 * 1024 // 8
    assert found.smallest_batch == 8
    assert found.needed_bytes == 36 * 1024
    assert found.binds.batch == 224
    assert all(batch % 8 == 0 for batch in found.checked)
    assert found.recorded_because == ""
    assert "only multiples" in str(found)
    assert "of 8 were looked at" in str(found)


def test_max_batch_counts_items():
    found = largest_batch(Clips(), (16, 1024), "1GiB", None, device="cpu", max_batch=100)
    assert found.optimistic.batch == 96
    assert found.max_batch == 100


def test_one_batch_alone_is_one_clear_line():
    with pytest.raises(ConvscopeError, match="runs at a batch of 16, but not at others"):
        largest_batch(Fixed(), (16, 4), "1GiB", None, device="cpu")


def test_a_network_that_never_runs_says_why_at_the_given_batch():
    with pytest.raises(ConvscopeError, match=r"\[16, 4\] X \[3, 2\]"):
        largest_batch(nn.Linear(3, 2), (16, 4), "1GiB", None, device="cpu")


@pytest.mark.parametrize("model", [AllPairs(), nn.Linear(4, 4)], ids=["recorded", "derived"])
def test_few_tapes_are_held(model):
    tapes = []

    def recording(batch):
        tape = record(model, (batch, 4))
        tapes.append(weakref.ref(tape))
        return tape

    steps = BatchSteps(recording, None)
    steps.check([50])
    assert bool(steps.recorded_because) == isinstance(model, AllPairs)
    peaks = [steps.at(batch).plain_peak_bytes() for batch in range(2, 30)]
    assert sum(tape() is not None for tape in tapes) <= 5
    if steps.recorded_because:
        # The input and the matrix of all pairs.
        assert peaks == [4 * 4 * batch + 4 * batch * batch for batch in range(2, 30)]
    assert _input_shape(steps.at(9).tape) == (9, 4)
    assert steps.at(9).plain_peak_bytes() == peaks[7]


def _input_shape(tape):
    return tape.values[tape.inputs[0]].shape
