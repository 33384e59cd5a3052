"""Small results of every kind, made up for these tests, with names that try to break out of a page."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from convscope.checkup.observed import LayerGap
from convscope.checkup.observed.run import Percentiles
from convscope.checkup.result import Channels, Checkup, NormHealth, StateProof
from convscope.checkup.unchecked import Unchecked
from convscope.core.finding import Evidence, Finding
from convscope.core.fingerprint import Fingerprint
from convscope.cost import (
    Cost,
    Forecast,
    LiveTensor,
    Row,
    RuleOfThumb,
    TimelinePoint,
    Totals,
    Uncounted,
    UnusedParameter,
)
from convscope.data import Damage
from convscope.fold.ledger import Folded, Ledger, LedgerEntry, OutputError, Proof, Speed, Timing
from convscope.report.whole.findings import findings_of
from convscope.report.whole.norm_effect import norm_effect
from convscope.report.whole.ranking import rank
from convscope.report.whole.result import Part, Report, Subject
from convscope.sight.picturing.album import Example, Gallery, Layer, Sprite, Unit
from convscope.sight.projecting.projection import Box, Census, Scores
from convscope.sight.stems.diagnosis import (
    Aliasing,
    Coverage,
    Filter,
    Lattice,
    LayerShift,
    Octave,
    Shifts,
    Spread,
    Stem,
    WhatIf,
)
from convscope.tape.receptive_field import ReceptiveField
from convscope.train.config import TrainConfig
from convscope.train.run import EpochRecord, Run, StepRecord

HOSTILE = "</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def hostile():
    return HOSTILE


def _finding(fault, severity, address="conv1#1", value=0.948, unit="share"):
    return Finding(
        fault=fault,
        severity=severity,
        address=address,
        evidence=(Evidence("share of the MACs", value, unit, "sum over the rows"),),
        why=f"94.8 % of the MACs are in convolutions ({fault}).",
        remedy="" if severity == "info" else "Change the stride.",
        source="the lecture's table",
    )


def _row(name, op, macs, params=0, saved=0, shape=(8, 24, 48, 48)):
    elements = torch.Size(shape).numel()
    return Row(
        address=f"{name}#1",
        path=name,
        type_name="Conv2d",
        op=op,
        phase="forward",
        output_shape=shape,
        activations=elements,
        activation_bytes=4 * elements,
        params=params,
        parameter_bytes=4 * params,
        macs=macs,
        forward_flops=2 * macs,
        backward_input_flops=2 * macs,
        backward_weight_flops=2 * macs,
        recompute_flops=0,
        elementwise_ops=0 if macs else elements,
        saved_bytes=saved,
        index_bytes=saved // 5,
        receptive_field=ReceptiveField((7, 7), (2, 2), (-1, -1)) if macs else None,
    )


@pytest.fixture(scope="module")
def cost():
    rows = (
        _row("conv1", "convolution", 65_028_096, 3_552, 1_769_472),
        _row("bn1", "batch_norm", 0, 48, 1_769_664),
        _row(f"features.{HOSTILE}", "max_pool2d", 0, 0, 885_000),
        _row("fc8", "linear", 40_960, 5_130, 16_384, (8, 10)),
    )
    total = {
        field: sum(getattr(row, field) for row in rows)
        for field in (
            "activations",
            "macs",
            "forward_flops",
            "backward_input_flops",
            "backward_weight_flops",
            "recompute_flops",
            "elementwise_ops",
            "saved_bytes",
            "index_bytes",
        )
    }
    phases = ["forward"] * 40 + ["loss"] * 4 + ["backward"] * 60 + ["optimizer"] * 16
    timeline = tuple(
        TimelinePoint(call, phase, f"conv1#1:op.{call + 1}", 512 * (4_000 + 900 * min(call, 110 - call)))
        for call, phase in enumerate(phases)
    )
    peak = max(timeline, key=lambda point: point.allocated_bytes)
    return Cost(
        network="ZFNet",
        input_shapes=((8, 3, 96, 96),),
        batch_size=8,
        plan="training with sgd-momentum in fp32",
        device="cuda",
        totals=Totals(
            params=8_930,
            parameter_bytes=35_720,
            backward_flops=total["backward_input_flops"] + total["backward_weight_flops"],
            step_flops=total["forward_flops"] * 3,
            **total,
        ),
        rows=rows,
        unused_parameters=(UnusedParameter("extra.weight", 200),),
        uncounted=(Uncounted("aten::strange", 2, "forward", "conv1#1:strange.1"),),
        rule_of_thumb=RuleOfThumb(1_000_000, 2, 8_000_000, 3, 107_160),
        forecast=Forecast(
            peak.allocated_bytes,
            None,
            None,
            None,
            peak.phase,
            peak.address,
            {"activation": 20_000_000, "optimizer-state": 40_000},
            (
                LiveTensor(1_769_472, "activation", "", "conv1#1:convolution.1"),
                LiveTensor(512, "parameter", f"conv1.{HOSTILE}", ""),
            ),
            timeline,
            ("Reserved memory isn't forecast yet.",),
        ),
        findings=(_finding("conv-share", "info"), _finding("stem-share", "info")),
        assumptions=("Nothing was moved to another device.",),
    )


def _run(name, accuracies, diverged=None):
    epochs = tuple(
        EpochRecord(e, 10 * e, 2.3 / e, 0.1 * e, 2.2 / e, accuracy, None, 0.01, 210.0, 3.2)
        for e, accuracy in enumerate(accuracies, 1)
    )
    steps = tuple(StepRecord(s, 1 + s // 10, 2.3 / s, 0.1, 0.01) for s in range(1, 20))
    return Run(
        name=name,
        network="ZFNet",
        data="photos",
        classes=("cat", HOSTILE),
        config=TrainConfig(epochs=4),
        epochs=epochs,
        steps=steps,
        seconds=12.8,
        images_per_second=210.0,
        validation_accuracy=accuracies[-1] if accuracies else None,
        checkpoint=None,
        weights=None,
        best_weights=None,
        diverged=diverged,
    )


@pytest.fixture(scope="module")
def make_run():
    return _run


@pytest.fixture(scope="module")
def training():
    return norm_effect(
        "batch", _run("with", (0.31, 0.62, 0.83, 0.9)), _run("without", (0.1, 0.2, 0.41, 0.47)), 500
    )


@pytest.fixture(scope="module")
def checkup():
    layer = NormHealth(
        "bn1#1",
        "bn1",
        24,
        False,
        18_432,
        913.4,
        0.1,
        1e-5,
        120,
        0.12,
        0.03,
        0.27,
        0.05,
        2,
        1,
        (0.4, 0.97, 1.3),
        Channels(
            (0, 1, 5, 9),
            (0.1, -0.2, 0.3, 0.05),
            (0.12, -0.1, 0.9, 0.04),
            (0.02, 0.02, 0.03, 0.01),
            (1.0, 0.8, 1.1, 2.0),
            (1.1, 0.9, 4.0, 2.1),
            (0.05, 0.04, 0.05, 0.06),
            (1.0, 0.9, 0.0, 1.1),
            (0.1, 0.0, -0.2, 0.3),
            (False, False, True, False),
        ),
    )
    proof = Fingerprint("a1", "b2", "c3", "d4", "e5")
    own = {"number": (0, 1), "gamma": None, "beta": None, "dead": None}
    return Checkup(
        findings=(
            replace(
                _finding("stale-statistics", "warning", "bn1#1", 0.27, "1"),
                page="convscope checkup --explain stale-statistics",
            ),
            _finding("dead-gamma", "advice", "bn2#1"),
        ),
        gap=0.11,
        gap_error=0.02,
        eval_loss=0.52,
        batch_loss=0.41,
        layers=(
            layer,
            replace(
                layer,
                address=f"{HOSTILE}#1",
                momentum=None,
                gamma_range=None,
                mean_error=None,
                single=Channels(
                    mean=None,
                    running_mean=None,
                    mean_error=None,
                    variance=None,
                    running_variance=None,
                    variance_error=None,
                    **own,
                ),
            ),
        ),
        num_samples=500,
        num_batches=8,
        depth="data",
        unchecked=(Unchecked("micro-batch", "No training batch was given."),),
        expected=(_finding("young-statistics", "warning", f"{HOSTILE}#1"),),
        attribution=(
            LayerGap("bn1#1", "bn1", 0.1, 0.02),
            LayerGap(f"{HOSTILE}#1", HOSTILE, 0.06, 0.01, misled=True),
        ),
        state=StateProof(proof, proof, True),
        percentiles=tuple(
            Percentiles("bn1", 3, side, (0, 10, 20), (-1.0, -0.9, -1.1), (0.0, 0.1, 0.0), (1.0, 1.2, 0.9))
            for side in ("input", "output")
        ),
        loss_unit="nats",
    )


@pytest.fixture(scope="module")
def folded():
    timing = Timing(0.0123, 0.0119, 0.0131)
    return Folded(
        model=torch.nn.Identity(),
        ledger=Ledger(
            (
                LedgerEntry("bn1#1", "folded", "conv1#1", "", 3.1e-16, 4.2),
                LedgerEntry(
                    f"{HOSTILE}#1",
                    "kept",
                    reason="Its input is read by 2 operators.",
                    remedy=f"One operator {HOSTILE}.",
                ),
                LedgerEntry("bn3#1", "partial", "conv3#1", "its shift can't go", 0.0, 2.5),
            )
        ),
        max_error=3.4e-16,
        mean_error=1.1e-16,
        proof=Proof(
            True,
            1e-9,
            (OutputError("float64", 3.4e-16, 1.1e-16), OutputError("float32", 2.4e-7, 1e-7)),
            ("(8, 3, 96, 96)",),
            "Outputs before and after.",
        ),
        speed=Speed(
            timing,
            Timing(0.0098, 0.0094, 0.0102),
            1.25,
            1.21,
            1.31,
            20,
            "cpu",
            2,
            ("(8, 3, 96, 96)",),
            "In turn.",
            Timing(0.0096, 0.0093, 0.0104),
            1.02,
            0.99,
            1.04,
        ),
    )


@pytest.fixture(scope="module")
def stem():
    rings = (1 / 17,) * 17
    filters = tuple(
        Filter(
            i, 0.1 + 0.01 * i, 1 + 0.1 * i, 0.2, 3.0 - i, i == 3, 0.2, False, 0.25, 0.75, 0.125 * i,
            1.5 if i else None, rings, None,
        )
        for i in range(4)
    )  # fmt: skip
    spreads = [Spread(middle, middle - 0.05, middle + 0.05) for middle in (0.21, 0.26, 0.11, 0.75)]
    conv = Aliasing(
        "conv1", "conv1#1:convolution.1", "convolution", (7, 7), (2, 2), spreads[0], spreads[1], spreads[0],
        spreads[2], spreads[3], 64, "",
    )  # fmt: skip
    pool = replace(
        conv, name=f"pool {HOSTILE}", address="pool1#1:max_pool2d_with_indices.1", kind="max-pool",
        filter_share=None, activated=None, unactivated=None,
    )  # fmt: skip
    small = replace(conv, name="conv9", address="conv9#1:convolution.1", share=None, reason="too small")
    layers = tuple(
        LayerShift(f"conv{i}", f"conv{i}#1:convolution.1", (2, 2), (24, 24), distance, 0.6, i == 3)
        for i, distance in enumerate((0.2, 0.5, None, 0.4))
    )
    return Stem(
        grid=torch.rand(15, 15, 3),
        name="conv1",
        address="conv1#1:convolution.1",
        unit_address="relu1#1",
        kernel=(7, 7),
        stride=(2, 2),
        num_images=500,
        num_spectra=64,
        input_rms=1.01,
        input_range=2.6,
        radius=4.92,
        is_folded=True,
        activated_share=0.26,
        filter_share=0.75,
        duplicates=((0, 2),),
        coverage=Coverage(
            tuple(
                Octave(low, high, share, 0.2, 0.1)
                for low, high, share in (
                    (0.0, 0.03125, 0.05),
                    (0.03125, 0.0625, 0.1),
                    (0.0625, 0.125, 0.2),
                    (0.125, 0.25, 0.3),
                    (0.25, 0.5**0.5, 0.35),
                )
            ),
            0.125,
            0.4,
        ),
        smaller=(WhatIf((2, 2), 0.15, (5, 5), 0.6, 0.75, (48, 48), 0.53),),
        operators=(conv, pool, small),
        left_out=(f"slice {HOSTILE}: isn't run dense",),
        shifts=Shifts(layers, 0.95, 0.9, 12, 32),
        lattices=(
            Lattice("maps", "conv2#1:convolution.1", (2, 2), 1.2, 0.3, ""),
            Lattice("projections", "conv2#1:convolution.1", (4, 4), None, None, "too small"),
        ),
        aliased_share=0.21,
        filters=filters,
        what_if=tuple(
            WhatIf((step, step), share, (7, 7), 1.0, 1.0, (96 // step, 96 // step), (2 / step) ** 2)
            for step, share in ((1, 0.0), (2, 0.21), (4, 0.55))
        ),
        findings=(_finding("dead-filters", "warning", "conv1#1"),),
    )


def _gallery(folder, units=40):
    sprite = Sprite((), (), 28, 3, 4, 16, "colours as they are", "0.5 + x / (2 max|x|)")
    census = Census(("relu1#1:relu.1",), (), (f"gate {HOSTILE}",), (), (), (), 2, 1)
    made = tuple(
        Unit(
            i,
            i % 8 == 3,
            i % 8 == 4,
            False,
            0.0 if i % 8 == 3 else 3.25 + i,
            -0.5,
            0.4,
            0.0 if i % 8 == 3 else 0.75,
            0.0 if i % 8 == 3 else 0.25,
            None if i % 8 == 3 else Scores(0.5, 0.25, 0.125, 0.0625),
            () if i % 8 == 3 else (Example(7, HOSTILE, 3.25 + i, (4, 5), Box(0, 1, 7, 8)),),
        )
        for i in range(units)
    )
    layers = tuple(
        Layer(
            name,
            f"{name}#1:convolution.1",
            "relu1#1:relu.1",
            (48, 48),
            ReceptiveField((7, 7), (2, 2), (-1, -1)),
            made,
            replace(
                sprite,
                patches=tuple(f"{name}-patches-{file}.webp" for file in range(3)),
                projections=tuple(f"{name}-projections-{file}.webp" for file in range(3)),
            ),
            None,
            census,
            (8, 8),
            0,
            0.6,
            0.0,
            0.5,
            0.25,
        )
        for name in ("conv1", "conv2")
    )
    gallery = Gallery(
        "deconvnet",
        f"it suits {HOSTILE}",
        9,
        500,
        (Damage(f"{HOSTILE}.jpg", "it is empty"),),
        (96, 96),
        layers,
        ("fc6: not maps over the image",),
        str(folder),
        "0123abcd",
        "4567cdef",
        "index.json",
        "gallery.js",
        "units.safetensors",
        (_finding("no-switches", "warning", "conv1#1", 0.0, "1"),),
    )
    folder.mkdir(parents=True)
    for layer in layers:
        for number, name in enumerate((*layer.sprite.patches, *layer.sprite.projections)):
            rows = 2 if number % 3 == 2 else 4  # the last file has the last eight of 40 units
            Image.effect_noise((4 * 84, rows * 84), 80).convert("RGB").save(folder / name)
    text = json.dumps(gallery.to_dict()).replace("</", "<\\/")
    (folder / "gallery.js").write_text(f"window.convscopeGallery = {text};\n")
    return gallery


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    return _gallery(tmp_path_factory.mktemp("report") / "gallery")


@pytest.fixture(scope="module")
def report(cost, training, checkup, folded, stem, gallery):
    folder = Path(gallery.folder).parent
    made = Report(
        subject=Subject(
            "zfnet",
            (3, 96, 96),
            8,
            "batch",
            0.25,
            f"trained here, {HOSTILE}",
            "photos",
            ("cat", HOSTILE),
            2000,
            500,
            imbalance=f"cat has 3 times as many training images as {HOSTILE} (1,500 against 500)",
        ),
        cost=cost,
        published=replace(cost, batch_size=128),
        training=training,
        checkup=checkup,
        folded=folded,
        stem=stem,
        gallery=gallery,
        findings=(),
        missing=(Part("twin", "No twin for <b>this</b> one."),),
        page=str(folder / "index.html"),
        folder=str(folder),
        seconds=251.3,
        versions={"convscope": "0.1.0", "torch": "2.13.0", "python": "3.11.2"},
    )
    return replace(made, findings=rank(findings_of(made)))
