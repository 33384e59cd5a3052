import json

import pytest

from convscope.core.errors import ConvscopeError
from convscope.train.keeping.log import LogWriter, as_entry, read_log, truncate_log
from convscope.train.run import Divergence, EpochRecord, StepRecord


def _steps(*numbers):
    return [StepRecord(number, 1 + number // 4, 0.1 * number, 0.5, 1 / 3) for number in numbers]


def _epoch(number, step):
    return EpochRecord(number, step, 1.5, 0.5, float("nan"), 0.25, None, 0.1, 99.5, 1.25)


def _write(path, *lines):
    writer = LogWriter(path)
    for kind, entries in lines:
        writer.write(kind, entries)
    writer.close()


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "new" / "log.jsonl"
    _write(
        path,
        ("start", [{"network": "Ünet\n", "seed": 0}]),
        ("step", [as_entry(record) for record in _steps(1, 2, 3)]),
        ("epoch", [as_entry(_epoch(1, 3))]),
        ("step", [as_entry(record) for record in _steps(4, 5)]),
        ("end", [{"diverged": as_entry(Divergence(6, 2, float("inf"), 0.1))}]),
    )
    return path


def test_what_is_written_is_read_back(path):
    log = read_log(path)
    assert log.start == {"network": "Ünet\n", "seed": 0}
    assert log.steps == _steps(1, 2, 3, 4, 5)
    assert log.epochs[0].validation_loss != log.epochs[0].validation_loss  # NaN came back as NaN
    assert log.epochs[0].validation_top5 is None
    assert log.ended
    assert (log.diverged.step, log.diverged.epoch) == (6, 2)


def test_every_line_is_strict_json(path):
    def refuse(text):
        raise AssertionError(text)

    for line in path.read_text().splitlines():
        json.loads(line, parse_constant=refuse)


def test_an_unfinished_last_line_is_left_out_at_every_length(path):
    text = path.read_bytes()
    last = text.rstrip(b"\n").rfind(b"\n") + 1
    for cut in range(last, len(text)):
        path.write_bytes(text[:cut])
        assert read_log(path).steps == _steps(1, 2, 3, 4, 5)
        assert not read_log(path).ended


def test_truncating_keeps_what_had_happened_at_the_checkpoint(path):
    truncate_log(path, step=3, epoch=0)
    log = read_log(path)
    assert log.steps == _steps(1, 2, 3)
    assert log.epochs == []
    assert not log.ended
    _write(path, ("step", [as_entry(record) for record in _steps(4)]))
    truncate_log(path, step=4, epoch=0)
    assert read_log(path).steps == _steps(1, 2, 3, 4)


def test_truncating_after_an_epoch_keeps_its_record(path):
    truncate_log(path, step=3, epoch=1)
    assert [record.epoch for record in read_log(path).epochs] == [1]
    truncate_log(path.with_name("absent.jsonl"), step=3, epoch=1)
    assert not path.with_name("absent.jsonl").exists()


@pytest.mark.parametrize(
    "line", ["nonsense", "{}", '{"kind": "step"}', '{"kind": "pause"}', "[1]", '"start"', "3"]
)
def test_a_line_that_isnt_a_logs_is_named(path, line):
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], line, *lines[2:]]) + "\n")
    with pytest.raises(ConvscopeError, match=r"log\.jsonl, line 3"):
        read_log(path)
    before = path.read_bytes()
    with pytest.raises(ConvscopeError, match="line 3"):
        truncate_log(path, 1, 0)
    assert path.read_bytes() == before


def test_an_absent_log_and_an_unwritable_one_are_named(tmp_path):
    with pytest.raises(ConvscopeError, match="no readable log"):
        read_log(tmp_path / "log.jsonl")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConvscopeError, match="can't be written"):
        LogWriter(tmp_path / "file" / "log.jsonl")


def test_a_divergence_comes_back_with_its_cause_and_without_one(path):
    found = Divergence(6, 2, 1.5, 0.1, "2#1:log.1", "output", "-inf", (0, 4), 7.5, None, 5)
    for diverged in (found, Divergence(6, 2, 1.5, 0.1)):
        _write(path, ("end", [{"diverged": as_entry(diverged)}]))
        assert read_log(path).diverged == diverged


def test_what_couldnt_be_written_is_said_once_and_closing_is_quiet(tmp_path):
    writer = LogWriter(tmp_path / "log.jsonl")
    writer.write("step", [as_entry(_steps(1)[0])])
    writer._file.close()
    writer._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115, PTH123
    with pytest.raises(ConvscopeError, match=r"log.jsonl' can't be written \(No space left on device\)"):
        writer.write("step", [as_entry(_steps(2)[0])])
    writer.close()


def test_a_log_that_was_removed_is_named(tmp_path):
    writer = LogWriter(tmp_path / "log.jsonl")
    (tmp_path / "log.jsonl").unlink()
    with pytest.raises(ConvscopeError, match="somebody removed it during the run"):
        writer.write("step", [as_entry(_steps(1)[0])])
    writer.close()


def test_a_record_whose_step_isnt_a_number_is_named(path):
    line = json.dumps({"kind": "epoch", **as_entry(_epoch(1, 3)), "step": "x"})
    path.write_text(line + "\n")
    with pytest.raises(ConvscopeError, match="line 1"):
        read_log(path)


def test_bytes_that_arent_text_dont_stop_a_resumption(path):
    path.write_bytes(b'{"kind": "start", "data": "\xff"}\n')
    truncate_log(path, 3, 1)
    assert list(read_log(path).start) == ["data"]
