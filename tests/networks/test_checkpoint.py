"""Files of tensors: both formats read back; broken and malicious ones refused, and nothing runs."""

import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from convscope.core.errors import ConvscopeError
from convscope.networks.checkpoint import TensorSet, read_checkpoint


class Malicious:
    """Its pickle makes a folder when it is loaded."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_safetensors_are_told_by_content_and_keep_their_metadata(tmp_path):
    file = tmp_path / "weights.bin"
    save_file({"a": torch.arange(3.0), "b": torch.ones(2, dtype=torch.bfloat16)}, file, {"k": "v"})
    read = read_checkpoint(file)
    assert read.metadata == {"k": "v"}
    assert torch.equal(read.sets[0].tensors["a"], torch.arange(3.0))
    assert read.sets[0].tensors["b"].dtype == torch.bfloat16


@pytest.mark.parametrize("new_format", [True, False])
def test_nested_dictionaries_are_found_with_their_places(tmp_path, new_format):
    file = tmp_path / "checkpoint.pth"
    content = {
        "epoch": 3,
        "args": {"lr": 0.1},
        "model": {"w": torch.ones(1)},
        "ema": {"module": {"w": torch.zeros(1)}},
    }
    torch.save(content, file, _use_new_zipfile_serialization=new_format)
    sets = read_checkpoint(file).sets
    assert {found.place: found.is_average for found in sets} == {"model": False, "ema.module": True}


@pytest.mark.parametrize(
    ("place", "average"),
    [
        ("model_ema", True),
        ("state_dict_ema", True),
        ("ema", True),
        ("schema", False),
        ("cinema", False),
        ("", False),
    ],
)
def test_averages_are_told_by_whole_words(place, average):
    assert TensorSet(place, {}).is_average is average


@pytest.mark.parametrize(
    "wrap", [lambda bad: bad, lambda bad: {"state_dict": {"w": torch.ones(1)}, "extra": bad}]
)
@pytest.mark.parametrize("save", [torch.save, lambda o, f: f.write_bytes(pickle.dumps(o))])
def test_a_malicious_pickle_never_runs(tmp_path, wrap, save):
    file, target = tmp_path / "evil.pt", tmp_path / "owned"
    save(wrap(Malicious(target)), file)
    with pytest.raises(ConvscopeError, match=r"evil\.pt"):
        read_checkpoint(file)
    assert not target.exists()


def test_the_refused_object_is_named(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pt")
    with pytest.raises(
        ConvscopeError, match=r"could run code.*torch\.nn\.modules\.linear\.Linear.*state_dict alone"
    ):
        read_checkpoint(tmp_path / "whole.pt")


def corrupted(data):
    middle = len(data) // 2
    return {
        "empty": b"",
        "half": data[:middle],
        "short": data[:5],
        "text": b"this is no checkpoint at all",
        "noise": bytes(range(256)) * 4,
        "header": b"\xff" * 8 + b"{" + data[9:],
    }


@pytest.mark.parametrize("damage", list(corrupted(b"")))
@pytest.mark.parametrize("kind", ["safetensors", "pytorch", "legacy"])
def test_corrupt_files_are_refused_in_one_line(tmp_path, kind, damage):
    file = tmp_path / "weights.pt"
    tensors = {"a": torch.randn(500)}
    if kind == "safetensors":
        save_file(tensors, file)
    else:
        torch.save(tensors, file, _use_new_zipfile_serialization=kind == "pytorch")
    file.write_bytes(corrupted(file.read_bytes())[damage])
    with pytest.raises(ConvscopeError, match=r"weights\.pt") as raised:
        read_checkpoint(file)
    assert "\n" not in str(raised.value)


def test_a_torchscript_archive_is_refused_without_a_warning(tmp_path):
    import zipfile

    file = tmp_path / "script.pt"
    torch.save({"a": torch.ones(1)}, file)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("archive/constants.pkl", b"")
    with pytest.raises(ConvscopeError, match="no checkpoint of tensors"):
        read_checkpoint(file)


def test_absent_files_folders_and_files_without_tensors_are_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "none.pt")
    for path, message in (
        (tmp_path / "absent.pt", "No such file"),
        (tmp_path, "directory"),
        (tmp_path / "none.pt", "no tensors"),
    ):
        with pytest.raises(ConvscopeError, match=message):
            read_checkpoint(path)
