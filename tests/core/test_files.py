"""Files that are whole or absent, whatever stands at their place already."""

import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from convscope.core.errors import ConvscopeError
from convscope.core.files import whole_file


def write(path, text="new"):
    with whole_file(path) as temporary:
        temporary.write_text(text)


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_and_its_target_is_written(tmp_path, exists):
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "file", tmp_path / "link"
    link.symlink_to(target)
    if exists:
        target.write_text("old")
    write(link)
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert not target.is_symlink()
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["file"]


def test_a_pipe_is_written_into_and_stays_a_pipe(tmp_path):
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    write(pipe, "through it")
    reader.join(10)
    assert read == ["through it"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_a_device_stays_a_device(tmp_path):
    link = tmp_path / "nowhere"
    link.symlink_to(os.devnull)
    write(link)
    assert link.is_symlink()
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)


def test_a_file_keeps_its_permissions(tmp_path):
    private = tmp_path / "private"
    private.write_text("old")
    private.chmod(0o600)
    write(private)
    assert private.read_text() == "new"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600


def test_a_file_that_may_not_be_written_is_refused(tmp_path, monkeypatch):
    kept = tmp_path / "kept"
    kept.write_text("old")
    # The superuser may write everything, so that permissions alone would prove nothing here.
    monkeypatch.setattr(os, "access", lambda path, mode: not (mode & os.W_OK))
    with pytest.raises(ConvscopeError, match=r"kept' can't be written .you may not write to it"):
        write(kept)
    assert kept.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


@pytest.mark.parametrize("path", [".", "", "folder", "x" * 300, "folder/../folder", "loop"])
def test_what_is_no_place_for_a_file_is_one_line(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ConvscopeError, match="can't be written") as caught:
        write(path)
    assert "\n" not in str(caught.value)
    assert "--" not in str(caught.value)  # not every command has the same flags
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "loop"]


def test_a_full_disk_is_one_line_and_leaves_what_was_there(tmp_path):
    file = tmp_path / "file"
    file.write_text("old")
    with pytest.raises(ConvscopeError, match="No space left"), whole_file(file):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_error_about_another_file_is_not_taken_for_ones_own(tmp_path):
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "file"):
        (tmp_path / "absent").read_text()
