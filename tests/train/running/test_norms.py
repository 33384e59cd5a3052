"""Batch norms are changed for the time of a run, and given back."""

import pytest
import torch
from torch import nn

import convscope as cs
from convscope.core.errors import ConvscopeError
from convscope.train.config import TrainConfig
from convscope.train.running.norms import norms_of_run


class _Own(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x).relu()


def _net():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), _Own(4), cs.norm.BatchNorm2d(4, momentum=0.19),
        nn.BatchNorm2d(4, momentum=None), nn.Flatten(), nn.BatchNorm1d(48), nn.Linear(48, 3),
    )  # fmt: skip


def _settings(model):
    plain = (bool, int, float, str, type(None))
    kept = [{k: v for k, v in vars(m).items() if isinstance(v, plain)} for m in model.modules()]
    return [type(m) for m in model.modules()], kept, [list(vars(m)) for m in model.modules()]


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("sync", [False, True])
@pytest.mark.parametrize("accumulation", [1, 3])
def test_classes_momentum_and_tensors_come_back_and_statistics_stay(fails, sync, accumulation):
    model, plain = _net(), _net()
    cs.norm.freeze(model, only="2"), cs.norm.freeze(plain, only="2")
    plain.load_state_dict(model.state_dict())
    before, keys = _settings(model), list(model.state_dict())
    buffers = {name: id(buffer) for name, buffer in model.named_buffers()}
    images = torch.randn(8, 2, 6, 5)

    def work():
        with norms_of_run(model, TrainConfig(sync_batch_norm=sync, accumulation=accumulation)):
            assert isinstance(model[1], cs.norm.SyncBatchNorm) == sync
            assert isinstance(model[2], cs.norm.SyncBatchNorm) == sync
            assert model[1].momentum == pytest.approx(1 - 0.9 ** (1 / accumulation))
            assert list(model.state_dict()) == keys
            for _ in range(accumulation):
                model(images)
            if fails:
                raise ZeroDivisionError

    if fails:
        with pytest.raises(ZeroDivisionError):
            work()
    else:
        work()
    assert _settings(model) == before
    assert {name: id(buffer) for name, buffer in model.named_buffers()} == buffers
    plain(images)  # one update with the whole momentum
    statistics = dict(plain.named_buffers())
    for name, buffer in model.named_buffers():
        if buffer.is_floating_point():
            torch.testing.assert_close(buffer, statistics[name], rtol=1e-4, atol=1e-5)


def test_half_precision_statistics_are_wide_meanwhile_and_keep_their_values():
    layer = cs.norm.BatchNorm2d(4)
    model = nn.Sequential(nn.BatchNorm2d(4).bfloat16(), layer)
    with norms_of_run(model, TrainConfig(sync_batch_norm=True)):
        model[0](torch.full((4, 4, 2, 2), 10.0, dtype=torch.bfloat16))
        assert model[0].running_mean.dtype == torch.float32
    assert type(model[0]) is nn.BatchNorm2d
    assert model[0].running_mean.dtype == torch.bfloat16
    assert model[0].running_mean.tolist() == [1.0] * 4


def test_networks_that_cannot_be_synchronised_are_refused_and_left():
    config = TrainConfig(sync_batch_norm=True)
    with pytest.raises(ConvscopeError, match="without a batch norm"), norms_of_run(nn.Linear(2, 2), config):
        pass

    class Replaced(nn.BatchNorm2d):
        pass

    model = nn.Sequential(nn.BatchNorm2d(4), Replaced(4))
    model[1].forward = lambda x: x
    with pytest.raises(ConvscopeError, match="Replaced at '1', which can't be"), norms_of_run(model, config):
        pass
    assert [type(module) for module in model] == [nn.BatchNorm2d, Replaced]
