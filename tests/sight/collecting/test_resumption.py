"""Scans that were broken off, in this process: what is kept, what is refused, and that no bit differs."""

import resource
import shutil
import signal
from pathlib import Path

import pytest
import torch

from convscope.core.errors import ConvscopeError
from convscope.sight.collecting.state import read_state
from convscope.sight.images import ImageSource
from processes import FORKING
from sight.collecting.brute import bits
from sight.collecting.scanning import Slow, network, pixels, scanned, until_killed


class BrokenOffError(Exception):
    pass


def after(count):
    """A listener that breaks a scan off after so many batches."""
    told = []

    def listener(done, total):
        told.append(done)
        if len(told) == count:
            raise BrokenOffError

    return listener


def all_bits(found):
    return {address: bits(tally) for address, tally in found.tallies.items()}


def broken_off(folder, count, **options):
    with pytest.raises(BrokenOffError):
        scanned(folder=folder, save_every=0, progress=after(count), **options)


def states(folder):
    return sorted(Path(folder).glob("*.safetensors"))


def test_a_scan_goes_on_where_it_was_broken_off(tmp_path):
    for count in (5, 1, 3):
        broken_off(tmp_path, count)
    told = []
    found = scanned(folder=tmp_path, progress=lambda done, total: told.append((done, total)))
    assert (found.num_images, found.num_resumed) == (83, 36)
    assert told[0] == (40, 83)
    assert told[-1] == (83, 83)
    assert all_bits(found) == all_bits(scanned())
    assert len(states(tmp_path)) == 1


def test_a_finished_scan_returns_at_once(tmp_path):
    first = scanned(folder=tmp_path)
    again = scanned(folder=tmp_path, progress=after(1))
    assert again.num_resumed == 83
    assert all_bits(again) == all_bits(first)


def test_without_statistics_too(tmp_path):
    broken_off(tmp_path, 4, statistics=False)
    assert all_bits(scanned(folder=tmp_path, statistics=False)) == all_bits(scanned(statistics=False))


def test_a_loader_is_read_past_what_is_done(tmp_path):
    batches = list(pixels().split(4))
    broken_off(tmp_path, 6, images=batches)
    found = scanned(batches, folder=tmp_path)
    assert found.num_resumed == 24
    assert all_bits(found) == all_bits(scanned())


def test_what_was_damaged_is_remembered(tmp_path):
    class Damaged(Slow):
        def __getitem__(self, index):
            if index == 1:
                raise OSError("truncated")
            return self.images[index]

    source = ImageSource(Damaged(pixels(), 0), batch_size=4)
    broken_off(tmp_path, 3, images=source)
    found = scanned(ImageSource(Damaged(pixels(), 0), batch_size=4), folder=tmp_path)
    assert [each.reason for each in found.damaged] != []
    assert (found.num_images, found.num_resumed, len(found.damaged)) == (82, 11, 1)


def test_files_that_overlap_count_once(tmp_path):
    """As after a kill between the writing of the joint file and the deletion of its parts."""
    broken_off(tmp_path / "a", 5)
    broken_off(tmp_path / "a", 2)
    parts = [shutil.copy(file, tmp_path) for file in states(tmp_path / "a")]
    assert len(parts) == 2
    broken_off(tmp_path / "a", 1)
    for part in parts:
        shutil.copy(part, tmp_path / "a")
    (tmp_path / "a" / ".scan-0-all.safetensors.x1y2").write_bytes(b"half a fi")
    (tmp_path / "a" / "mine.txt").write_text("kept")
    found = scanned(folder=tmp_path / "a")
    assert found.num_resumed == 32
    assert all_bits(found) == all_bits(scanned())
    assert len(list((tmp_path / "a").iterdir())) == 2
    assert (tmp_path / "a" / "mine.txt").read_text() == "kept"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": network(4)}, "other weights;"),
        ({"images": pixels() + 1}, "other images;"),
        ({"images": pixels(84)}, r"number of images \(83 there, 84 here\)"),
        ({"images": ImageSource(pixels(), batch_size=5)}, r"batch size \(4 there, 5 here\)"),
        ({"statistics": False}, r"statistics \(True there, False here\)"),
    ],
)
def test_states_of_another_scan_are_refused_and_kept(tmp_path, options, said):
    broken_off(tmp_path, 2)
    before = [(file, file.read_bytes()) for file in states(tmp_path)]
    with pytest.raises(ConvscopeError, match=said):
        scanned(folder=tmp_path, **options)
    assert [(file, file.read_bytes()) for file in states(tmp_path)] == before


def test_another_number_of_threads_is_refused(tmp_path):
    threads = torch.get_num_threads()
    broken_off(tmp_path, 2)
    try:
        torch.set_num_threads(threads + 1)
        with pytest.raises(ConvscopeError, match=rf"threads \({threads} there, {threads + 1} here\)"):
            scanned(folder=tmp_path)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("length", [0, 7, 100, -1])
def test_a_broken_file_is_refused_and_kept(tmp_path, length):
    broken_off(tmp_path, 2)
    (file,) = states(tmp_path)
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(ConvscopeError, match=r"state .* can't be read .* delete the file"):
        scanned(folder=tmp_path)
    assert file.exists()


def test_a_full_disk_leaves_the_older_state(tmp_path):
    """The limit on a file's size fails a write as a full disk does, after a part of it."""
    broken_off(tmp_path, 3)
    (before,) = states(tmp_path)
    content = before.read_bytes()
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        with pytest.raises(ConvscopeError, match=r"can't be written \(File too large\).*kept: make room"):
            scanned(folder=tmp_path, save_every=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert [file.read_bytes() for file in states(tmp_path)] == [content]
    assert len(list(tmp_path.iterdir())) == 1
    found = scanned(folder=tmp_path)
    assert found.num_resumed == 12
    assert all_bits(found) == all_bits(scanned())


def test_a_folder_that_cannot_be_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConvscopeError, match="for the state of a scan"):
        scanned(folder=tmp_path / "file")


def test_the_size_of_a_state_does_not_grow_with_the_images(tmp_path):
    sizes = []
    for count in (512, 1024):  # both beyond the profile's 256
        scanned(ImageSource(pixels(count), batch_size=4), folder=tmp_path / str(count))
        (file,) = states(tmp_path / str(count))
        sizes.append(file.stat().st_size)
    assert sizes[1] - sizes[0] < 100  # digits in the header
    progress, _ = read_state(file)
    assert [len(tally.statistics.sums.nodes) for tally in progress.tallies.values()] == [1, 1]


@pytest.mark.slow
def test_killed_at_random_moments_and_taken_up_again_it_is_the_same(tmp_path):
    expected, resumed, kills = all_bits(scanned()), [], 0
    seconds = torch.empty(5).uniform_(0, 0.1, generator=torch.Generator().manual_seed(5)).tolist()
    for each in seconds:
        process = FORKING.Process(target=until_killed, args=(tmp_path, each))
        process.start()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        resumed.append(sum(len(read_state(file)[0].done) for file in states(tmp_path)))
    assert kills >= 1
    assert resumed[0] < 21
    assert resumed == sorted(resumed)
    assert resumed[0] > 0
    assert all_bits(scanned(folder=tmp_path)) == expected
