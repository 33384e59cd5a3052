"""Large new tensors lie in large pages where the kernel gives them; nothing else is touched."""

import platform
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from convscope.core import large_pages
from convscope.core.units import MIB

_MODE = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_ON_REQUEST = _MODE.is_file() and "[madvise]" in _MODE.read_text() and platform.libc_ver()[0] == "glibc"


def _flags(tensor):
    """What the kernel says of the memory in the middle of a tensor, and how much of it is in large pages."""
    middle, inside, huge = tensor.data_ptr() + tensor.nbytes // 2, False, 0
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0] and not words[0].endswith(":"):
            begin, end = (int(word, 16) for word in words[0].split("-"))
            inside = begin <= middle < end
        elif inside and words[0] == "AnonHugePages:":
            huge = int(words[1]) * 1024
        elif inside and words[0] == "VmFlags:":
            return words[1:], huge
    raise AssertionError("not in this process's memory")


@pytest.fixture
def calls(monkeypatch):
    """The calls of a kernel that takes advice."""
    found = []
    monkeypatch.setattr(large_pages, "_advice", lambda: lambda *words: found.append(words))
    return found


@pytest.mark.skipif(not _ON_REQUEST, reason="no large pages on request")
def test_a_large_tensor_lies_in_large_pages():
    like = torch.empty(24 * MIB // 4, 2)  # 48 MiB
    tensor = large_pages.empty_like(like).fill_(1)
    flags, huge = _flags(tensor)
    assert "hg" in flags
    assert "hg" not in _flags(like)[0]
    assert huge >= tensor.nbytes - 4 * MIB or huge == 0  # none left on a full machine


@pytest.mark.parametrize("shape", [(3, 1024, 1024, 3), (32 * MIB // 4,)])
def test_whole_pages_inside_the_tensor_are_advised_on(shape, calls):
    tensor = torch.empty(shape)
    assert large_pages.advised(tensor) is tensor
    ((begin, nbytes, advice),) = calls
    page = large_pages._page_bytes()
    assert advice == 14
    assert begin % page == nbytes % page == 0
    assert 0 <= begin - tensor.data_ptr() < page
    assert 0 <= tensor.data_ptr() + tensor.nbytes - (begin + nbytes) < page


def test_others_are_left_alone(calls):
    with torch._subclasses.FakeTensorMode():
        large_pages.advised(torch.empty(64 * MIB))
    large_pages.advised(torch.empty(64 * MIB, device="meta"))
    large_pages.advised(torch.empty(32 * MIB // 4 - 1))
    torch.func.vmap(large_pages.empty_like)(torch.empty(2, 32 * MIB // 4))
    assert calls == []


def test_an_empty_tensor_is_like_the_one_given():
    like = torch.empty(2, 3, 4, 5, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    found = large_pages.empty_like(like)
    assert (found.shape, found.stride(), found.dtype) == (like.shape, like.stride(), like.dtype)
    assert found.data_ptr() != like.data_ptr()


@pytest.mark.parametrize("mode", ["[always] madvise never", "always madvise [never]", None])
def test_where_nothing_is_given_on_request_nothing_is_asked_for(mode, monkeypatch, tmp_path):
    if mode is not None:
        (tmp_path / "enabled").write_text(mode)
    monkeypatch.setattr(large_pages, "_MODE", tmp_path / "enabled")
    assert large_pages._advice.__wrapped__() is None


def test_other_systems_are_not_asked(monkeypatch, tmp_path):
    (tmp_path / "enabled").write_text("always [madvise] never")
    monkeypatch.setattr(large_pages, "_MODE", tmp_path / "enabled")
    monkeypatch.setattr(large_pages, "sys", SimpleNamespace(platform="darwin"))
    assert large_pages._advice.__wrapped__() is None
