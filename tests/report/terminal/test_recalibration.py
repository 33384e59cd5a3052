from dataclasses import replace

import convscope.report.terminal.recalibration  # noqa: F401 - registers the rendering
from convscope.norm.recalibration import HeldOut, RecalibratedLayer, Recalibration, Residual

LAYERS = (
    RecalibratedLayer(
        "bn1",
        "recalibrated",
        "",
        8,
        1234567,
        Residual(1.25, 0.031, 0.5, None),
        Residual(0.001, 0.02, 0.25, 0.1),
    ),
    RecalibratedLayer("bn2", "frozen", "it is frozen"),
)
FOUND = Recalibration(LAYERS, "one-pass", True, "", 2600, 4, 2, HeldOut(0.75, 0.5, 0.0123, 100))


def test_layers_residuals_and_losses_are_shown():
    text = str(FOUND)
    assert "1 batch norm recalibrated (2,600 samples in 4 batches, one-pass)" in text
    row = next(line for line in text.splitlines() if line.startswith("bn1 (8 calls)"))
    assert row.split() == [
        "bn1",
        "(8",
        "calls)",
        "1,234,567",
        "1.25",
        "±",
        "0.031",
        "0.001",
        "±",
        "0.02",
        "0.5",
        "0.25",
        "±",
        "0.1",
    ]
    assert 'shuffle the data, or pass method="sequential"' in text
    assert "largest residual before  1.25" in text
    assert "largest residual after   0.25" in text
    assert "0.5 (change −0.25 ± 0.012)" in text
    assert "left as it is: bn2: it is frozen" in text
    assert "not applied" not in text


def test_a_refusal_says_why():
    text = str(replace(FOUND, applied=False, reason="the held-out loss would rise", held_out=None))
    assert "Nothing changed" in text
    assert "not applied: the held-out loss would rise" in text


def test_what_could_not_be_measured():
    layers = (replace(LAYERS[0], after=None), LAYERS[1])
    assert "unknown: the data can't be read again" in str(replace(FOUND, layers=layers))
    nothing = Recalibration(LAYERS[1:], "one-pass", False, "no batch norm has statistics", 0, 0, 0)
    assert "residual" not in str(nothing)
    assert "shuffle" not in str(replace(FOUND, method="sequential"))
