import pytest
import torch
import torch.nn.functional as F
from torch.optim import SGD

from checkup.grown import Small, images
from convscope.checkup.watching import watch
from convscope.checkup.watching.writing import writer_of


def train(net, optimizer, log, steps=14):
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(images(8)), torch.randint(0, 4, (8,)))
        log.add(loss=loss, batch=8)
        loss.backward()
        optimizer.step()


class TensorBoard:
    def __init__(self):
        self.rows = {}

    def add_scalar(self, name, value, step):
        self.rows.setdefault(step, {})[name] = value


class WeightsAndBiases:
    def __init__(self):
        self.rows = {}

    def log(self, values, step):
        self.rows[step] = values


class Function:
    def __init__(self):
        self.rows = {}

    def __call__(self, values, step):
        self.rows[step] = values


@pytest.mark.parametrize("kind", [TensorBoard, WeightsAndBiases, Function])
def test_writers_get_sampled_steps(kind):
    net, writer = Small(), kind()
    optimizer = SGD(net.parameters(), 0.01)
    with watch(net, optimizer, every=3, writer=writer) as log:
        train(net, optimizer, log)
    assert list(writer.rows) == [*range(1, 11), 13]
    assert writer.rows[13].keys() >= {"loss", "convscope/findings", "convscope/bn1/mean_shift"}


def test_metrics_against_the_network():
    net = Small()
    optimizer = SGD(net.parameters(), 0.01)
    before = net.bn2.running_mean.clone(), net.bn2.running_var.clone()
    with watch(net, optimizer) as log:
        train(net, optimizer, log)
    values = log.metrics()
    sigma = (before[1] + net.bn2.eps).sqrt()
    shift = float(((net.bn2.running_mean - before[0]) / sigma).abs().max())
    assert values["convscope/bn2/mean_shift"] == pytest.approx(shift)
    assert values["convscope/bn2/gamma"] == pytest.approx(float(net.bn2.weight.detach().abs().median()))
    assert values["convscope/findings"] == len(log.findings)
    assert 0 < values["convscope/bn2/relative_update"] < 1
    (row,) = [row for row in log.percentiles if (row.path, row.of) == ("bn2", "output")]
    assert values["convscope/bn2/output_p85"] == row.high[-1]
    assert row.steps == (*range(10), 10)


def test_the_log_can_be_asked_within_the_block():
    net = Small()
    optimizer = SGD(net.parameters(), 0.01)
    with watch(net, optimizer) as log:
        assert log.run.num_steps == 0
        train(net, optimizer, log, 2)
        assert log.checkup().layers[0].num_batches_tracked == 2
        train(net, optimizer, log, 2)
    assert log.run.num_steps == 4


def test_lightning_loggers_and_no_writer():
    class Logger:
        def log_metrics(self, metrics, step):
            self.row = metrics, step

    logger = Logger()
    writer_of(logger)({"a": 1.0}, 2)
    assert logger.row == ({"a": 1.0}, 2)
    assert writer_of(None) is None


def test_what_a_writer_raises_is_the_users():
    def broken(values, step):
        raise OSError("disk full")

    net = Small()
    optimizer = SGD(net.parameters(), 0.01)
    with pytest.raises(OSError, match="disk full"), watch(net, optimizer, writer=broken) as log:
        train(net, optimizer, log)
    assert not optimizer._optimizer_step_post_hooks


def test_as_json():
    net = Small()
    optimizer = SGD(net.parameters(), 0.01)
    with watch(net, optimizer) as log:
        train(net, optimizer, log)
    assert '"depth": "training"' in log.checkup().to_json()
