"""No file that is given to convscope runs anything as it is read: every reader meets a pickle that would.

Elsewhere: weights in dictionaries, in old and new formats, and broken ones, in tests/networks/
test_checkpoint.py; a training's checkpoint that is a pickle, in tests/train/keeping/test_checkpoint.py. The
readers' code is looked through in test_source.py.
"""

import io
import json
import os
import pickle
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from cli.typed import run
from convscope.core.errors import ConvscopeError
from convscope.data import load_data
from convscope.data.tar.shards import TarListing
from convscope.data.torchvision_sets import torchvision_pair
from convscope.networks import load
from convscope.networks.exported_archive import runs_on_reading
from convscope.networks.preprocessing import read_class_names
from convscope.sight.collecting.state import read_state
from convscope.sight.comparing.reading import INDEX, NUMBERS, read_gallery
from convscope.sight.evolving.moment import load_moment, moment_file
from convscope.train.comparing.reading import RESULT, read_comparison
from convscope.train.comparing.toml_table import read_table
from convscope.train.keeping.checkpoint import read_position
from convscope.train.keeping.folder import RunFolder, read_run
from convscope.train.measuring.confusion import load_confusion

SMALL = "--width 0.0625 --input 3x67x67 --norm batch"


class Canary:
    """Its pickle makes a folder when it is loaded."""

    def __init__(self, place):
        self.place = str(place)

    def __reduce__(self):
        return os.mkdir, (self.place,)


def saved(content, **options):
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


FORMATS = {
    "pickle": pickle.dumps,
    "zip": lambda content: saved({"state_dict": content}),
    "legacy": lambda content: saved({"w": content}, _use_new_zipfile_serialization=False),
    "numpy": lambda content: b"\x93NUMPY\x01\0\x0e\0{'descr':'|O'}" + pickle.dumps(content),
}


@pytest.fixture
def canary(tmp_path):
    return Canary(tmp_path / "ran")


@pytest.fixture(params=FORMATS)
def evil(request, canary, tmp_path):
    """The content of a file that would run something; and at the end nothing has run."""
    yield FORMATS[request.param](canary)
    assert not Path(canary.place).exists()


def gallery(folder):
    (folder / INDEX).write_text("{}")
    return read_gallery(folder)


READERS = {
    "weights.pth": lambda file: load("zfnet", weights=file, width=0.0625, input_shape=(3, 67, 67)),
    "weights.safetensors": lambda file: load("zfnet", weights=file, width=0.0625, input_shape=(3, 67, 67)),
    "model.pt2": lambda file: load(str(file)),
    "classes.json": read_class_names,
    "table.toml": read_table,
    RunFolder(Path()).checkpoint.name: read_position,
    RunFolder(Path()).log.name: lambda file: read_run(file.parent),
    RunFolder(Path()).confusion.name: load_confusion,
    RESULT: lambda file: read_comparison(file.parent),
    NUMBERS: lambda file: gallery(file.parent),
    INDEX: lambda file: read_gallery(file.parent),
    "state.safetensors": read_state,
    moment_file(Path(), 3).name: lambda file: load_moment(file.parent, 3),
}


@pytest.mark.parametrize("name", READERS)
def test_every_reader_refuses_in_one_line(tmp_path, evil, name):
    (tmp_path / name).write_bytes(evil)
    with pytest.raises(ConvscopeError) as refused:
        READERS[name](tmp_path / name)
    assert "\n" not in str(refused.value)


DEEP = "[" * 200_000


@pytest.mark.parametrize("name", [name for name in READERS if name.endswith(("json", "jsonl", "toml"))])
def test_json_and_toml_without_end_are_refused_too(tmp_path, name):
    (tmp_path / name).write_text(f"a = {DEEP}\n" if name.endswith("toml") else f"{DEEP}\n")
    with pytest.raises(ConvscopeError):
        READERS[name](tmp_path / name)


def test_pickles_among_pictures_stay_unread(tmp_path, evil):
    pictures = tmp_path / "pictures"
    for label in "ab":
        (pictures / label).mkdir(parents=True)
        for index in range(3):
            Image.effect_noise((16, 16), 60).convert("RGB").save(pictures / label / f"{index}.png")
        for name in ("evil.png", "x.pkl", "x.npy", "cache.pt", "_cache_"):
            (pictures / label / name).write_bytes(evil)
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        for name in ("0.png", "1.png"):
            archive.add(pictures / "a" / name, name)
        for name in ("evil.png", "0.pyd", "0.pickle", "0.npy", "1.pth", "1.cls", "0.json"):
            archive.add(pictures / "a" / "evil.png", name)
    assert len(load_data(str(pictures), size=16).classes) == 2
    listing = TarListing([tmp_path / "shard.tar"])
    assert len(listing) == 3
    with pytest.raises(OSError, match="identify"):
        listing.read(2)


@pytest.mark.parametrize("command", ["cost", "checkup", "fold"])
def test_commands_refuse_in_one_line(tmp_path, capsys, monkeypatch, canary, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.pth").write_bytes(FORMATS["zip"](canary))
    code, out, err = run(capsys, f"{command} zfnet {SMALL} --weights evil.pth")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "could run code when read (posix.mkdir)" in err
    assert not Path(canary.place).exists()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The entries of an exported program whose batch size is open."""
    file = tmp_path_factory.mktemp("exported") / "net.pt2"
    sizes = ({0: torch.export.Dim("batch", min=2, max=64)},)
    program = torch.export.export(nn.Conv2d(3, 4, 3), (torch.randn(2, 3, 8, 8),), dynamic_shapes=sizes)
    torch.export.save(program, file)
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def named(entries, part):
    return next(name for name in entries if part in name)


def sample_inputs(entries, canary):
    return {named(entries, "sample_inputs"): saved((canary,))}


def pickled_weights(entries, canary):
    name = named(entries, "weights_config")
    config = json.loads(entries[name])
    config["config"]["weight"]["use_pickle"] = True
    return {name: json.dumps(config).encode(), named(entries, "weight_0"): saved(canary)}


def opaque_constant(entries, canary):
    name = named(entries, "constants_config")
    payload = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": False, "tensor_meta": None}
    content = json.dumps({"config": {"x": payload}}).encode()
    return {name: content, f"{name.rpartition('/')[0]}/opaque_obj_0": pickle.dumps(canary)}


def legacy_weights(entries, canary):
    folder = named(entries, "weights_config").rpartition("/")[0]
    return {f"{folder}/MODEL.pt": saved(canary), f"{folder}/model.PT": saved(canary)}


def expression(entries, canary):
    name = named(entries, "models/")
    harm = f"\"expr_str\": \"__import__('os').mkdir('{canary.place}') or ".encode()
    return {name: entries[name].replace(b'"expr_str": "', harm, 1)}


def library(entries, canary):
    root = named(entries, "/").partition("/")[0]
    return {f"{root}/data/aotinductor/model/model.wrapper.so": b"\x7fELF"}


HARMFUL = [sample_inputs, pickled_weights, opaque_constant, legacy_weights, expression, library]


@pytest.mark.parametrize("harm", HARMFUL)
def test_a_program_with_harm_in_it_is_refused_before_it_is_read(tmp_path, exported, canary, harm):
    entries = exported | harm(exported, canary)
    assert entries != exported
    with zipfile.ZipFile(tmp_path / "evil.pt2", "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    with pytest.raises(ConvscopeError, match="which could run code when read"):
        load(f"{tmp_path}/evil.pt2")
    assert not Path(canary.place).exists()


def test_the_harm_is_real(tmp_path, exported, canary):
    """PyTorch alone unpickles it: what is refused would have run."""
    with zipfile.ZipFile(tmp_path / "evil.pt2", "w") as archive:
        for name, content in (exported | sample_inputs(exported, canary)).items():
            archive.writestr(name, content)
    with pytest.raises(Exception):  # noqa: B017 - what it made is no constant of the program
        torch.export.load(tmp_path / "evil.pt2").module()
    assert Path(canary.place).is_dir()


class Sizes(nn.Module):
    """Sizes that become long expressions."""

    def forward(self, x):
        y = nn.functional.interpolate(x, scale_factor=1.5)
        y = torch.cat([y, y[:, :, : y.shape[2] // 3 + 1]], 2)
        return y[:, :, : max(y.shape[3] // 2, 3)].mean((2, 3))


def test_whole_programs_pass(tmp_path):
    automatic = torch.export.Dim.AUTO
    sizes = ({0: automatic, 2: automatic, 3: automatic},)
    program = torch.export.export(Sizes(), (torch.randn(2, 3, 32, 32),), dynamic_shapes=sizes)
    torch.export.save(program, tmp_path / "net.pt2")
    assert runs_on_reading(tmp_path / "net.pt2") is None
    assert load(f"{tmp_path}/net.pt2").model(torch.zeros(2, 3, 32, 32)).shape == (2, 3)


@pytest.mark.parametrize("name", ["LSUN", "LSUNClass"])
def test_data_sets_that_unpickle_are_refused(name):
    with pytest.raises(ConvscopeError, match=r"unpickles a file|torchvision:NAME"):
        torchvision_pair(f"torchvision:{name}:.")
