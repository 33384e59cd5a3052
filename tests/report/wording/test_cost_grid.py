"""Which rows and columns of a cost reading a reader sees, and that what is left out is said."""

import io
from collections import OrderedDict
from dataclasses import replace
from itertools import pairwise

import pytest
from rich.console import Console
from torch import nn

from convscope.cost import cost as reading
from convscope.report.wording.cost_grid import MOST_ROWS, amount, described, grid_of, overview


class Stages(nn.Sequential):
    """Three stages of blocks of three layers, and a head."""

    def __init__(self, blocks=8):
        stages = [nn.Sequential(*(self.block() for _ in range(blocks))) for _ in range(3)]
        super().__init__(nn.Conv2d(3, 4, 1), *stages, nn.Flatten(), nn.Linear(64, 3))

    @staticmethod
    def block():
        return nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU())


@pytest.fixture(scope="module")
def deep():
    return reading(Stages(), (2, 3, 4, 4))


def drawn(result, width):
    console = Console(width=width, file=io.StringIO(), record=True, color_system=None)
    console.print(result)
    return console.export_text()


def test_a_short_table_is_shown_as_it_is(cost):
    selection, note = overview(cost)
    assert selection.rows == cost.rows
    assert note == ""


def test_a_long_table_is_rolled_up_as_deep_as_it_fits_and_says_so(deep):
    selection, note = overview(deep)
    assert len(deep.rows) == 1 + 3 * 8 * 3 + 2 + 2
    # Depth 2: the first convolution, 24 blocks, flatten, head and loss.
    assert (selection.depth, len(selection.rows)) == (2, 28)
    assert note == "77 calls, rolled up to depth 2; every call: --all, or print(cost.select())"
    assert selection.is_whole
    assert "1.0.0#1" not in drawn(deep, 160).split("\nforward ")[0]
    assert "rolled up to depth 2" in drawn(deep, 100)
    assert "1.0.0#1" in drawn(deep.select(), 100)


def test_a_long_flat_table_shows_its_most_expensive_rows():
    flat = reading(nn.Sequential(*(nn.Linear(4, 4) for _ in range(MOST_ROWS)), nn.Linear(4, 99)), (2, 4))
    selection, note = overview(flat)
    assert len(selection.rows) == 40
    assert selection.rows[0].address == f"{MOST_ROWS}#1"
    assert note.startswith("the 40 of 63 rows with most step FLOPs")
    assert [line[0] for line in grid_of(selection).footer] == ["Shown", "Share", "Whole network"]


def test_numbers_are_those_of_the_rows_and_their_sums(cost):
    grid = grid_of(cost.select())
    column = grid.columns.index("MACs#")
    assert [row[column] for row in grid.rows] == ["65.0 M", "0", "0", "41.0 k"]
    assert grid.footer[0][column] == "65.1 M"
    assert len(grid.footer) == 1


def test_a_part_has_its_share_of_the_whole(cost):
    grid = grid_of(cost.where("convolution"))
    column = grid.columns.index("MACs#")
    # 65,028,096 of 65,069,056 MACs.
    assert [line[column] for line in grid.footer] == ["65.0 M", "99.9 %", "65.1 M"]


def test_what_a_table_is_sorted_by_is_always_there(cost):
    assert "index_bytes#" in grid_of(cost.sorted_by("index_bytes")).columns
    hidden = grid_of(cost.sorted_by("elementwise_ops"), hidden=("elementwise_ops", "sees"))
    assert "Elementwise ops#" in hidden.columns
    assert "Sees px#" not in hidden.columns


def test_a_selection_is_described(deep):
    selection = deep.where("convolution").rolled_up(1).sorted_by("macs").top(2)
    assert described(selection) == (
        "matching convolution, rolled up per module to depth 1, sorted by macs, the first 2 of 4 rows"
    )
    assert described(deep.select()) == ""


def test_repeated_calls_are_marked(cost):
    row = replace(cost.rows[0], address="block", calls=1200)
    assert grid_of(replace(cost.select(), rows=(row,))).rows[0][0] == "block (×1,200)"


def test_inference_shows_nothing_of_backward():
    text = drawn(reading(Stages(1), (2, 3, 4, 4), None), 160)
    for word in ("ackward", "aved", "step"):
        assert word not in text.replace("before the step", ""), word


@pytest.mark.parametrize(("width", "columns"), [(160, True), (100, False)])
def test_narrow_terminals_lose_columns_not_digits(deep, width, columns):
    text = drawn(deep.rolled_up(1), width)
    header, below = text.splitlines()[2], text.split("Total")[1]
    assert ("Elementwise ops" in header) == columns
    assert ("too narrow here for: Elementwise ops" in " ".join(below.split())) != columns
    assert "Saved bytes" in text
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text


class Deep(nn.Sequential):
    """Names of 40 characters, operators of the network's own, and a kind of 19."""

    def __init__(self):
        block = nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 3), pool=nn.AdaptiveAvgPool2d(1)))
        stage = nn.Sequential(OrderedDict(denselayer12=block))
        features = nn.Sequential(OrderedDict(denseblock3=stage))
        super().__init__(OrderedDict(features=features, flatten=nn.Flatten(), fc=nn.Linear(4, 2)))


@pytest.mark.parametrize("width", [60, 80])
@pytest.mark.parametrize("order", ["", "saved_bytes", "index_bytes", "backward_weight_flops"])
def test_names_break_at_dots_and_numbers_never(width, order):
    whole = reading(Deep(), (2, 3, 9, 9)).select()
    selection = whole.sorted_by(order) if order else whole
    text = drawn(selection, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    table = text[: text.index("Total")].split("\n\n")[1].splitlines()[1:]
    # What begins a line is a name or a piece of one: names have no spaces.
    pieces = [line.split()[0] for line in table if not line.startswith(" ")]
    for row in selection.rows:
        assert row.address in "".join(pieces), row.address
    for piece, following in pairwise(pieces):
        ends = any(row.address.endswith(piece) for row in selection.rows)
        # An operator's name, which is longer than the column, has only underscores.
        operator = ":" in piece and piece.endswith("_")
        assert ends or piece.endswith(".") or following.startswith(":") or operator, piece
    if order:
        # What it is sorted by stays, with every digit.
        assert all(amount(order, getattr(row, order)) in text for row in selection.rows)


def test_nothing_of_a_reading_is_cut_at_60(cost):
    text = drawn(cost, 60)
    assert max(map(len, text.splitlines())) <= 60
    assert "…" not in text
    for finding in cost.findings:
        assert finding.fault in "".join(line.split("  ")[0].strip() for line in text.splitlines())


def test_amounts_have_their_unit():
    assert amount("index_bytes", 1024) == "1.00 KiB"
    assert amount("forward_flops", 1024) == "1.02 k"
