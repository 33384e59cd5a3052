"""CSV: read back with the standard library, the numbers are the table's."""

import csv
import io

import pytest
from torch import nn

from convscope.cost import COLUMNS, cost
from convscope.cost.views.csv_table import csv_text


@pytest.fixture(scope="module")
def found():
    return cost(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2), nn.Flatten()), (2, 3, 6, 6))


def read(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_one_line_per_call_with_every_number(found):
    lines = read(found.to_csv())
    assert [line["address"] for line in lines] == [row.address for row in found.rows]
    for line, row in zip(lines, found.rows, strict=True):
        assert {name: int(line[name]) for name in COLUMNS} == {name: getattr(row, name) for name in COLUMNS}
    assert lines[0]["macs"] == str(2 * 36 * 4 * 27)
    assert lines[0]["output_shape"] == "2x4x6x6"
    assert lines[0]["receptive_field_size_px"] == "3x3"
    assert lines[0]["receptive_field_offset_px"] == "-1x-1"
    assert lines[-1]["receptive_field_size_px"] == lines[-1]["output_shape"] == ""


def test_a_selection_writes_its_rows(found):
    lines = read(found.where("Conv2d").to_csv())
    assert [(line["address"], line["op"]) for line in lines] == [("0#1", "convolution")]
    assert [line["calls"] for line in read(found.rolled_up(0).to_csv())] == ["1", "1"]


def test_names_with_commas_quotes_and_line_ends_come_back():
    awkward = ['a,b "c"', "d\ne", "größe"]
    assert list(csv.reader(io.StringIO(csv_text(awkward, [])))) == [awkward]
