"""Recurrent layers: every step multiplies the input and the state with their weights."""

import pytest
from torch import nn

from convscope.cost import cost
from convscope.tape import TrainingPlan

STEPS, BATCH, FEATURES, HIDDEN = 3, 2, 5, 7
PLAN = TrainingPlan(loss=lambda out: out[0].sum())


@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"num_layers": 2}, {"batch_first": True}])
@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_layers(kind, gates, options):
    directions = 2 if options.get("bidirectional") else 1
    found = cost(kind(FEATURES, HIDDEN, **options), (STEPS, BATCH, FEATURES), PLAN)
    expected = STEPS * BATCH * gates * HIDDEN * (FEATURES + HIDDEN) * directions
    if options.get("num_layers") == 2:
        expected += STEPS * BATCH * gates * HIDDEN * 2 * HIDDEN
    assert found.totals.macs == expected
    assert found.totals.backward_weight_flops == 2 * expected
    assert found.uncounted == ()


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTMCell, 4), (nn.GRUCell, 3), (nn.RNNCell, 1)])
def test_cells(kind, gates):
    plan = TrainingPlan(loss=lambda out: (out[0] if isinstance(out, tuple) else out).sum())
    found = cost(kind(FEATURES, HIDDEN), (BATCH, FEATURES), plan)
    assert found.totals.macs == BATCH * gates * HIDDEN * (FEATURES + HIDDEN)
    assert found.uncounted == ()


def test_gates_are_elementwise_work():
    found = cost(nn.LSTM(FEATURES, HIDDEN), (STEPS, BATCH, FEATURES), plan=None)
    assert found.totals.elementwise_ops == 22 * STEPS * BATCH * HIDDEN
