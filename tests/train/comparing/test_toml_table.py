"""Tables from files: what they mean, and one line with the place for each fault."""

import pytest

from convscope.core.errors import ConvscopeError
from convscope.train.comparing import Execution
from convscope.train.comparing.asking import asked
from convscope.train.comparing.toml_table import read_table

GOOD = """network = "zfnet"
data = "digits"
seeds = 3
out = "here"
processes = 2
target = 0.1

[settings]
epochs = 4

[options]
width = 0.25

[choices]
norm = ["none", "batch"]
learning_rate = [0.01, 0.1]

[[arms]]
name = "slow"
network = "alexnet"
settings = { learning_rate = 0.001 }
options = { norm = "lrn" }
"""


def read(tmp_path, text):
    (tmp_path / "table.toml").write_text(text)
    return read_table(tmp_path / "table.toml")


def test_a_table_means_its_crossed_choices_and_its_own_arms(tmp_path):
    written = read(tmp_path, GOOD)
    arms = written.table.arms
    assert [arm.name for arm in arms] == [
        "no norm, lr 0.01", "no norm, lr 0.1", "batch, lr 0.01", "batch, lr 0.1", "slow",
    ]  # fmt: skip
    assert arms[3].options == {"width": 0.25, "norm": "batch"}
    assert (arms[3].config.learning_rate, arms[3].config.epochs) == (0.1, 4)
    assert (arms[4].network, arms[4].options["norm"], arms[4].config.learning_rate) == (
        "alexnet", "lrn", 0.001,
    )  # fmt: skip
    assert (written.table.seeds, written.table.target) == ((0, 1, 2), 0.1)
    assert (written.out, written.processes, written.threads) == ("here", 2, None)


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("seeds = 3", "sedes = 3", 3, "did you mean 'seeds'"),
        ("[choices]", "[choises]", 14, "did you mean 'choices'"),
        ("epochs = 4", "epohs = 4", 9, "did you mean 'epochs'"),
        ("epochs = 4", "epochs = 0", 9, "whole number from 1"),
        ("epochs = 4", "seed = 4", 9, "seeds=5"),
        (
            "epochs = 4",
            "learning_rate = 0.3",
            16,
            "both as a choice (0.01, 0.1) and as setting",
        ),
        ("width = 0.25", 'norm = "lrn"', 15, "norm both as a choice (none, batch) and as option norm=lrn"),
        ("width = 0.25", 'init = "publishd"', 12, "did you mean 'published'"),
        ('["none", "batch"]', '["none", "bach"]', 15, "did you mean 'batch'"),
        ("epochs = 4", 'optimizer = "adm"', 9, "did you mean 'adam'"),
        ("width = 0.25", "widht = 0.25", 12, "did you mean 'width'"),
        ("width = 0.25", "num_classes = 3", 12, "input_shape"),
        ("norm = [", "nrom = [", 15, "neither a training setting nor an option of zfnet"),
        ('["none", "batch"]', '"none"', 15, "a list of different values"),
        ('["none", "batch"]', '["none", "none"]', 15, "a list of different values"),
        ("[0.01, 0.1]", "[0.01, -1.0]", 16, "above 0"),
        ('name = "slow"', 'nmae = "slow"', 19, "did you mean 'name'"),
        ("{ learning_rate = 0.001 }", "{ lr = 0.001 }", 21, "unknown training setting 'lr'"),
        ('{ norm = "lrn" }', '{ norms = "lrn" }', 22, "did you mean 'norm'"),
        ("seeds = 3", "seeds = -1", 3, "five seeds"),
        ("target = 0.1", "target = 5", 6, "0.05"),
        ("target = 0.1", 'baseline = "quick"', 6, "'slow'"),
        ("processes = 2", "processes = -2", 5, "whole number from 0"),
    ],
)
def test_a_fault_is_told_with_its_line(tmp_path, old, new, line, said):
    with pytest.raises(ConvscopeError) as caught:
        read(tmp_path, GOOD.replace(old, new, 1))
    assert f"table.toml, line {line}: " in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_toml_or_isnt_there(tmp_path):
    with pytest.raises(ConvscopeError, match="line 2"):
        read(tmp_path, "network = 'zfnet'\ndata = digits\n")
    with pytest.raises(ConvscopeError, match="check the path"):
        read_table(tmp_path / "none.toml")


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_files_as_editors_on_windows_write_them(tmp_path, mark, end):
    text = mark + GOOD.replace("epochs = 4", "epohs = 4").replace("\n", end)
    (tmp_path / "table.toml").write_bytes(text.encode())
    with pytest.raises(ConvscopeError, match=r"line 9: unknown training setting 'epohs'"):
        read_table(tmp_path / "table.toml")


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("settings.epochs = 3\nsettings.epohs = 4\n", 4, "'epohs'"),
        ("settings = { epochs = 3, batch_size = 0 }\n", 3, "batch_size=0"),
        ('[settings]\n"ep\\u006fhs" = 3\n', 4, "'epohs'"),
        ("# epohs = 1\n[settings] # epohs = 2\nepochs = 3 # epohs = 3\nepohs = 4\n", 6, "'epohs'"),
        ('[options]\ninput_shape = "3x64"\n', 4, "input_shape='3x64'"),
        ('[[arms]]\nname = "a"\noptions = { input_shape = [3, 64] }\n', 5, "input_shape=[3, 64]"),
        ("out = 3\n", 3, "out=3"),
        ("seeds = [\n 1, 1\n]\n", 3, "seeds=(1, 1)"),
    ],
)
def test_nasty_files_are_told_with_the_line(tmp_path, text, line, said):
    with pytest.raises(ConvscopeError) as caught:
        read(tmp_path, f'network = "zfnet"\ndata = "digits"\n{text}')
    assert f"line {line}: " in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize("missing", ["network", "data"])
def test_what_must_be_there(tmp_path, missing):
    text = "".join(line for line in GOOD.splitlines(True) if not line.startswith(f"{missing} = "))
    text = text.replace('network = "alexnet"\n', "")
    with pytest.raises(ConvscopeError, match=f"no {missing}"):
        read(tmp_path, text)


def test_networks_may_be_choices(tmp_path):
    found = read(tmp_path, 'data = "digits"\n[choices]\nnetwork = ["zfnet", "alexnet"]\n')
    assert [arm.name for arm in found.table.arms] == ["zfnet", "alexnet"]


def test_a_network_that_no_arm_would_be_of_is_told_with_its_line(tmp_path):
    text = 'data = "digits"\nnetwork = "alexnet"\n[choices]\nnetwork = ["zfnet", "timm:resnet18"]\n'
    with pytest.raises(ConvscopeError, match=r"line 2.*'alexnet' beside the choice"):
        read(tmp_path, text)
    arms = read(tmp_path, text + '[[arms]]\nname = "third"\n').table.arms
    assert [arm.network for arm in arms] == ["zfnet", "timm:resnet18", "alexnet"]


def test_one_arm_is_nothing_to_compare(tmp_path):
    (tmp_path / "one.toml").write_text('network = "zfnet"\ndata = "digits"\n')
    with pytest.raises(ConvscopeError, match=r"one\.toml: 1 arm, 'zfnet'; expected at least two"):
        asked(tmp_path / "one.toml", Execution())
