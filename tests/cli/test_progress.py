import io

import pytest
from rich.console import Console

from convscope.cli import progress
from convscope.cli.progress import TrainingBar
from convscope.train import EpochRecord, Pulse


@pytest.fixture
def shown(monkeypatch):
    """Makes a bar on a terminal of 80 columns, and returns what it has written."""

    def shown(is_terminal):
        file = io.StringIO()
        monkeypatch.setattr(progress, "_LINES", not is_terminal)
        console = Console(file=file, width=80, force_terminal=is_terminal, highlight=False, soft_wrap=True)
        monkeypatch.setattr(progress, "aside", lambda: console)
        return TrainingBar(), file

    return shown


PULSE = Pulse(9000, 90000, 9, 90, 2.3456, 0.01234, 12345.6, 45296.4)
EPOCH = EpochRecord(9, 9000, 2.25, 0.5, 2.5, 0.4567, 0.7, 0.01, 1234.5, 60.0)


def test_a_bar_of_80_columns_says_loss_rate_speed_and_time_left(shown):
    bar, file = shown(is_terminal=True)
    bar.start(90000, 0, 90)
    bar.step(PULSE)
    bar._bar.refresh()
    line = next(line for line in file.getvalue().replace("\x1b[2K", "\n").splitlines() if "left" in line)
    plain = Console(file=io.StringIO(), width=200).render_str(line).plain
    for figure in ("epoch 9/90", "loss 2.346", "rate 0.0123", "12,346 images/s", "12:34:56 left", "━"):
        assert figure in plain
    bar.epoch(EPOCH)
    bar.stop()
    assert "epoch 9/90: training loss 2.250, validation accuracy 45.7%, 1,234 images/s" in file.getvalue()


def test_in_a_pipe_there_is_a_line_for_each_epoch_and_nothing_else(shown):
    bar, file = shown(is_terminal=False)
    bar.start(90000, 0, 90)
    bar.step(PULSE)
    bar.epoch(EPOCH)
    bar.stop()
    assert file.getvalue().splitlines() == [
        "epoch 9/90: training loss 2.250, validation accuracy 45.7%, 1,234 images/s"
    ]
