"""``convscope occlusion`` and ``convscope invariance`` as a user types them."""

import json

import pytest
from PIL import Image

from cli.typed import run

SMALL = "--width 0.0625 --input 3x67x67 --num-classes 4"


@pytest.fixture(autouse=True)
def picture(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.effect_noise((90, 80), 80).convert("RGB").save("noise.png")
    (tmp_path / "mine").mkdir()
    for name in "ab":
        Image.effect_noise((70, 70), 60).convert("RGB").save(tmp_path / "mine" / f"{name}.png")


def test_occlusion_writes_a_picture_and_json(capsys, tmp_path):
    line = f"occlusion zfnet noise.png {SMALL} --label 2 --window 30 --stride 20 --colour 0,0.5,1"
    code, out, err = run(capsys, f"{line} --unit features.relu2:3 --unit features.relu5 --compare --json")
    assert code == 0, err
    data = json.loads(out)
    assert data["colour"] == [0.0, 0.5, 1.0]
    assert data["classes"]["label"] == 2
    assert [unit["is_given"] for unit in data["units"]] == [True, False]
    assert len(data["agreements"]) == 2
    with Image.open(tmp_path / "occlusion.png") as written:
        assert written.size[0] == 10 + 5 * 298


def test_invariance_takes_amounts(capsys):
    line = f"invariance zfnet {SMALL} --data mine --layers features.relu1 --translation=-2,0,2"
    code, out, err = run(capsys, f"{line} --scale none --rotation 0,90 --json")
    assert code == 0, err
    curves = json.loads(out)["layers"][0]["curves"]
    assert [[point["amount"] for point in curve["points"]] for curve in curves] == [[-2, 0, 2], [0, 90]]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f"occlusion zfnet noise.png {SMALL} --colour grey", "--colour 'grey'; expected mean, zero"),
        (f"occlusion zfnet noise.png {SMALL} --window 68", "a window of 68 × 68 pixels"),
        (f"occlusion zfnet noise.png {SMALL} --label 4", "class 4 of a network with 4"),
        (f"invariance zfnet {SMALL} --data mine --scale big", "--scale 'big'; expected numbers"),
    ],
)
def test_bad_words_are_one_line(capsys, tmp_path, line, said):
    code, out, err = run(capsys, line)
    assert (code, out) == (2, "")
    assert said in " ".join(err.split())
    assert not (tmp_path / "occlusion.png").exists()


def test_invariance_looks_at_all_pictures_of_a_folder(capsys, tmp_path):
    for name in "cdefgh":
        Image.effect_noise((70, 70), 60).convert("RGB").save(tmp_path / "mine" / f"{name}.png")
    line = f"invariance zfnet {SMALL} --data mine --layers features.relu1 --translation=0 --scale none"
    code, out, err = run(capsys, f"{line} --rotation none --json")
    assert code == 0, err
    assert json.loads(out)["num_images"] == 8


@pytest.mark.parametrize(
    "line", [
        "occlusion zfnet noise.png {} --window 60",
        "project zfnet noise.png {} --layer features.relu1 --unit 0",
        "invariance zfnet {} --data mine --layers features.relu1 --translation=0 --scale none "
        "--rotation none",
        "stem zfnet {} --data mine",
    ], ids=["occlusion", "project", "invariance", "stem"],
)  # fmt: skip
def test_random_weights_are_told(capsys, line):
    code, _, err = run(capsys, line.format(SMALL))
    assert code == 0, err
    assert "zfnet has random weights" in err
