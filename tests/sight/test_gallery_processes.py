"""One process, two, and one that is killed again and again write the same bytes."""

import multiprocessing
import os
import random
import re
import subprocess
import sys
import time

import pytest
import torch
from PIL import Image
from torch import distributed, nn

from convscope.sight import ImageSource, gallery
from convscope.sight.picturing import kept, places
from convscope.sight.picturing.options import GalleryOptions
from processes import FORKING

pytestmark = pytest.mark.slow


def draw(folder, rank, size, out, said):
    """Draw a gallery, and say through a pipe when it begins and which block is done."""
    os.chdir(folder)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    places.BLOCK_PLACES = 8
    if size > 1:
        distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=size)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 5, stride=2), nn.BatchNorm2d(6), nn.SiLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, stride=2), nn.ReLU(),
    )  # fmt: skip
    images = torch.randn(60, 3, 41, 37)
    said.send("begin")
    written = kept.BlockFiles.write

    def write(self, number, content):
        written(self, number, content)
        said.send(f"block {number}")

    kept.BlockFiles.write = write
    source = ImageSource(images, names=[f"image {i}" for i in range(60)], batch_size=4)
    gallery(net, source, top=3, out=out, options=GalleryOptions(judge=1))
    if size > 1:
        distributed.destroy_process_group()


def start(folder, rank=0, size=1, out="gallery"):
    """Return a process that draws, and what it says."""
    folder.mkdir(exist_ok=True)
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = FORKING.Process(target=draw, args=(folder, rank, size, out, theirs), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def lines(pipe):
    """Everything that a process says until it ends."""
    while True:
        try:
            yield pipe.recv()
        except EOFError:
            return


def finish(*started):
    """Wait for processes; return what they said."""
    said = [line for _, pipe in started for line in lines(pipe)]
    for process, _ in started:
        process.join(120)
        assert process.exitcode == 0
    return said


def contents(folder):
    """Every file's bytes, but for the minute at which a command wrote them."""
    minute = re.compile(rb'("written": )"[^"]*"')
    return {path.name: minute.sub(rb'\1""', path.read_bytes()) for path in folder.iterdir()}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    finish(start(folder))
    assert [path.name for path in folder.iterdir()] == ["gallery"]
    return contents(folder / "gallery")


def test_two_processes_write_what_one_writes(alone, tmp_path):
    finish(*(start(tmp_path, rank, 2) for rank in range(2)))
    assert contents(tmp_path / "gallery") == alone
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["gallery"]


def test_two_processes_without_a_shared_disk_do_too(alone, tmp_path):
    store = tmp_path / "store"
    processes = []
    for rank in range(2):
        folder = tmp_path / f"machine{rank}"
        folder.mkdir()
        (folder / "store").symlink_to(store)
        processes.append(start(folder, rank, 2))
    finish(*processes)
    assert contents(tmp_path / "machine0" / "gallery") == alone
    left = {path.name for path in (tmp_path / "machine1").iterdir()}
    assert left <= {"store"}  # torch removes the link of the process which ends last


def test_a_run_that_is_killed_at_random_moments_writes_the_same(alone, tmp_path):
    moments = random.Random(1)
    for _ in range(2):
        process, said = start(tmp_path)
        while not said.recv().startswith(moments.choice(["begin", "block"])):
            pass
        time.sleep(moments.uniform(0, 0.3))
        process.kill()
        process.join()
        if (tmp_path / "gallery").exists():
            break
    finish(start(tmp_path))
    assert contents(tmp_path / "gallery") == alone
    assert [path.name for path in tmp_path.iterdir()] == ["gallery"]


def test_blocks_that_are_done_are_not_done_again(alone, tmp_path):
    process, said = start(tmp_path)
    while not said.recv().startswith("block"):
        pass
    process.kill()
    process.join()
    done = {path.name for path in (tmp_path / "gallery.partial").glob("blocks-*/*.safetensors")}
    assert done
    again = finish(start(tmp_path))
    drawn = {f"{int(line.split()[1]):07d}.safetensors" for line in again if line.startswith("block")}
    assert drawn
    assert not drawn & done
    assert contents(tmp_path / "gallery") == alone


NETWORK = """
import torch
from torch import nn
def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 5, stride=2), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.SiLU())
"""


def test_the_command_under_torchrun_writes_what_it_writes_alone(tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    random_bytes = random.Random(0)
    for number in range(70):
        Image.frombytes("RGB", (40, 40), random_bytes.randbytes(4800)).save(pictures / f"{number}.png")
    (pictures / "broken.png").write_bytes(b"broken")
    (tmp_path / "net.py").write_text(NETWORK)
    command = ["convscope", "gallery", "../net.py:build", "--input", "3x32x32", "--data", "../pictures"]
    launchers = {"alone": ["-m"], "two": ["-m", "torch.distributed.run", "--nproc-per-node", "2", "-m"]}
    for name, launcher in launchers.items():
        (tmp_path / name).mkdir()
        subprocess.run(
            [sys.executable, *launcher, *command, "--out", "out"],
            cwd=tmp_path / name, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert [path.name for path in (tmp_path / name).iterdir()] == ["out"]
    assert contents(tmp_path / "alone" / "out") == contents(tmp_path / "two" / "out")
