"""No command reaches a network: quick ones run in a process that has no sockets.

That zoos build without downloading is tested in tests/networks/test_zoo.py, that ``photos`` are read from
packages' folders in tests/data/test_photos.py; that pages load nothing in tests/report/pages/test_browser.py.
"""

import os
import subprocess
import sys

import pytest
from PIL import Image

SMALL = "--width 0.0625 --input 3x67x67 --norm batch"
QUICK = [f"cost zfnet {SMALL}"]
TRAINING = "train zfnet --width 0.0625 --input 3x67x67 --norm batch --epochs 1"
SLOW = [
    "cost alexnet",
    f"checkup zfnet {SMALL}",
    f"fold zfnet {SMALL}",
    f"gate zfnet {SMALL} --max-params 65M --no-fault error --max-unfolded 0",
    "networks zfnet",
    "max-batch zfnet --memory 8GiB",
    f"stem zfnet {SMALL} --data pictures",
    f"gallery zfnet {SMALL} --data pictures --out gallery",
    f"cost zfnet {SMALL} --sweep batch=1,2 --plot plot.html",
    f"{TRAINING} --data pictures --batch-size 4 --out run --trackers tensorboard",
    f"{TRAINING} --data digits --out digits",
    "report zfnet --width 0.0625 --size 67 --norm batch --epochs 1 --data pictures --out report",
    "compare bn-speed --list",
]
GUARD = """
import sys
reached = []

def refuse(event, arguments):
    if event.startswith("socket.") and event not in ("socket.__new__", "socket.gethostname"):
        reached.append((event, str(arguments)))
        raise OSError(f"no network here: {event} {arguments}")

sys.addaudithook(refuse)
import socket

class Closed(socket.socket):
    def __init__(self, *arguments, **options):
        reached.append(("socket", str(arguments)))
        raise OSError("no sockets here")

socket.socket = Closed
"""
COMMANDS = """
from convscope.cli.main import main
for line in sys.argv[1:]:
    try:
        main(line.split())
    except SystemExit as stop:
        assert not stop.code, line
assert not reached, reached
print("ALL DONE")
"""


def processed(code, folder, lines=()):
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": ""}
    command = [sys.executable, "-c", code, *lines]
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)


@pytest.mark.parametrize("lines", [QUICK, pytest.param(SLOW, marks=pytest.mark.slow)], ids=["quick", "slow"])
def test_commands_work_without_sockets(tmp_path, lines):
    for label in "ab":
        for index in range(8):
            picture = tmp_path / "pictures" / label / f"{index}.png"
            picture.parent.mkdir(parents=True, exist_ok=True)
            Image.effect_noise((67, 67), 10 + 70 * (label == "b")).convert("RGB").save(picture)
    done = processed(GUARD + COMMANDS, tmp_path, lines)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("ALL DONE\n")


@pytest.mark.parametrize("call", ["create_connection(('127.0.0.1', 9))", "getaddrinfo('x', 1)", "socket()"])
def test_the_guard_sees_sockets(tmp_path, call):
    done = processed(f"{GUARD}\ntry: socket.{call}\nexcept OSError: pass\nprint(len(reached))", tmp_path)
    assert done.stdout.strip() == "1"
