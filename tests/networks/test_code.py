"""Networks from Python code and exported programs."""

import logging
import sys

import pytest
import torch
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.networks import load

FILE = """
from dataclasses import dataclass
import torch
from sibling import WIDTH

@dataclass
class Settings:
    width: "int" = WIDTH

def net(num_classes=3, width=Settings().width):
    return torch.nn.Linear(width, num_classes)

def with_shape():
    return torch.nn.Linear(4, 2), (5, 4)

def with_tensors():
    return torch.nn.Bilinear(2, 3, 1), (torch.zeros(1, 2), torch.zeros(1, 3))

def broken():
    return 1 / 0

ready = torch.nn.Linear(7, 1)
number = 3
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "sibling.py").write_text("WIDTH = 6\n")
    (tmp_path / "torch.py").write_text(FILE.replace("from sibling import WIDTH", "WIDTH = 6"))
    path = tmp_path / "nets.py"
    path.write_text(FILE)
    yield path
    sys.modules.pop("sibling", None)


def test_a_callable_in_a_file_is_called_with_the_options(file):
    path, modules = list(sys.path), set(sys.modules)
    loaded = load(f"{file}:net", num_classes=9, input_shape=(5,), batch=6, width=5)
    assert loaded.inputs == (6, 5)
    assert loaded.model(torch.zeros(6, 5)).shape == (6, 9)
    assert sys.path == path
    assert set(sys.modules) - modules == {"sibling", "convscope_reference_nets"}
    assert loaded.class_name(4) == "class 4"


def test_a_callable_may_bring_its_inputs(file):
    assert load(f"{file}:with_shape").inputs == (5, 4)
    assert load(f"{file}:with_shape", batch=2).inputs == (2, 4)
    model, inputs = load(f"{file}:with_tensors")
    assert model(*inputs).shape == (1, 1)
    with pytest.raises(ConvscopeError, match="it brings its own inputs"):
        load(f"{file}:with_tensors", batch=2)


def test_a_network_that_is_there_already_is_taken(file):
    assert load(f"{file}:ready", input_shape=(7,)).model.in_features == 7


def test_a_module_path_is_imported_also_from_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "some_nets_here.py").write_text("import torch\nmake = torch.nn.Identity\n")
    monkeypatch.chdir(tmp_path)
    assert isinstance(load("some_nets_here:make").model, nn.Identity)
    sys.modules.pop("some_nets_here")
    assert load("torch.nn:Identity").inputs == (1, 3, 224, 224)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nte", "no 'nte' in it; .*did you mean 'net'"),
        ("broken", "ZeroDivisionError"),
        ("number", "TypeError"),
        ("Settings", "gives Settings; expected a torch.nn.Module"),
    ],
)
def test_what_is_no_network_is_refused(file, name, message):
    with pytest.raises(ConvscopeError, match=message):
        load(f"{file}:{name}")


def test_files_and_modules_that_are_absent_or_broken_are_named(tmp_path):
    (tmp_path / "bad.py").write_text("def (")
    for reference, message in (
        (f"{tmp_path}/absent.py:net", "no file"),
        (f"{tmp_path}/bad.py:net", "SyntaxError"),
        ("no_such_package_at_all:net", "ModuleNotFoundError"),
        (":net", "ValueError"),
    ):
        with pytest.raises(ConvscopeError, match=message):
            load(reference)
    assert "convscope_reference_bad" not in sys.modules


def test_a_file_named_like_a_package_does_not_replace_it(file):
    assert load(f"{file.parent}/torch.py:ready", input_shape=(7,)).model.in_features == 7
    assert sys.modules["torch"] is torch


def test_an_exported_program_comes_with_its_shape(tmp_path):
    torch.export.save(torch.export.export(nn.Conv2d(3, 4, 3), (torch.randn(2, 3, 8, 9),)), tmp_path / "m.pt2")
    loaded = load(f"{tmp_path}/m.pt2")
    assert loaded.inputs == (2, 3, 8, 9)
    assert loaded.model(torch.zeros(loaded.inputs)).shape == (2, 4, 6, 7)
    with pytest.raises(ConvscopeError, match="finished"):
        load(f"{tmp_path}/m.pt2", num_classes=3)


class Scaled(nn.Linear):
    def forward(self, x, *, scale):
        return super().forward(x) * scale


def test_a_program_with_inputs_by_position_and_by_name_is_refused_as_a_whole(tmp_path):
    x, scale = torch.ones(2, 3), torch.tensor(2.0)
    mixed = torch.export.export(Scaled(3, 4), (x,), {"scale": scale})
    torch.export.save(mixed, tmp_path / "mixed.pt2")
    for shape in (None, (3,)):
        with pytest.raises(ConvscopeError, match=r"by position and by name \(scale\).*kwargs only"):
            load(f"{tmp_path}/mixed.pt2", input_shape=shape)
    torch.export.save(torch.export.export(Scaled(3, 4), (), {"scale": scale, "x": x}), tmp_path / "named.pt2")
    model, inputs = load(f"{tmp_path}/named.pt2")
    assert torch.equal(inputs["scale"], scale)
    assert model(**inputs).shape == (2, 4)


def test_a_broken_or_absent_program_is_refused_quietly(tmp_path, caplog):
    torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.randn(1, 2),)), tmp_path / "m.pt2")
    data = (tmp_path / "m.pt2").read_bytes()
    (tmp_path / "half.pt2").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.pt2").write_text("no")
    for name, message in (
        ("half", "no whole archive"),
        ("text", "no whole archive"),
        ("absent", "no such file"),
    ):
        with pytest.raises(ConvscopeError, match=message):
            load(f"{tmp_path}/{name}.pt2")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


BUILDERS = """
from torch import nn


def net(scores=3):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(4, scores)), (1, 3, 8, 8)


def anything(**options):
    return net(options["num_classes"])


def only_by_place(num_classes=3, /):
    return net(num_classes)


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.scores, self.angle = nn.Linear(4, 5), nn.Linear(4, 1)

    def forward(self, x):
        return self.angle(x), self.scores(x)


def two():
    return Two(), (1, 4)


class Broken(nn.Module):
    def forward(self, x):
        return 1 / 0


def that_does_not_run():
    return Broken()
"""


@pytest.mark.parametrize(("name", "asked"), [("net", 3), ("anything", 7), ("only_by_place", 3)])
def test_a_builder_gets_the_number_of_classes_only_if_it_takes_it(tmp_path, name, asked):
    (tmp_path / "net.py").write_text(BUILDERS)
    model, inputs = load(f"{tmp_path / 'net.py'}:{name}", num_classes=asked)
    assert model(torch.zeros(2, *inputs[1:])).shape == (2, asked)


@pytest.mark.parametrize("name", ["net", "only_by_place"])
def test_other_scores_than_were_asked_for_are_refused_with_what_to_do(tmp_path, name):
    (tmp_path / "net.py").write_text(BUILDERS)
    message = (
        r"with 3 scores, whose builder takes no num_classes; expected 10 scores.*the keyword num_classes"
    )
    with pytest.raises(ConvscopeError, match=message):
        load(f"{tmp_path / 'net.py'}:{name}", num_classes=10)


def test_an_output_that_cannot_be_class_scores_is_not_told_as_such(tmp_path):
    (tmp_path / "net.py").write_text(BUILDERS)
    assert load(f"{tmp_path / 'net.py'}:two", num_classes=5).inputs == (1, 4)
    with pytest.raises(ConvscopeError, match="with 5 scores, whose"):
        load(f"{tmp_path / 'net.py'}:two", num_classes=10)


def test_a_network_that_does_not_run_is_left_to_what_runs_it(tmp_path):
    (tmp_path / "net.py").write_text(BUILDERS)
    assert load(f"{tmp_path / 'net.py'}:that_does_not_run", num_classes=10).model is not None
