"""The whole way from a network and images to a page, as small as it gets."""

import json
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.data import load_data
from convscope.report import ReportConfig, report
from convscope.report.pages.fields import at
from convscope.report.whole.request import with_settings

SMALL = {"size": 64, "width": 0.05, "epochs": 1, "per_class": 4, "batch_size": 10, "repeats": 2}


class Residual(nn.Module):
    """A small network with a shortcut, a functional ReLU and dropout, in training mode."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.drop, self.fc = nn.Dropout(0.5), nn.Linear(6, 10)

    def forward(self, x):
        x = nn.functional.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 2)
        x = torch.relu(x + self.bn2(self.conv2(x)))
        return self.fc(self.drop(x.mean((2, 3))))


def state(model):
    return (
        {name: tensor.clone() for name, tensor in model.state_dict().items()},
        [module.training for module in model.modules()],
        [parameter.requires_grad for parameter in model.parameters()],
        [len(module._forward_hooks) + len(module._backward_hooks) for module in model.modules()],
        torch.get_rng_state(),
    )


def same(first, second):
    tensors = all(torch.equal(first[0][name], second[0][name]) for name in first[0])
    return tensors and first[1:4] == second[1:4] and torch.equal(first[4], second[4])


@pytest.fixture(scope="module")
def module_report(tmp_path_factory):
    torch.manual_seed(0)
    out = tmp_path_factory.mktemp("module") / "report"
    model = Residual()
    model.bn1.eval()  # frozen on purpose
    before = state(model)
    told = []
    data = load_data("digits", size=24, per_class=4)
    found = report(model, data, out=out, batch_size=8, repeats=2, top=4, progress=told.append)
    return found, out, told, same(before, state(model))


def test_a_module_is_looked_at_as_it_is_and_comes_back_as_it_was(module_report):
    found, _, _, unchanged = module_report
    assert unchanged
    assert found.subject.network == "Residual"
    assert found.training is None
    assert found.published is None
    assert "Nothing was trained here" in found.why_missing("training")
    assert found.folded.ledger.folded == 2
    assert found.cost.totals.params == 6 * 27 + 6 + 36 * 9 + 24 + 70
    assert found.checkup.depth == "data"
    assert [layer.frozen for layer in found.checkup.layers] == [True, False]
    assert [layer.name for layer in found.gallery.layers] == ["conv1", "conv2"]


def test_the_folder_holds_the_page_the_data_and_the_pictures(module_report):
    found, out, _, _ = module_report
    assert sorted(path.name for path in out.iterdir()) == [
        "first-layer.png", "gallery", "index.html", "report.json",
    ]  # fmt: skip
    assert found.page == str(out / "index.html")
    assert Path(found.gallery.folder) == out / "gallery"
    data = json.loads((out / "report.json").read_text())
    assert data == json.loads(found.to_json())
    assert at(data, "findings.0.finding.fault") == found.findings[0].finding.fault
    assert [path.name for path in out.parent.iterdir()] == ["report"]
    for file in ("report.json", "index.html", "gallery/index.json", "gallery/gallery.js"):
        assert "/.report." not in (out / file).read_text()  # the temporary folder's name


def test_the_watcher_hears_every_stage_in_order(module_report):
    _, _, told, _ = module_report
    numbers = [stage.number for stage in told]
    assert numbers == sorted(numbers)
    assert {stage.total for stage in told} == {max(numbers)}
    assert told[-1].name == "writing the page"
    shares = [stage.share for stage in told if stage.name == "finding every unit's images" and stage.detail]
    assert len(shares) > 2
    assert 0 < max(shares) <= 1


def test_what_folds_nothing_is_not_timed_and_few_images_are_joined_by_the_others(tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 22 * 22, 10))
    data = load_data("digits", size=24, per_class=2)
    found = report(net, data, out=tmp_path / "r", batch_size=4, repeats=2, top=3)
    assert found.gallery.num_images == found.subject.num_train + found.subject.num_validation
    assert found.folded.speed is None
    assert "How fast without it" not in (tmp_path / "r" / "index.html").read_text()


def test_statistics_that_no_batch_has_moved_are_not_judged(tmp_path):
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 22 * 22, 10)
    )
    net[0].weight.data *= 100
    data = load_data("digits", size=24, per_class=2)
    settings = {"batch_size": 10, "repeats": 2, "top": 2}
    fresh = report(net, data, out=tmp_path / "fresh", **settings)
    assert {finding.fault for finding in fresh.checkup.expected} >= {"young-statistics", "stale-statistics"}
    assert {finding.severity for finding in fresh.checkup.findings} <= {"advice"}
    assert "no batch has been seen" in fresh.why_missing("statistics")
    page = (tmp_path / "fresh" / "index.html").read_text()
    assert "Not judged" in page
    assert "There on purpose" not in page
    net[1].num_batches_tracked += 100
    net[1].running_mean += 0.1
    stale = report(net, data, out=tmp_path / "stale", **settings)
    assert "stale-statistics" in {finding.fault for finding in stale.checkup.findings}
    assert stale.why_missing("statistics") == ""


def test_a_module_takes_no_norm(tmp_path):
    refused("norm='batch' for a network that is there already", Residual(), norm="batch", out=tmp_path / "r")


@pytest.fixture
def training_package():
    return pytest.importorskip("accelerate")


@pytest.mark.slow
def test_a_network_is_trained_twice_and_everything_is_there(training_package, tmp_path):
    out = tmp_path / "report"
    found = report("zfnet", "photos", out=out, **SMALL)
    assert found.missing == ()
    assert found.published.totals.params == 62_357_608
    assert found.published.totals.macs == 128 * 1_168_032_896
    assert found.training.twin.network == found.training.run.network
    assert found.training.run.config == found.training.twin.config
    assert len(found.training.run.epochs) == 1
    assert found.folded.ledger.folded == 5
    assert len(found.findings) == 5
    assert len(found.gallery.layers) == 5
    for run in (found.training.run, found.training.twin):
        assert Path(run.weights).is_file()
        assert Path(run.weights).is_relative_to(out)
    # A second report replaces the first one, and looks at the weights that were trained in it.
    weights = tmp_path / "kept.safetensors"
    weights.write_bytes(Path(found.training.run.weights).read_bytes())
    again = report("zfnet", "photos", out=out, weights=weights, per_class=4, batch_size=10, repeats=2)
    assert again.training is None
    assert again.subject.norm == "batch"
    assert again.subject.input_shape == (3, 64, 64)
    assert not (out / "runs").exists()
    assert again.cost.totals.params == found.cost.totals.params
    assert again.checkup.eval_loss == pytest.approx(found.checkup.eval_loss, rel=1e-4)


BUILDER = """
from torch import nn


def build(norm="none", num_classes=10):
    layers = [nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4) if norm == "batch" else nn.Identity()]
    layers += [nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes)]
    return nn.Sequential(*layers), (1, 3, 24, 24)
"""


@pytest.mark.slow
def test_a_builder_that_takes_a_norm_has_a_twin_where_it_is_named(training_package, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(BUILDER)
    settings = {"per_class": 4, "epochs": 1, "batch_size": 10, "repeats": 2, "top": 2}
    found = report("net.py:build", "digits", "batch", "with", **settings)
    assert found.training.norm == "batch"
    assert len(found.checkup.layers) == 1
    assert found.training.twin is not None
    bare = report("net.py:build", "digits", None, "without", **settings)
    assert bare.training.twin is None
    assert "--norm" in bare.why_missing("twin")


@pytest.mark.slow
def test_the_same_seed_gives_the_same_numbers(training_package, tmp_path):
    data = load_data("digits", size=67, per_class=2)
    settings = {"width": 0.03, "epochs": 1, "batch_size": 10, "repeats": 2}
    first, second = (report("alexnet", data, out=tmp_path / name, **settings) for name in ("a", "b"))
    assert first.training.run.steps == second.training.run.steps
    assert first.training.twin.steps == second.training.twin.steps
    assert first.checkup.eval_loss == second.checkup.eval_loss
    assert [unit.maximum for unit in first.gallery.layers[-1].units] == [
        unit.maximum for unit in second.gallery.layers[-1].units
    ]


@pytest.mark.slow
def test_a_run_that_diverges_leaves_a_page_that_says_so(training_package, tmp_path):
    data = load_data("digits", size=67, per_class=4)
    found = report(
        "alexnet", data, "none", tmp_path / "r", width=0.03, epochs=3, batch_size=10, learning_rate=1e8
    )
    assert found.training.run.diverged is not None
    assert found.checkup is found.gallery is found.stem is found.folded is None
    assert "diverged" in found.why_missing("gallery")
    assert found.findings[0].finding.fault == "diverged"
    assert (tmp_path / "r" / "index.html").is_file()


def refused(match, *arguments, **options):
    with pytest.raises(ConvscopeError, match=match) as caught:
        report(*arguments, **options)
    assert "\n" not in str(caught.value)


def test_a_folder_with_other_files_is_refused_and_kept(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    refused("holds other files", "zfnet", out=tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_an_output_that_is_a_file_is_refused_before_any_work(tmp_path):
    (tmp_path / "report").write_text("a file")
    refused("can't be written", "no such network", out=tmp_path / "report")
    assert (tmp_path / "report").read_text() == "a file"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_output_is_refused_before_any_work(tmp_path):
    tmp_path.chmod(0o500)
    refused("can't be written", "no such network", out=tmp_path / "report")


@pytest.mark.parametrize(
    ("match", "options"),
    [
        ("unknown network 'alexnte'", {"network": "alexnte"}),
        ("fotos", {"data": "fotos"}),
        ("norm='batsch'", {"norm": "batsch"}),
        ("unknown report setting 'epoch'.*try epochs=", {"epoch": 3}),
        ("epochs=0", {"epochs": 0}),
        ("batch_size=1", {"batch_size": 1}),
        ("weights", {"weights": "no-such-file.safetensors"}),
        ("size|small|pixel", {"size": 8}),
        ("to be trained here.*leave train out", {"weights": "w.safetensors", "train": True}),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(match, options, tmp_path):
    refused(
        match, options.pop("network", "zfnet"), options.pop("data", "photos"), out=tmp_path / "r", **options
    )
    assert list(tmp_path.iterdir()) == []


def test_a_module_and_weights_are_one_too_many(tmp_path):
    refused("one or the other", Residual(), out=tmp_path / "r", weights="w.safetensors")


def test_an_exception_in_the_middle_leaves_nothing(tmp_path):
    def stop(stage):
        if stage.name == "reading the cost":
            raise KeyboardInterrupt

    model = Residual()
    before = state(model)
    with pytest.raises(KeyboardInterrupt):
        report(model, load_data("digits", size=24, per_class=2), out=tmp_path / "r", progress=stop)
    assert list(tmp_path.iterdir()) == []
    assert same(before, state(model))


def test_settings_replace_those_of_the_config():
    config = with_settings(ReportConfig(epochs=7), {"width": 0.5})
    assert (config.epochs, config.width) == (7, 0.5)
