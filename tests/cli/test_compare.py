"""``convscope compare`` as a user types it."""

import json

import pytest

from cli.typed import run
from convscope.cli.comparison_words import choices_of
from convscope.train import EXPERIMENTS
from convscope.train.comparing import experiment
from train.comparing.small import made


@pytest.fixture
def words(tmp_path, monkeypatch):
    """A command line without choices, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    network, data = made(tmp_path)
    how = "--set batch_size=12 --set epochs=2 --processes 0 --threads 1 --out out"
    return f"compare {network} --data {data} {how}"


def test_a_comparison_from_flags_and_again_from_its_folder(capsys, words, tmp_path):
    line = f"{words} --choose norm=none,batch --choose learning_rate=0.1 --option hidden=5 --seeds 1"
    code, out, err = run(capsys, f"{line} --json")
    assert code == 0, err
    found = json.loads(out)
    assert [arm["name"] for arm in found["arms"]] == ["no norm, lr 0.1", "batch, lr 0.1"]
    assert found["arms"][0]["options"] == {"hidden": 5, "norm": "none"}
    assert (found["seeds"], found["name"]) == ([0], "out")
    assert "Forecast: 2 of 2 runs left" in err
    assert "2/2 runs" in err
    assert (tmp_path / "out" / "index.html").exists()
    code, out, err = run(capsys, line)
    assert code == 0
    assert "Forecast" not in err
    assert "Comparison: net.py:build on pictures, norm" in out
    assert "pictures: 36 images to train on, 18 to validate; one split for all runs" in " ".join(out.split())
    assert "epochs=2, batch_size=12, learning_rate=0.1; other settings are the defaults" in " ".join(
        out.split()
    )
    assert "1 seed: no interval" in out


def test_a_table_from_a_file_and_its_forecast(capsys, words, tmp_path):
    _, network, _, data, *_ = words.split()
    (tmp_path / "table.toml").write_text(
        f'network = "{network}"\ndata = "{data}"\nseeds = 2\nout = "there"\nprocesses = 0\n'
        '[settings]\nbatch_size = 12\nepochs = 2\n[choices]\nnorm = ["none", "batch"]\n'
    )
    code, out, _ = run(capsys, "compare table.toml --forecast --json")
    assert code == 0
    assert (json.loads(out)["runs"], json.loads(out)["steps_left"]) == (4, 24)
    assert not (tmp_path / "there").exists()
    assert run(capsys, "compare table.toml")[0] == 0
    assert (tmp_path / "there" / "comparison.json").exists()


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        ("--choose norm", "expected NAME=VALUE,VALUE; write --choose learning_rate=0.01,0.1"),
        ("--set epochs", "expected NAME=VALUE; write --set epochs=10"),
        ("--option hidden", "expected NAME=VALUE; write --option width=0.5"),
        ("--choose batch_size=6,12", "batch_size both as a choice (6, 12) and as setting batch_size=12"),
        ("--choose hidden=3,4 --option hidden=5", "hidden both as a choice (3, 4) and as option hidden=5"),
        ("--choose input_shape=3x4x4,3x5x5 --input 3x4x4", "input_shape both as a choice"),
        ("--input 3x4x4 --option input_shape=3x5x5", "expected the shape once"),
        ("--choose learning_rate=0.1", "1 arm, 'lr 0.1'; expected at least two to compare"),
        ("--choose norm=none --choose norm=batch", "each name once"),
        ("--set epohs=3", "did you mean 'epochs'"),
        ("--set epochs=0", "a whole number from 1"),
        ("--seeds many", "--seeds 'many'"),
        ("--choose norm=none,none", "a list of different values"),
        ("--baseline quick", "arm 'quick'"),
    ],
)
def test_bad_words_are_one_line_and_exit_code_2(capsys, words, rest, said):
    code, _, err = run(capsys, f"{words.replace(' --set epochs=2', '')} {rest}")
    assert code == 2
    assert said in err
    assert err.strip().count("\n") == 0


def test_a_wrong_key_of_a_file_is_told_with_its_line(capsys, tmp_path):
    (tmp_path / "t.toml").write_text('network = "zfnet"\ndata = "digits"\n\n[settings]\nepohs = 3\n')
    code, _, err = run(capsys, f"compare {tmp_path / 't.toml'}")
    assert code == 2
    assert "t.toml, line 5: unknown training setting 'epohs'" in err


def test_experiments_can_be_found_and_read_before_they_are_run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = run(capsys, "compare --list")
    assert code == 0
    assert all(name in out for name in EXPERIMENTS)
    code, out, _ = run(capsys, "compare bn-speed --list")
    assert code == 0
    asked = experiment("bn-speed")
    words = " ".join(out.split())
    assert asked.protocol in words
    assert all(claim.statement in words for claim in asked.claims)
    assert all(arm.name in words for arm in asked.table.arms)
    assert "evaluate_every=20" in words
    code, out, _ = run(capsys, "compare precise-bn --list --json")
    assert json.loads(out)["measures"][0].keys() == {"name", "description", "version"}
    assert not list(tmp_path.iterdir())
    assert "convscope compare --list" in run(capsys, "compare")[2]


def test_a_table_can_be_read_before_it_is_run(capsys, words, tmp_path):
    code, out, _ = run(capsys, f"{words} --choose norm=none,batch --choose hidden=4,5 --seeds 3 --list")
    assert code == 0
    assert "batch, hidden 5" in out
    assert "0, 1, 2" in out
    assert not (tmp_path / "out").exists()


def test_what_a_users_network_prints_is_no_json(capsys, words, tmp_path):
    rates = "--choose learning_rate=0.1,0.2"
    line = f"{words} {rates} --seeds 1 --json".replace(":build", ":loud")
    code, out, err = run(capsys, line)
    assert code == 0
    assert json.loads(out)["arms"]
    assert "what a user's code prints" in err


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("none,batch", ["none", "batch"]),
        ("(3,4),(7,)", [[3, 4], [7]]),
        ("[3, 4],none", [[3, 4], "none"]),
        ("[[3,4],[7]],[[1]]", [[[3, 4], [7]], [[1]]]),
        ("True,False", [True, False]),
        ("true,false", [True, False]),
        ("None,0.5", ["none", 0.5]),
        ('"a,b",c', ["a,b", "c"]),
        ("3x64x64,3x32x32", ["3x64x64", "3x32x32"]),
        ("1e-3,0.1", [0.001, 0.1]),
    ],
)
def test_values_as_users_type_them(text, values):
    assert choices_of([f"name={text}"]) == {"name": values}


def test_choices_without_data_and_unknown_experiments(capsys):
    assert "give --data" in run(capsys, "compare zfnet --choose norm=none")[2]
    assert "unknown experiment 'bn-sped'" in run(capsys, "compare bn-sped")[2]
