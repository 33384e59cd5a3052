"""What is said about a reading beside its table: each part of a forecast that there is."""

from dataclasses import replace

import pytest

from convscope.report.wording.cost_facts import largest_at_peak, left_out, memory_facts, work_facts

MIB = 2**20


@pytest.fixture
def on_gpu(cost):
    forecast = replace(
        cost.forecast,
        allocated_peak_bytes=100 * MIB,
        reserved_peak_bytes=120 * MIB,
        workspace_bytes=(0, 30 * MIB),
        context_bytes=500 * MIB,
        live_by_role={"activation": 80 * MIB, "parameter": 10 * MIB, "buffer": 0},
        gpu="sm90",
        scratch_bytes=0,
        cublas_workspace_bytes=8 * MIB,
        unsplit_bytes=2 * MIB,
        allocated_range_bytes=(100 * MIB, 130 * MIB),
        reserved_range_bytes=(120 * MIB, 120 * MIB),
        context_range_bytes=(300 * MIB, 500 * MIB),
    )
    return replace(cost, forecast=forecast)


def test_the_forecast_and_the_notes_estimate_are_beside_one_another(on_gpu):
    lines = dict(memory_facts(on_gpu))
    peak = on_gpu.forecast
    # 2 × 1,000,000 × 4 B, and 3 × 8,930 × 4 B.
    assert lines["rule of thumb"].startswith(
        "7.73 MiB = 7.63 MiB for activations (2 values for each of 1.00 M)"
    )
    assert lines["rule of thumb"].endswith("105 KiB for parameters (3 values each)")
    assert lines["allocated peak"] == (
        f"100 MiB in {peak.peak_phase} at {peak.peak_op}; 100 MiB to 130 MiB with cuDNN workspaces"
    )
    assert lines["of which"] == (
        "activation 80.0 MiB, parameter 10.0 MiB, cuBLAS workspaces 8.00 MiB, "
        "remainders not split off 2.00 MiB"
    )
    assert lines["reserved peak"] == "120 MiB"  # the workspaces fit into what is reserved anyway
    assert lines["cuDNN workspaces"] == "0 B to 30.0 MiB at the peak"
    assert lines["CUDA context"] == "300 MiB to 500 MiB, outside PyTorch's statistics (figures of sm90)"


def test_what_is_not_forecast_is_said_and_has_no_number(cost):
    forecast = replace(cost.forecast, device="cpu", not_forecast=("reserved: the CPU has none",))
    lines = memory_facts(replace(cost, forecast=forecast))
    names = [name for name, _ in lines]
    assert names == ["rule of thumb", "allocated peak", "of which", "not forecast"]
    assert not any("None" in text for _, text in lines)


def test_inference_has_no_backward(cost):
    totals = replace(
        cost.totals, backward_flops=0, backward_input_flops=0, backward_weight_flops=0, index_bytes=0
    )
    assert [name for name, _ in work_facts(replace(cost, totals=totals))] == ["forward", "beside it"]


def test_recomputation_is_said(cost):
    totals = replace(cost.totals, recompute_flops=3_000_000)
    assert dict(work_facts(replace(cost, totals=totals)))["recomputed"].startswith("3.00 M FLOPs")
    assert "recomputed" not in dict(work_facts(cost))


def test_the_largest_blocks_are_named(cost):
    first, second = largest_at_peak(cost).rows
    assert first == ("1.69 MiB", "activation", "", "conv1#1:convolution.1")
    assert second[3] == "before the step"


def test_what_is_left_out(cost):
    lines = left_out(cost)
    assert lines[0] == "not counted: aten::strange, 2 calls in forward, first at conv1#1:strange.1"
    assert "unused: extra.weight, 200 parameters" in lines
    assert left_out(replace(cost, uncounted=()))[0] == "nothing is left uncounted"
