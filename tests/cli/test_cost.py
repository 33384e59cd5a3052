"""``convscope cost`` as a user types it: parts of the table, networks side by side, sweeps, files."""

import csv
import io
import json
import re
import stat
from pathlib import Path

import pytest

from convscope.cli.main import main
from convscope.cli.sweeping import sweep_values
from convscope.core.errors import ConvscopeError

TINY = "--width 0.0625 --input 3x67x67"


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Run a command line in an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def run(line):
        try:
            main(line.split())
            code = 0
        except SystemExit as stop:
            code = stop.code
        return (code, *capsys.readouterr())

    return run


def test_a_part_of_the_table_beside_the_whole_network(run):
    code, out, err = run("cost alexnet --batch 128 --only convolution --sort macs --top 2")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    shown = [line for line in lines if "features.conv" in line]
    assert [line.split("#")[0] for line in shown] == ["features.conv2", "features.conv4"]
    assert "matching convolution, sorted by macs, the first 2 of 5 rows" in out
    # conv2 447,897,600 and conv4 224,280,576 of 1,135,256,096 MACs an image.
    assert "59.2 %" in next(line for line in lines if line.startswith("Share"))
    assert "145 G" in next(line for line in lines if line.startswith("Whole network"))


def test_rolled_up(run):
    code, out, _ = run("cost alexnet --depth 1 --json")
    found = json.loads(out)
    assert code == 0
    assert [row["address"] for row in found["rows"]] == ["features", "flatten", "classifier", "(loss)"]
    assert sum(row["params"] for row in found["rows"]) == found["totals"]["params"] == 62_378_344
    assert run(f"cost alexnet {TINY} --depth 0")[1].count("AlexNet") == 1


def test_long_tables_are_rolled_up_unless_all_is_asked_for(run):
    _, out, _ = run("cost timm:resnet18")
    # 20 convolutions and norms, 17 ReLUs, 8 additions, and a few more.
    assert re.search(r"[67]\d calls, rolled up to depth 2; every call: --all", " ".join(out.split()))
    assert "layer1.0.conv1#1" not in out.split("\nforward")[0]
    _, out, _ = run("cost timm:resnet18 --all")
    assert "layer1.0.conv1#1" in out


def test_csv_to_a_file_and_to_standard_output(run, tmp_path):
    code, out, err = run("cost alexnet --csv rows.csv")
    assert code == 0
    assert "rows.csv" in err
    assert "features.conv1#1" in out
    text = (tmp_path / "rows.csv").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]
    code, out, err = run("cost alexnet --csv -")
    assert (code, out, err) == (0, text, "")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert sum(int(row["macs"]) for row in rows) == 1_135_256_096
    assert rows[0]["address"] == "features.conv1#1"


def test_networks_side_by_side(run):
    code, out, _ = run(f"cost alexnet zfnet {TINY} --json")
    found = json.loads(out)
    assert code == 0
    assert [each["name"] for each in found["networks"]] == ["alexnet", "zfnet"]
    assert found["networks"][0]["ratios"]["macs"] == 1.0
    code, out, _ = run(f"cost alexnet zfnet {TINY} --inference --csv -")
    assert [row["network"] for row in csv.DictReader(io.StringIO(out))] == ["alexnet", "zfnet"]


def test_one_network_that_fails_is_named_and_the_others_are_shown(run):
    code, out, err = run(f"cost alexnet zfent zfnet {TINY}")
    assert code == 2
    assert "2 networks" in out
    assert "did you mean 'zfnet'" in " ".join(out.split())
    assert err == (
        "convscope: 1 of 3 networks couldn't be read: zfent; expected networks that can; "
        "the reasons are in the result\n"
    )


def test_sweeps(run):
    code, out, _ = run(f"cost alexnet {TINY} --sweep batch=1:8 --json")
    found = json.loads(out)
    assert code == 0
    assert [point["value"] for point in found["points"]] == [1, 2, 4, 8]
    macs = [point["summary"]["macs"] for point in found["points"]]
    assert macs == [macs[0] * batch for batch in (1, 2, 4, 8)]
    _, out, _ = run("cost alexnet --width 0.0625 --sweep resolution=32,67,96 --inference")
    assert "resolution 32" in out
    assert "67 pixels" in " ".join(out.split())
    _, out, _ = run("cost zfnet --input 3x67x67 --sweep width=0.0625,0.125 --json")
    params = [point["summary"]["params"] for point in json.loads(out)["points"]]
    assert params[0] < params[1]


def test_a_plot_is_written(run, tmp_path):
    code, out, err = run(f"cost alexnet {TINY} --sweep batch=1,3 --plot out/plot.html")
    assert code == 0
    assert "plot.html" in err
    assert "Batch" in out
    assert "vegaEmbed" in (tmp_path / "out" / "plot.html").read_text()


def test_steps_of_many_kinds(run):
    line = f"cost alexnet {TINY} --optimizer adamw --foreach fused --clip-grad-norm 1 --keep-gradients"
    plan = json.loads(run(f"{line} --channels-last --json")[1])["plan"]
    for word in ("adamw", "foreach=fused", "clip_grad_norm=1.0", "zero_grad_set_to_none=False"):
        assert word in plan, word
    assert "channels_last=True" in plan
    assert "foreach=False" in json.loads(run(f"cost alexnet {TINY} --no-foreach --json")[1])["plan"]
    assert json.loads(run(f"cost alexnet {TINY} --inference --json")[1])["plan"] == "inference"


def test_every_call_comes_with_the_rest_of_the_reading(run):
    code, out, _ = run("cost timm:resnet18 --all")
    assert code == 0
    for word in (
        "layer1.0.conv1#1",
        "Memory",
        "allocated peak",
        "Where it goes",
        "nothing is left uncounted",
    ):
        assert word in out, word
    assert "rolled up" not in out
    found = json.loads(run("cost timm:resnet18 --all --json")[1])
    assert "forecast" in found
    assert any(row["address"] == "layer1.0.conv1#1" for row in found["rows"])


def test_a_part_of_the_table_still_says_what_is_not_counted(run, tmp_path):
    (tmp_path / "strange.py").write_text(
        "import torch\nfrom torch import nn\n\n\nclass Net(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.layer = nn.Linear(4, 4)\n\n"
        "    def forward(self, x):\n        return torch.special.bessel_j0(self.layer(x))\n"
    )
    base = "cost strange.py:Net --input 4 --inference --device cpu"
    for flags in ("--only linear", "--depth 1", "--sort macs", "--sweep batch=1,2"):
        code, out, err = run(f"{base} {flags}")
        assert code == 0, err
        assert "not counted: " in out, flags
        assert "bessel_j0" in out, flags
        assert "on cpu" in out, flags
    points = json.loads(run(f"{base} --sweep batch=1,2 --json")[1])["points"]
    assert "bessel_j0" in points[1]["summary"]["uncounted"][0]["op"]


@pytest.mark.parametrize("flags", ["", "--json", "--csv -"])
def test_points_of_a_sweep_that_fail_are_named_and_the_code_says_so(run, flags):
    code, out, err = run(f"cost alexnet --width 0.0625 --sweep resolution=32,67 --inference {flags}")
    assert code == 2
    assert "67" in out
    assert "1 of 2 points couldn't be read: resolution 32; expected points that can" in err
    # A CSV has no place for the reason.
    assert ("67 pixels" in " ".join(err.split())) == (flags == "--csv -")
    assert ("67 pixels" in " ".join(out.split())) == (flags != "--csv -")


def test_networks_that_fail_have_their_reasons_beside_a_csv(run):
    code, out, err = run(f"cost alexnet zfent {TINY} --csv -")
    assert code == 2
    assert [row["network"] for row in csv.DictReader(io.StringIO(out))] == ["alexnet"]
    assert "did you mean 'zfnet'" in " ".join(err.split())


def test_the_channels_of_a_resolution_are_those_of_the_input(run, tmp_path):
    (tmp_path / "grey.py").write_text(
        "from torch import nn\n\n\ndef net():\n"
        "    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
    )
    code, out, err = run("cost grey.py:net --input 1x28x28 --sweep resolution=3,4 --inference --json")
    assert (code, err) == (0, "")
    points = json.loads(out)["points"]
    assert [point["summary"]["input_shapes"] for point in points] == [[[1, 1, 3, 3]], [[1, 1, 4, 4]]]
    assert [point["summary"]["macs"] for point in points] == [18, 4 * 18]


def test_a_real_step_is_recorded_and_measured_though_it_decides_by_data(run, tmp_path):
    (tmp_path / "decides.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.layer = nn.Linear(4, 3)\n\n"
        "    def forward(self, x):\n        y = self.layer(x)\n        return y[y.mean(1) > -99]\n"
    )
    line = "cost decides.py:Net --input 4 --batch 2 --inference --measure"
    assert run(line)[0] == 2
    for device in ("cpu", "cuda"):
        code, out, err = run(f"{line} --device {device} --real --json")
        assert code == 0, err
        timed = [row["address"] for row in json.loads(out)["timings"]["rows"]]
        assert timed[0] == "layer#1"


def test_standard_output_by_its_name_is_standard_output(run):
    text = run(f"cost alexnet {TINY} --csv -")[1]
    assert run(f"cost alexnet {TINY} --csv /dev/stdout") == (0, text, "")


def test_a_csv_goes_through_links_and_pipes(run, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link.csv").symlink_to(tmp_path / "there" / "rows.csv")
    assert run(f"cost alexnet {TINY} --csv link.csv")[0] == 0
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "there" / "rows.csv").read_text().startswith("address,")
    assert run(f"cost alexnet {TINY} --csv /dev/null")[0] == 0
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    code, out, err = run(f"cost alexnet {TINY} --csv there")
    assert (code, out) == (2, "")
    assert "output 'there' can't be written (it is a folder)" in err


def test_an_empty_name_of_a_csv_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["cost", "alexnet", "--csv", ""])
    assert capsys.readouterr().err.startswith(
        "convscope: --csv ''; expected a file, or - for standard output"
    )


def test_a_filter_is_one_word(run):
    out = run("cost --help")[1]
    assert "--only STR" in out
    assert "STR..." not in out


def test_doubling_starts_anywhere_and_stops_in_time():
    assert sweep_values("batch=3:20") == ("batch", (3, 6, 12))
    assert sweep_values("width=0.25:1") == ("width", (0.25, 0.5, 1.0))
    assert sweep_values("resolution=224") == ("resolution", (224,))


@pytest.mark.parametrize(
    "text",
    ["batch", "batch=", "batch=0:4", "batch=8:4", "batch=1,x", "batch=1.5", "depth=1", "width=nan", ""],
)
def test_bad_sweeps_are_one_line_with_examples(text):
    with pytest.raises(ConvscopeError, match=r"write it as batch=1:256"):
        sweep_values(text)


BAD = {
    "cost alexnet --batch 0": "--batch 0; expected a whole number from 1",
    "cost alexnet --batch -3": "--batch -3; expected a whole number from 1",
    "cost alexnet --optimizer sdg": "sgd-momentum",
    "cost alexnet --precision fp8": "'fp32'",
    f"cost alexnet {TINY} --device gpu": "cuda",
    "cost alexnet --foreach fsued": "fused",
    f"cost alexnet {TINY} --clip-grad-norm -1": "positive",
    f"cost alexnet {TINY} --sort saved": "did you mean 'saved_bytes'",
    f"cost alexnet {TINY} --only convolutoin": "did you mean 'convolution'",
    f"cost alexnet {TINY} --depth -1": "depth -1",
    f"cost alexnet {TINY} --top 0": "top 0",
    f"cost alexnet {TINY} --all --depth 1": "--all with --depth",
    f"cost alexnet {TINY} --plot p.html": "add --sweep",
    f"cost alexnet {TINY} --sweep batch=1,2 --plot p.pdf": ".svg",
    f"cost alexnet {TINY} --sweep batch=0,1": "batch=1:256",
    "cost alexnet --sweep resolution=8,16": "67",
    f"cost alexnet {TINY} --sweep batch=1,2 --top 3": "--top with --sweep",
    "cost alexnet zfnet --sort macs": "--sort with several networks",
    "cost alexnet zfnet --sweep batch=1,2": "one network at a time",
    f"cost alexnet {TINY} --csv - --json": "--csv - with --json",
    "cost alexnte zfent": "alexnte",
    f"cost alexnet alexnet {TINY}": "network 'alexnet' twice",
    f"cost alexnet {TINY} --inference --precision bf16": "--precision with --inference",
    f"cost alexnet {TINY} --inference --channels-last --no-foreach": "--no-foreach, --channels-last with",
    f"cost alexnet {TINY} --batch 7 --sweep batch=1,2": "--batch 7 with --sweep batch",
    f"cost zfnet {TINY} --sweep width=0.5,1": "--width 0.0625 with --sweep width",
    f"cost alexnet {TINY} --device cpu --gpu t4": "--device cpu with --gpu t4",
    f"cost alexnet {TINY} --measure --depth 1 --csv rows.csv": "a part of the table has no times",
    f"cost alexnet {TINY} --real --explain": "--real with --explain",
    f"cost alexnet {TINY} --real --verify": "--real with --verify",
    f"cost alexnet {TINY} --csv .": "can't be written (it is a folder)",
    f"cost timm:resnet18 {TINY}": "width",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(run, tmp_path, line):
    code, out, err = run(line)
    assert (code, out) == (2, "")
    assert err.startswith("convscope: ")
    assert err.count("\n") == 1
    assert BAD[line] in err
    assert list(tmp_path.iterdir()) == []
