"""``convscope compare`` as a user types it."""

import json

import pytest

from cli.typed import run
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
    assert "Comparison: out" in out


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
        ("--choose norm", "--choose 'norm'; expected NAME=VALUE"),
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


def test_choices_without_data_and_unknown_experiments(capsys):
    assert "give --data" in run(capsys, "compare zfnet --choose norm=none")[2]
    assert "unknown experiment 'bn-sped'" in run(capsys, "compare bn-sped")[2]
