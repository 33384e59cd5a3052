"""The file of measurements, on answers that a GPU could give; and what is said where there is none."""

import json
import threading

import pytest
import torch
from bench.gpu_rows import fields_of, row_of, rows

from bench import gpu_truth
from convscope.core.errors import ConvscopeError

DEVICE = {
    "gpu": "NVIDIA H200", "compute_capability": "9.0", "memory_bytes": 150_000_000_000, "driver": "580.1",
    "torch": "2.11.0+cu130", "cuda": "13.0", "cudnn": "91900", "settings": {"cudnn.benchmark": "False"},
    "context_bytes": 500_000_000,
}  # fmt: skip


class _Gpu:
    """Answers as processes would; ``fails`` maps a row to what it fails with, once or always."""

    def __init__(self, fails=None, device=DEVICE):
        self.asked, self.fails, self.device = [], fails or {}, device
        self._lock = threading.Lock()

    def __call__(self, question):
        if question == "device":
            return self.device
        row = row_of(json.loads(question))
        with self._lock:
            self.asked.append(row)
            reasons = self.fails.get(row, [])
            if reasons:
                return {"failure": reasons.pop(0)}
        return {"input_shape": [row.batch, 3, 224, 224], "allocated_peak_bytes": row.batch, "phase_peaks": {}}


def _content(path):
    return json.loads(path.read_text())


def test_the_file_is_named_after_gpu_and_version_and_holds_every_step(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_truth, "TRUTH", tmp_path)
    path = gpu_truth.measure(ask=_Gpu())
    assert path == tmp_path / "nvidia-h200-2.11.0+cu130.json"
    content = _content(path)
    assert [row_of(entry) for entry in content["rows"]] == list(rows())
    assert content["rows"][0]["allocated_peak_bytes"] == 1
    assert {name: content[name] for name in DEVICE} == DEVICE
    assert (content["schema_version"], content["failures"]) == (1, [])
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_started_again_it_goes_on_where_it_stopped(tmp_path):
    path = tmp_path / "truth.json"
    first = _Gpu()
    gpu_truth.measure(path, only="*fp32*", jobs=2, ask=first)
    again = _Gpu()
    gpu_truth.measure(path, ask=again)
    assert len(first.asked) == 22
    assert sorted(row.label for row in first.asked + again.asked) == sorted(row.label for row in rows())
    assert [row_of(entry) for entry in _content(path)["rows"]] == list(rows())
    idle = _Gpu()
    gpu_truth.measure(path, ask=idle)
    assert idle.asked == []


def test_the_file_is_whole_after_every_step(tmp_path):
    path, sizes = tmp_path / "truth.json", []
    gpu = _Gpu()

    def ask(question):
        if path.exists():
            sizes.append(len(_content(path)["rows"]))
        return gpu(question)

    gpu_truth.measure(path, only="alexnet*", jobs=1, ask=ask)
    assert sizes == [1, 2, 3, 4, 5]


def test_no_step_is_started_when_the_time_is_up(tmp_path):
    gpu = _Gpu()
    gpu_truth.measure(tmp_path / "truth.json", seconds=40, ask=gpu)
    assert gpu.asked == []


def test_a_step_that_fails_is_named_and_tried_again_at_the_next_start(tmp_path):
    path, broken = tmp_path / "truth.json", rows()[3]
    gpu_truth.measure(path, ask=_Gpu({broken: ["ImportError: no timm"]}))
    content = _content(path)
    assert content["failures"] == [{**fields_of(broken), "reason": "ImportError: no timm"}]
    assert len(content["rows"]) == 65
    gpu = _Gpu()
    gpu_truth.measure(path, ask=gpu)
    assert gpu.asked == [broken]
    assert _content(path)["failures"] == []


def test_a_step_that_does_not_fit_beside_others_is_repeated_alone(tmp_path):
    path, large, larger = tmp_path / "truth.json", rows()[10], rows()[20]
    full = "doesn't fit: CUDA out of memory"
    gpu = _Gpu({large: [full], larger: [full, full]})
    gpu_truth.measure(path, jobs=3, ask=gpu)
    assert sorted(row.label for row in gpu.asked[-2:]) == sorted([large.label, larger.label])
    content = _content(path)
    assert large in [row_of(entry) for entry in content["rows"]]
    assert [row_of(failed) for failed in content["failures"]] == [larger]
    gpu_truth.measure(path, ask=(idle := _Gpu()))
    assert idle.asked == []


def test_measurements_of_another_machine_are_not_mixed_in(tmp_path):
    path = tmp_path / "truth.json"
    gpu_truth.measure(path, only="alexnet*", ask=_Gpu())
    with pytest.raises(ConvscopeError, match=r"driver '580\.1'; expected '590\.2', as here"):
        gpu_truth.measure(path, ask=_Gpu(device={**DEVICE, "driver": "590.2"}))
    gpu_truth.measure(path, only="zfnet*", ask=_Gpu(device={**DEVICE, "context_bytes": 7}))
    assert _content(path)["context_bytes"] == 500_000_000


def test_a_gpu_that_fails_is_said(tmp_path):
    with pytest.raises(ConvscopeError, match="a GPU that fails"):
        gpu_truth.measure(tmp_path / "truth.json", ask=lambda _: {"failure": "RuntimeError: no kernel image"})


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_without_cuda_the_command_says_so_in_one_line(capsys, tmp_path):
    assert gpu_truth.main(["measure", "--out", str(tmp_path / "truth.json")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("no CUDA device")
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_process_answers_with_its_failure(capsys):
    assert gpu_truth.main(["answer", json.dumps(fields_of(rows()[0]))]) == 0
    marked = capsys.readouterr().out.splitlines()[-1]
    assert "no CUDA device" in json.loads(marked.removeprefix("GPU-TRUTH "))["failure"]


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_fresh_process_answers():
    assert "no CUDA device" in gpu_truth._in_fresh_process("device")["failure"]


def test_what_a_process_says_instead_of_an_answer(monkeypatch):
    monkeypatch.setattr(gpu_truth.sys, "executable", "/bin/false")
    assert gpu_truth._in_fresh_process("device") == {"failure": "exit status 1: nothing said"}


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"rows": [{"network": "alexnet"}]}'])
def test_a_damaged_file_is_refused(damage, tmp_path, capsys):
    path = tmp_path / "truth.json"
    path.write_text(damage)
    assert gpu_truth.main(["compare", str(path)]) == 2
    assert "can't be read" in capsys.readouterr().err


def test_without_files_the_table_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_truth, "TRUTH", tmp_path)
    assert "python -m bench.gpu_truth measure" in gpu_truth.table()
