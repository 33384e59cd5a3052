"""Units, errors, addresses, results and the root package."""

import dataclasses
import json
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import convscope
from convscope.core.address import Address, parse_address
from convscope.core.errors import ConvscopeError
from convscope.core.files import check_replaceable, whole_file, whole_folder
from convscope.core.result import Result
from convscope.core.units import (
    FLOPS_PER_MAC,
    format_bytes,
    format_count,
    parse_bytes,
    parse_count,
    size_to_give,
)


def test_one_mac_is_two_flops():
    assert FLOPS_PER_MAC == 2


@given(st.integers(1, 2**50))
def test_formatted_bytes_are_within_half_a_percent(num_bytes):
    number, unit = format_bytes(num_bytes).replace(",", "").split()
    size = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}[unit]
    assert abs(float(number) * size - num_bytes) <= 0.0051 * num_bytes


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (999, "999"),
        (999.6, "1.00 k"),
        (999_499, "999 k"),
        (999_600_000, "1.00 G"),
        (62378344, "62.4 M"),
    ],
)
def test_formatted_counts(count, text):
    assert format_count(count) == text


@pytest.mark.parametrize("text", ["24", "GiB", "-1GiB", "0 GiB", "24 GiX", "", "1e30000GiB", "1,0MiB"])
def test_bad_sizes_are_refused(text):
    with pytest.raises(ConvscopeError, match=r"memory size .*write it as 24GiB"):
        parse_bytes(text)


@pytest.mark.parametrize(("text", "kind"), [("24Gb", "bits"), ("24 Gib", "bits"), ("24G", ""), ("24g", "")])
def test_gigabits_and_bare_prefixes_are_asked_about(text, kind):
    with pytest.raises(ConvscopeError, match=f"{kind}.*do you mean 24GiB or 24GB"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("text", "nbytes"), [("24gb", 24 * 10**9), ("1,024MiB", 2**30), ("1e3 MiB", 1000 * 2**20), ("8b", 8)]
)
def test_sizes(text, nbytes):
    assert parse_bytes(text) == nbytes


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("1e3", 1000),
        ("1,000", 1000),
        ("5GFLOPs", 5 * 10**9),
        ("2 MFLOP", 2 * 10**6),
        *((text, None) for text in ("2.5 e", "5 GMACs", "5gFLOPs", "1,00", "0", "flops", "")),
    ],
)
def test_counts(text, count):
    if count is not None:
        assert parse_count(text, "flops", "FLOPs") == count
        return
    with pytest.raises(ConvscopeError, match=r"^flops '"):
        parse_count(text, "flops", "FLOPs")


@given(st.integers(1, 2**50))
def test_a_size_to_give_is_enough_and_hardly_more(num_bytes):
    given_back = parse_bytes(size_to_give(num_bytes))
    assert num_bytes <= given_back < num_bytes + (2**20 if num_bytes >= 2**20 else 2**10)


_paths = st.lists(st.from_regex(r"[A-Za-z_0-9:]+", fullmatch=True), min_size=1, max_size=4).map(".".join)


@given(
    _paths,
    st.integers(1, 99),
    st.none() | st.tuples(st.from_regex(r"[a-z_0-9]+", fullmatch=True), st.integers(1, 9)),
)
def test_addresses_read_back(path, call, operator):
    address = Address(path, call, *(operator or ()))
    assert parse_address(str(address)) == address


@pytest.mark.parametrize("text", ["", "#1", "conv#0", "conv#1:cat", "a#1#2", "a#1:b.1:c.2"])
def test_bad_addresses_are_refused(text):
    with pytest.raises(ConvscopeError, match="address"):
        parse_address(text)


def test_results_become_json():
    @dataclass(frozen=True)
    class Inner:
        shape: torch.Size

    @dataclass(frozen=True)
    class Outer(Result):
        inner: tuple[Inner, ...]
        value: float
        tensor: torch.Tensor
        model: object = None

        not_in_json = frozenset({"model"})

    outer = Outer((Inner(torch.Size((2, 3))),), float("inf"), torch.tensor([1.5]), object())
    assert json.loads(outer.to_json()) == {
        "schema_version": 1, "inner": [{"shape": [2, 3]}], "value": None, "tensor": [1.5],
    }  # fmt: skip
    with pytest.raises(dataclasses.FrozenInstanceError):
        outer.value = 1.0


def test_an_error_is_one_line():
    assert "\n" not in str(ConvscopeError("two\nlines", "one", "write one"))


def test_files_are_whole_or_absent(tmp_path):
    with pytest.raises(RuntimeError), whole_file(tmp_path / "a" / "file.txt") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert not (tmp_path / "a").exists()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "old.txt").write_text("old")
    with pytest.raises(RuntimeError), whole_folder(tmp_path / "folder") as temporary:
        (temporary / "new.txt").write_text("half")
        raise RuntimeError
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["old.txt"]
    with whole_folder(tmp_path / "folder") as temporary:
        (temporary / "new.txt").write_text("whole")
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["new.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_link_to_a_folder_stays_a_link(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    with whole_folder(tmp_path / "link") as temporary:
        (temporary / "new.txt").write_text("whole")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "folder" / "new.txt").read_text() == "whole"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "link"]


@pytest.mark.parametrize("folder", [".", "", ".."])
def test_the_current_folder_is_never_replaced(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(ConvscopeError, match="current folder"), whole_folder(folder):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_only_folders_of_the_same_command_are_replaceable(tmp_path):
    check_replaceable(tmp_path / "absent" / "too", (), "gallery")
    check_replaceable(tmp_path, (), "gallery")
    (tmp_path / "0.png").touch()
    check_replaceable(tmp_path, ("0.png", "1.png"), "gallery")
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(ConvscopeError, match=r"\(thesis\.txt\).*an older gallery"):
        check_replaceable(tmp_path, ("0.png",), "gallery")
    with pytest.raises(ConvscopeError, match="is a file"):
        check_replaceable(tmp_path / "thesis.txt" / "below", (), "gallery")


def test_unwritable_outputs_are_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for opened in (whole_file(tmp_path / "file" / "x"), whole_folder(tmp_path / "file")):
        with pytest.raises(ConvscopeError, match="can't be written"), opened:
            pass
    assert (tmp_path / "file").read_text() == "in the way"


def test_importing_convscope_does_not_import_torch():
    code = "import convscope, sys; dir(convscope); print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_public_names_exist():
    for name in convscope.__all__:
        assert callable(getattr(convscope, name)) or name == "norm"
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        convscope.nonsense  # noqa: B018
