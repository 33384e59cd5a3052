"""The comparison of forecasts with a file of measurements that is made by hand."""

import json
from types import SimpleNamespace

import pytest
from bench.gpu_compare import compare, report
from bench.gpu_rows import fields_of, rows

from convscope.core.errors import ConvscopeError

MIB = 2**20


def _entry(row, allocated, workspace, without, reserved):
    return {
        **fields_of(row),
        "allocated_peak_bytes": allocated * MIB,
        "reserved_peak_bytes": reserved * MIB,
        "workspace_bytes": workspace,
        "without_workspace_peak_bytes": without,
        "phase_peaks": {"forward": 3, "backward": 9, "optimizer": 4},
    }


def _forecast(allocated, low, high, reserved):
    return SimpleNamespace(
        allocated_peak_bytes=allocated * MIB,
        allocated_range_bytes=(low * MIB, high * MIB),
        reserved_peak_bytes=None if reserved is None else reserved * MIB,
        peak_phase="backward",
    )


@pytest.fixture
def compared(tmp_path):
    """Four steps: 1 % too high and inside; 2 % too low and below the range; no history; not forecast."""
    first, second, third, fourth = rows()[:4]
    path = tmp_path / "truth.json"
    entries = [
        _entry(first, 110, 10 * MIB, 100 * MIB, 200),
        _entry(second, 60, 10 * MIB, 50 * MIB, 100),
        _entry(third, 1000, None, None, 1000),
        _entry(fourth, 1, 0, 1, 1),
    ]
    header = {"gpu": "G", "compute_capability": "9.0", "torch": "2.11.0", "cuda": "13.0", "cudnn": "9"}
    path.write_text(json.dumps({**header, "rows": entries}))
    forecasts = {
        first: _forecast(101, 101, 121, 210),
        second: _forecast(49, 49, 55, 98),
        third: _forecast(990, 990, 1010, None),
    }

    def forecaster(row, header):
        assert header["compute_capability"] == "9.0"
        if row not in forecasts:
            raise ConvscopeError("a network", "another", "try it")
        return forecasts[row]

    return compare(path, forecaster)


def test_errors_are_shares_of_what_was_measured(compared):
    first, second, third = compared.compared
    assert first.allocated_error == pytest.approx(0.01)
    assert second.allocated_error == pytest.approx(-0.02)
    assert third.allocated_error is None
    assert [row.is_inside for row in compared.compared] == [True, False, True]
    assert first.width == pytest.approx(20 / 110)
    assert [first.reserved_error, second.reserved_error] == pytest.approx([0.05, -0.02])
    assert third.reserved_error is None
    assert first.phases == ("backward", "backward")
    assert compared.refused == ((rows()[3].label, "a network; expected another; try it"),)


def test_the_report_sums_up(compared):
    text = report(compared)
    assert "G, PyTorch 2.11.0, CUDA 13.0, cuDNN 9: 3 steps." in text
    assert "| allocated without workspace | 2 | -0.50% | 1.50% | -2.00% |" in text
    assert "| reserved | 2 | +1.50% | 3.50% | +5.00% |" in text
    assert "in 2 of 3 steps (67%)" in text
    assert "median width is 10.0% of the peak" in text  # of 18.2, 10.0 and 2.0 %
    assert f"| {rows()[0].label} | 110.0 | 10.0 | +1.00% | 101.0 to 121.0 | yes | +5.00% | " in text
    assert f"| {rows()[2].label} | 1000.0 | – | – | 990.0 to 1010.0 | yes | – | " in text
    assert f"- {rows()[3].label}: a network" in text
