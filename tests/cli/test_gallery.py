"""What ``convscope gallery`` says beside its result."""

import json
from datetime import datetime

from PIL import Image

from cli.typed import run

GALLERY = (
    "gallery alexnet --width 0.0625 --input 3x67x67 --num-classes 4 --data set --layers features.conv1 "
    "--top 1 --judge 0 --out g1 --json"
)


def test_an_older_gallery_that_was_replaced_and_random_weights_are_told(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "set").mkdir()
    for number in range(2):
        Image.effect_noise((80, 70), 60).convert("RGB").save(tmp_path / "set" / f"{number}.png")
    first, second = (run(capsys, GALLERY) for _ in range(2))
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    assert "gallery written to g1: " in first[2]
    assert "gallery written to g1, in the place of an older one: " in second[2]
    assert "random weights" in first[2]
    origin = json.loads(first[1])["origin"]
    assert (origin["network"], origin["data"]) == ("alexnet", "set")
    assert origin["weights"].startswith("none given")
    assert str(datetime.now().year) in origin["written"]
