"""What can't be trained, or not there: one line, and nothing lost or half-written."""

import pytest
from torch import nn

import convscope as cs
from convscope.core.errors import ConvscopeError
from train.toy import SETTINGS, RandomImages, ToyData, toy_model


class _Broken(RandomImages):
    def __getitem__(self, index):
        raise ConvscopeError(f"image {index} is damaged", "a picture", "remove it")


@pytest.mark.parametrize(
    ("model", "data", "settings", "message"),
    [
        (toy_model(), ToyData(), {"epoch": 3}, "unknown training setting 'epoch'.*try epochs="),
        (toy_model(), ToyData(), {"epochs": -3}, "epochs=-3"),
        (toy_model(scores=2), ToyData(), {}, "Sequential gives 2 scores; expected at least 3"),
        (nn.Conv2d(3, 4, 3), ToyData(), {}, r"Conv2d on images of shape \(2, 2, 6, 5\) fails"),
        (nn.Conv2d(2, 4, 3), ToyData(), {}, "class scores"),
        (toy_model().requires_grad_(False), ToyData(), {}, "without a trainable parameter"),
        (toy_model(), ToyData(train=RandomImages(1)), {}, r"1 training image\(s\)"),
        (toy_model(), ToyData(validation=RandomImages(0)), {}, "without validation images"),
        (toy_model(), ToyData(classes=("a",)), {}, r"1 class\(es\)"),
        (toy_model(), ToyData(validation=_Broken(3)), {}, "image 0 is damaged"),
        ("alexnte", ToyData(), {}, "unknown network 'alexnte'"),
        (toy_model(), ToyData(), {"resume": True, "out": None}, "resume=True without out"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_leaves_no_file(tmp_path, monkeypatch, model, data, settings, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConvscopeError, match=message) as caught:
        cs.train(model, data, **{"out": "r", **settings})
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_folder_is_refused_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    data = ToyData()
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConvscopeError, match="can't be written"):
            cs.train(toy_model(), data, out=out)
    assert data.train.seen == []


def test_one_image_with_batch_norm_on_a_single_pixel_is_explained(tmp_path):
    model = nn.Sequential(nn.Conv2d(2, 4, (6, 5)), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3))
    with pytest.raises(ConvscopeError, match="fails: Expected more than 1 value per channel"):
        cs.train(model, ToyData(), out=tmp_path / "one", batch_size=1, epochs=1)
    run = cs.train(model, ToyData(), out=tmp_path / "r", batch_size=41, epochs=1)  # 42 = 41 + 1
    assert len(run.steps) == 1


def test_a_folder_that_holds_a_run_is_refused_and_left_alone(tmp_path):
    cs.train(toy_model(), ToyData(), out=tmp_path / "r", epochs=1)
    before = {file: file.read_bytes() for file in (tmp_path / "r").iterdir()}
    with pytest.raises(ConvscopeError, match="holds a run already"):
        cs.train(toy_model(), ToyData(), out=tmp_path / "r", epochs=1)
    assert {file: file.read_bytes() for file in (tmp_path / "r").iterdir()} == before


def test_another_networks_or_another_runs_checkpoint_is_refused(tmp_path):
    cs.train(toy_model(), ToyData(), out=tmp_path / "r", **SETTINGS)
    before = {file: file.read_bytes() for file in (tmp_path / "r").iterdir()}
    for model, changes, message in (
        (toy_model(scores=4), {}, r"checkpoint.safetensors.* doesn't fit .* 5.weight"),
        (toy_model(), {"seed": 2}, "of another run: seed was 0; expected seed 2"),
        (toy_model(), {"data": ToyData(train=RandomImages(43))}, "num_images was 42; expected num_images 43"),
    ):
        with pytest.raises(ConvscopeError, match=message):
            cs.train(
                model, changes.pop("data", ToyData()), out=tmp_path / "r", resume=True, **SETTINGS, **changes
            )
    assert {file: file.read_bytes() for file in (tmp_path / "r").iterdir()} == before


def test_a_run_without_its_checkpoint_or_of_other_processes_is_refused(tmp_path):
    out = tmp_path / "r"
    cs.train(toy_model(), ToyData(), out=out, **SETTINGS)
    log = (out / "log.jsonl").read_text()
    (out / "log.jsonl").write_text(log.replace('"processes": 1', '"processes": 2'))
    with pytest.raises(
        ConvscopeError, match=r"a run of 2 process.* resumed with 1, although 1 normalises by"
    ):
        cs.train(toy_model(), ToyData(), out=out, resume=True, **SETTINGS)
    (out / "log.jsonl").write_text(log)
    (out / "checkpoint.safetensors").unlink()
    before = {file: file.read_bytes() for file in out.iterdir()}
    for resume in (False, True):
        with pytest.raises(
            ConvscopeError, match="holds the log of a run but no checkpoint; expected checkpoint"
        ):
            cs.train(toy_model(), ToyData(), out=out, resume=resume, **SETTINGS)
    assert {file: file.read_bytes() for file in out.iterdir()} == before
