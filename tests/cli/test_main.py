"""Every command as a user types it: exit codes, JSON, one line for bad input, nothing half-written."""

import json
import signal
import subprocess
import sys

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from cli.typed import run
from convscope.cli.main import COMMANDS


@pytest.fixture
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def picture(in_tmp_path):
    Image.effect_noise((120, 90), 80).convert("RGB").save(in_tmp_path / "noise.png")
    return "noise.png"


TINY = "--width 0.0625 --input 3x67x67"
SMALL = f"{TINY} --num-classes 4"


def test_help_does_not_import_torch():
    code = (
        "import sys\nfrom convscope.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\nprint('TORCH', 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "TORCH False" in done.stdout
    assert all(command in done.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(capsys, command):
    code, out, _ = run(capsys, f"{command} --help")
    assert code == 0
    assert f"convscope {command}" in out
    assert "Examples" in out
    assert "--quiet" in out
    assert ("--json" in out) is (command != "completion")


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_are_never_wrapped(capsys, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "40")
    code, out, _ = run(capsys, f"{command} --help")
    assert code == 0
    assert all(f"  convscope {example}" in out.splitlines() for example in COMMANDS[command][1:])


@pytest.mark.parametrize("command", ["cost", "max-batch", "checkup", "fold", "gate", "report"])
def test_help_says_that_a_named_file_is_run(capsys, command):
    words = " ".join(run(capsys, f"{command} --help")[1].replace("│", " ").split())
    assert "Naming a module or a file runs it." in words


def test_quiet_leaves_the_result_and_the_errors(in_tmp_path, capsys):
    for label in "ab":
        for index in range(8):
            picture = in_tmp_path / "pictures" / label / f"{index}.png"
            picture.parent.mkdir(parents=True, exist_ok=True)
            Image.effect_noise((67, 67), 10 + 70 * (label == "b")).save(picture)
    words = f"train zfnet {TINY} --norm batch --data pictures --epochs 1 --batch-size 4 --out"
    code, out, err = run(capsys, f"{words} loud")
    assert (code, "epoch 1/1" in err) == (0, True)
    code, out, err = run(capsys, f"{words} quiet --quiet")
    assert (code, err) == (0, "")
    assert "Training of zfnet" in out
    assert "unknown network" in run(capsys, "-q cost zfnett")[2]
    assert "epoch 1/1" in run(capsys, f"{words} again")[2]


def test_an_interruption_is_one_line_and_exit_code_130(in_tmp_path):
    """Ctrl-C while a network is being built, in a process of its own."""
    (in_tmp_path / "slow.py").write_text(
        "import sys, time\ndef build():\n    print('READY', flush=True)\n    time.sleep(60)\n"
    )
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "  # shells' jobs ignore it
        "from convscope.cli.main import main; main(['cost', 'slow.py:build'])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "READY\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, err) == (130, "convscope: interrupted; nothing is left half-written\n")


def test_cost_prints_the_notes_figures(capsys):
    code, out, err = run(capsys, "cost alexnet --batch 128")
    assert (code, err) == (0, "")
    assert "1 MAC = 2 FLOPs" in out
    assert "features.conv1#1" in out
    for figure in ("62,378,344", "290.6", "763", "714"):
        assert figure in out.replace("62.4 M", "62,378,344").replace("291 G", "290.6 G"), figure


def test_cost_as_json(capsys):
    code, out, _ = run(capsys, "cost zfnet --json")
    cost = json.loads(out)
    assert code == 0
    assert cost["schema_version"] == 1
    assert (cost["totals"]["params"], cost["totals"]["macs"]) == (62_357_608, 1_168_032_896)


def test_networks(capsys):
    code, out, _ = run(capsys, "networks resnet50 --json")
    listed = json.loads(out)
    assert code == 0
    assert listed["own"] == []
    assert any("resnet50" in name for zoo in listed["zoos"] for name in zoo["names"])


def test_that_no_network_matches_is_said(capsys):
    code, out, err = run(capsys, "networks alexnte")
    assert code == 0
    assert "alexnet" not in out
    assert err.startswith("no network's name contains 'alexnte'; did you mean 'alexnet'")
    assert err.count("\n") == 1
    assert run(capsys, "networks zfn")[2] == ""


def test_a_page_about_a_fault_as_json(capsys):
    code, out, _ = run(capsys, "checkup --explain dead-gamma stale-statistics --json")
    told = json.loads(out)["faults"]
    assert code == 0
    assert [each["name"] for each in told] == ["dead-gamma", "stale-statistics"]
    assert all(each["page"].startswith(f"# {each['name']}: {each['summary']}") for each in told)
    every = json.loads(run(capsys, "checkup --explain --json")[1])["faults"]
    assert len(every) > 30
    assert every[0]["page"] is None
    assert run(capsys, "checkup --explain dead-gama --json")[0] == 2


def test_fold(capsys, in_tmp_path):
    code, out, _ = run(capsys, f"fold alexnet --norm batch {SMALL} --out folded.safetensors --json")
    folded = json.loads(out)
    assert code == 0
    assert folded["ledger"]["kept"] == 0
    assert folded["ledger"]["folded"] >= 5
    assert [path.name for path in in_tmp_path.iterdir()] == ["folded.safetensors"]


def test_weights_that_fit_in_part_are_reported(capsys, in_tmp_path):
    run(capsys, f"fold alexnet --norm batch {SMALL} --out whole.safetensors")
    tensors = load_file(in_tmp_path / "whole.safetensors")
    moved = {
        f"module.{name}": tensor for name, tensor in tensors.items() if not name.startswith("classifier.fc8")
    }
    save_file({**moved, "module.extra": tensors["classifier.fc8.bias"]}, in_tmp_path / "part.safetensors")
    line = f"cost alexnet {SMALL} --weights part.safetensors --json"
    code, _, err = run(capsys, line)
    assert code == 2
    assert "lack 7 tensors of alexnet (features.conv1.bias, " in err
    code, out, err = run(capsys, f"{line} --partial-weights")
    assert code == 0
    assert json.loads(out)["totals"]["params"] > 0
    for word in ("classifier.fc8.weight", "extra", "module."):
        assert word in err


def test_damaged_pictures_are_named(capsys, in_tmp_path):
    for name in ("a", "b"):
        (in_tmp_path / "mine" / name).mkdir(parents=True)
        for number in range(3):
            Image.effect_noise((80, 70), 60).convert("RGB").save(
                in_tmp_path / "mine" / name / f"{number}.png"
            )
    (in_tmp_path / "mine" / "a" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    (in_tmp_path / "mine" / "b" / "readme.txt").write_text("not a picture")
    code, _, err = run(capsys, f"stem alexnet {SMALL} --data mine --json")
    assert code == 0, err
    assert "broken.png" in err
    assert "aren't pictures (1)" in err


def test_checkup_without_data(capsys):
    code, out, _ = run(capsys, f"checkup alexnet --norm batch {SMALL} --json")
    assert code == 0
    assert json.loads(out)["depth"] == "static"


def test_project_writes_a_picture(capsys, picture, in_tmp_path):
    code, out, err = run(
        capsys, f"project alexnet {picture} {SMALL} --layer features.relu3 --unit 1 --out p.png --json"
    )
    assert code == 0, err
    assert json.loads(out)["rule"] == "deconvnet"
    with Image.open(in_tmp_path / "p.png") as shown:
        assert shown.size[0] == 606  # the image and the projection


@pytest.mark.slow
def test_train_then_look_at_what_was_trained(capsys, in_tmp_path):
    line = "--width 0.0625 --norm batch --input 3x67x67 --data photos"
    code, out, err = run(capsys, f"train alexnet {line} --epochs 1 --batch-size 128 --out run --json")
    assert code == 0, err
    assert len(json.loads(out)["epochs"]) == 1
    weights = "--weights run/final.safetensors"
    code, out, err = run(capsys, f"checkup alexnet {weights} --data photos --json")
    assert code == 0, err
    assert json.loads(out)["depth"] == "data"
    code, out, err = run(capsys, f"gallery alexnet {weights} --data photos --layers features.conv1 --json")
    assert code == 0, err
    assert (in_tmp_path / "gallery").is_dir()
    code, out, err = run(capsys, f"stem alexnet {weights} --data photos --json")
    assert code == 0, err
    code, out, err = run(capsys, f"train alexnet {line} --epochs 1 --out run")
    assert code == 2
    assert "holds a run already" in err


BAD = {
    "": 0,
    "cots": "unknown command 'cots'; did you mean 'cost'?",
    "zzzzz": "`convscope --help` lists them",
    "--versoin": "did you mean '--version'?",
    "--json cost alexnet": "unknown option '--json' before a command; a command's flags stand behind it",
    "cost": "NETWORK is required; see convscope cost --help",
    "cost alexnet --batch": "--batch requires an argument",
    "max-batch alexnet": "--memory is required; see convscope max-batch --help",
    "max-batch alexnet --memroy 8GiB": "Did you mean --memory",
    "cost alexnet --optimizer adamm": "--optimizer adamm; expected one of sgd, sgd-momentum, adam, adamw, "
    "rmsprop; did you mean 'adam'",
    "cost alexnet --precision bf17": "did you mean 'bf16'",
    "cost alexnte": "did you mean 'alexnet'",
    "cost timm:resnet5O": "did you mean",
    "cost alexnet --input 3x60x60": "67",
    "cost alexnet --input 3by60": "input shape",
    "cost alexnet --batch 0": "",
    "cost alexnet --optimizer sdg": "sgd",
    "cost alexnet --optimiser sgd": "Did you mean --optimizer",
    "cost alexnet --norm btach": "batch",
    "cost alexnet --variant paper": "published",
    "cost alexnet --weights nowhere.safetensors": "nowhere.safetensors",
    "cost alexnet --weights corrupt.safetensors": "corrupt.safetensors",
    "cost nowhere.py:build": "nowhere.py",
    "cost nomodule:build": "nomodule",
    "fold alexnet --weights corrupt.pth": "corrupt.pth",
    "checkup alexnet --data nowhere": "nowhere",
    "checkup alexnet --data empty": "empty",
    f"gallery alexnet {SMALL} --data unreadable": "unreadable",
    f"gallery alexnet {SMALL} --data photos --layers features.conv9": "features.conv",
    f"gallery alexnet {SMALL} --data photos --out noise.png": "noise.png",
    f"project alexnet nowhere.png {SMALL} --layer features.relu3 --unit 0": "nowhere.png",
    f"project alexnet unreadable/picture.png {SMALL} --layer features.relu3 --unit 0": "picture.png",
    f"project alexnet corrupt.pth {SMALL} --layer features.relu3 --unit 0": "corrupt.pth",
    f"project alexnet noise.png {SMALL} --layer features.relu33 --unit 0": "features.relu3",
    f"project alexnet noise.png {SMALL} --layer features.relu3 --unit 999": "unit",
    f"project alexnet noise.png {SMALL} --layer features.relu3 --unit 0 --rule deconv": "deconvnet",
    f"train alexnet {TINY} --data nowhere": "nowhere",
    f"train alexnet {SMALL} --data photos": "4",
    f"train alexnet {TINY} --data photos --epochs 0": "epochs",
    f"train alexnet {TINY} --data photos --out noise.png": "noise.png",
    f"gallery alexnet {SMALL} --data photos --out unreadable": "picture.png",
    f"gallery alexnet {SMALL} --data photos --out .": "other files",
    "report alexnet --data photos --out unreadable": "picture.png",
    "report alexnte": "alexnet",
    "report net.py:build --size 32": "takes num_classes, as the network is to be trained on the data's",
    "report net.py:absent --size 32": "no 'absent' in it",
    "report net.py:build --input 3x32x32": "--input 3x32x32; expected --size",
    "report program.pt2": "'program.pt2' is an exported program",
    "report program.pt2 --no-train": "'program.pt2' is an exported program",
    "checkup program.pt2": "'program.pt2' is an exported program",
    "gallery program.pt2 --data photos": "'program.pt2' is an exported program",
    "stem program.pt2 --data photos": "'program.pt2' is an exported program",
    "project program.pt2 noise.png --layer x --unit 0": "'program.pt2' is an exported program",
    "train program.pt2 --data photos": "'program.pt2' is an exported program",
    "cost corrupt.pth": "unknown network 'corrupt.pth'; ",
    "cost ./corrupt.pth": "; weights go beside their network: zfnet --weights FILE",
    "cost net.py": "; name what builds it: net.py:callable",
    "cost empty": "; a folder of transformers is hf:empty",
    "cost weights.pt2": "'weights.pt2' can't be read (it is no exported program: RuntimeError)",
    "cost unreadable/picture.png": "unknown network 'unreadable/picture.png'",
    "cost empty.pt2": "network 'empty.pt2' can't be read",
    "report alexnet --data nowhere": "nowhere",
    "report alexnet --data photos --out noise.png": "noise.png",
}


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "program.pt2"
    torch.export.save(torch.export.export(torch.nn.Conv2d(3, 2, 3), (torch.ones(1, 3, 8, 8),)), path)
    return path


@pytest.mark.parametrize("line", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(capsys, picture, in_tmp_path, program, line):
    (in_tmp_path / "corrupt.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00not a header")
    (in_tmp_path / "corrupt.pth").write_bytes(b"not a checkpoint")
    (in_tmp_path / "net.py").write_text("from torch import nn\ndef build():\n    return nn.Conv2d(3, 2, 3)\n")
    (in_tmp_path / "empty.pt2").touch()
    torch.save({"weight": torch.ones(3)}, in_tmp_path / "weights.pt2")
    (in_tmp_path / "program.pt2").write_bytes(program.read_bytes())
    (in_tmp_path / "empty").mkdir()
    (in_tmp_path / "unreadable").mkdir()
    (in_tmp_path / "unreadable" / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    before = {path: path.read_bytes() for path in in_tmp_path.rglob("*") if path.is_file()}
    code, out, err = run(capsys, line)
    if BAD[line] == 0:
        assert code == 0
        return
    assert code == 2, (out, err)
    assert out == ""
    # Progress (`[1/9] reading the images`) may stand before it.
    *progress, message = err.splitlines()
    assert all(line.startswith("[") for line in progress), err
    assert message.startswith("convscope: ")
    assert "Traceback" not in err
    assert BAD[line] in err
    assert {path: path.read_bytes() for path in in_tmp_path.rglob("*") if path.is_file()} == before
