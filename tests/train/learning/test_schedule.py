import math

import pytest
import torch

from convscope.train.config import TrainConfig
from convscope.train.learning.schedule import learning_rate, plateau, warmup_steps


def _rates(config: TrainConfig, steps_per_epoch: int) -> list[float]:
    return [learning_rate(config, step, steps_per_epoch) for step in range(config.epochs * steps_per_epoch)]


def test_cosine_has_its_closed_form_values():
    # cos at 0, pi/4, pi/2, 3pi/4 of the way.
    rates = _rates(TrainConfig(epochs=4, learning_rate=2.0), 1)
    assert rates == pytest.approx([2.0, 1 + math.sqrt(0.5), 1.0, 1 - math.sqrt(0.5)], rel=1e-12)


def test_warm_up_climbs_linearly_then_cosine_starts_at_the_peak():
    config = TrainConfig(epochs=3, learning_rate=0.8, warmup_epochs=0.5)
    rates = _rates(config, 8)
    assert rates[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert rates[4] == 0.8
    assert rates[14] == pytest.approx(0.4)  # half-way between 4 and 24
    assert rates == sorted(rates[:4]) + sorted(rates[4:], reverse=True)


def test_cosine_and_steps_equal_those_of_pytorch():
    config = TrainConfig(epochs=6, learning_rate=0.3, step_epochs=2, step_factor=0.5)
    parameter = torch.nn.Parameter(torch.zeros(1))
    for schedule, peer in (
        ("cosine", lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=30)),
        ("step", lambda o: torch.optim.lr_scheduler.StepLR(o, step_size=10, gamma=0.5)),
    ):
        optimizer = torch.optim.SGD([parameter], lr=0.3)
        scheduler, expected = peer(optimizer), []
        for _ in range(30):
            expected.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        ours = _rates(TrainConfig(**{**vars(config), "schedule": schedule}), 5)
        assert ours == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_constant_stays_and_warm_up_may_fill_the_whole_run():
    assert set(_rates(TrainConfig(epochs=2, learning_rate=0.1, schedule="constant"), 3)) == {0.1}
    rates = _rates(TrainConfig(epochs=2, learning_rate=1.0, warmup_epochs=2), 2)
    assert rates == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("patience", [1, 2, 5])
def test_plateaus_equal_those_of_pytorch(patience):
    """PyTorch waits one epoch longer than its patience says, and calls a tiny change none."""
    config = TrainConfig(schedule="plateau", step_factor=0.3, learning_rate=0.2, patience_epochs=patience)
    errors = torch.randint(5, 40, (60,), generator=torch.Generator().manual_seed(patience)).tolist()
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.2)
    peer = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.3, patience=patience - 1, threshold=0
    )
    waited, falls, best = 0, 0, 101
    for epoch, error in enumerate(errors):
        waited, falls = plateau(patience, waited, falls, is_better=error < best)
        best = min(error, best)
        peer.step(error)
        rate = learning_rate(config, 7 * (epoch + 1), 7, falls)
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-8)  # PyTorch stops at 1e-8
    assert falls > 3


def test_a_plateau_warms_up_first():
    config = TrainConfig(schedule="plateau", learning_rate=1.0, warmup_epochs=1.5)
    assert warmup_steps(config, 4) == 6
    assert [learning_rate(config, step, 4, falls=1) for step in (0, 2, 5)] == [1 / 6, 0.5, 1.0]
    assert learning_rate(config, 6, 4, falls=1) == pytest.approx(0.1)
