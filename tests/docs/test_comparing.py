"""The table and the experiment of docs/comparing.md are possible ones."""

import re
from pathlib import Path

from convscope.train.comparing.toml_table import read_table

PAGE = (Path(__file__).parents[2] / "docs" / "comparing.md").read_text()


def _block(language, containing):
    blocks = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return next(block for block in blocks if containing in block)


def test_the_table_can_be_read(tmp_path):
    (tmp_path / "table.toml").write_text(_block("toml", "[choices]"))
    written = read_table(tmp_path / "table.toml")
    assert [arm.name for arm in written.table.arms] == [
        "no norm, lr 0.01", "no norm, lr 0.1", "batch, lr 0.01", "batch, lr 0.1", "published",
    ]  # fmt: skip
    assert written.table.arms[0].options["input_shape"] == (3, 64, 64)


def test_the_experiment_can_be_made():
    names = {}
    exec(_block("python", "Experiment("), names)
    assert [claim.name for claim in names["experiment"].claims] == ["quicker"]


def test_all_quantities_of_claims_are_named():
    from convscope.train.comparing.experiment import QUANTITIES

    assert all(f"`{quantity}`" in PAGE for quantity in QUANTITIES)
