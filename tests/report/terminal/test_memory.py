"""The largest batch and the remedies in the terminal, from made-up numbers."""

from dataclasses import replace

import pytest

from convscope.cost.batch.values import Assumptions, BatchBound, Binding, LargestBatch
from convscope.cost.remedies.values import Explanation, Remedy

MIB, GIB = 2**20, 2**30


def _bound(batch, holes=(), exact=True):
    assumed = Assumptions("where they fit", 300 * MIB, 0, 0)
    peaks = (3 * GIB, 4 * GIB, 5 * MIB) if batch else (None, None, None)
    return BatchBound(batch, batch + 1, batch // 8 * 8, holes, 2000, exact, assumed, 7 * GIB, *peaks)


@pytest.fixture
def fit():
    binds = Binding(900, "activations", "backward", "conv2#1:x.1", 3 * GIB, GIB, {"activation": 3 * GIB})
    return LargestBatch(
        "net", "adamw, fp32", 8 * GIB, "cuda", "sm90",
        _bound(512), _bound(1045, (1042,)), _bound(1119, (), False), binds,
        1, 918 * MIB, 65536, (512, 513), "",
    )  # fmt: skip


def test_largest_batch(fit):
    text = str(fit)
    assert "net: the largest batch in 8.00 GiB on cuda (sm90), adamw, fp32" in text
    for word in (
        "1,045",
        "1,046",
        "1,040",
        "3.00 GiB",
        "5.00 MiB",
        "workspaces where they fit, context 300 MiB",
    ):
        assert word in text, word
    assert "3.00 GiB (75.0 %) of 4.00 GiB in tensors grow with the batch, 1.00 GiB don't" in text
    assert "in pieces there): 1042" in text
    words = " ".join(text.split())
    assert "1,119 fits and the next 8 batches don't; a larger one up to 2,000 may fit" in words
    assert "above 2,000 the tensors alone need more than there is" in words
    assert "beside them" not in words
    assert "the search ends" not in text
    assert "equal to recordings at 512, 513" in text
    assert "every batch was recorded, because of it" in str(replace(fit, recorded_because="of it"))


@pytest.mark.parametrize(
    ("bound_by", "words"),
    [
        ("tensors", "above 2,000 the tensors alone need more than there is"),
        ("more hopeful answer", "above 2,000 none fits even under the row below"),
        ("max_batch", "above 2,000 none was to be tried (--most)"),
    ],
)
def test_why_the_search_went_no_higher(fit, bound_by, words):
    text = str(replace(fit, optimistic=replace(fit.optimistic, bound_by=bound_by)))
    assert words in " ".join(text.split())


def test_an_answer_that_a_more_hopeful_one_caps_says_so(fit):
    """It may stop later than at the next batch: fitting isn't monotone."""
    likely = replace(fit.likely, batch=1119, bound=1119, stops_at=1123, bound_by="more hopeful answer")
    words = " ".join(str(replace(fit, likely=likely)).split())
    assert "likely the same batch as in the row below: no larger one fits there" in words
    assert "stops at: the first larger batch that doesn't fit" in words


def test_what_is_allocated_beside_tensors_and_what_was_assumed_is_told(fit):
    binds = replace(fit.binds, workspace_bytes=2 * GIB)
    words = " ".join(str(replace(fit, binds=binds, assumptions=("self#1 took the way of False",))).split())
    assert "1.00 GiB don't; beside them 2.00 GiB of workspaces" in words
    assert "assumed self#1 took the way of False" in words


def test_the_cap_is_named(fit):
    most = replace(fit.optimistic, bound=1119, bound_by="max_batch", exact=True)
    text = " ".join(str(replace(fit, max_batch=1119, optimistic=most)).split())
    assert "optimistic the search ends at --most 1,119 (max_batch), which fits: larger" in text


def test_largest_batch_on_cpu_and_none(fit):
    none = replace(fit, device="cpu", gpu=None, safe=_bound(0), likely=_bound(0), optimistic=_bound(0))
    text = str(none)
    assert "on cpu, adamw" in text
    assert "context" not in text
    assert "a batch of 1 fits from 918MiB on" in " ".join(text.split())


@pytest.mark.parametrize("kind", ["activations", "parameters", "optimizer"])
def test_what_binds_is_said_in_words(fit, kind):
    said = {
        "activations": "activation-bound",
        "parameters": "parameter-bound",
        "optimizer": "optimizer-bound",
    }
    assert said[kind] in str(replace(fit, binds=replace(fit.binds, kind=kind)))


def _remedy(name, saved, note="", impossible=""):
    if impossible:
        return Remedy(name, "does it", "write it", True, note, None, None, None, None, None, None, impossible)
    return Remedy(name, "does it", "write it", True, note, GIB - saved, GIB, saved, 0, saved / GIB, 0.241)


def test_remedies():
    found = Explanation("net", 32, GIB, 2 * GIB, "backward", "conv1#1:x.1", (
        _remedy("checkpoint:layer1", 512 * MIB, "statistics twice"), _remedy("fused", 0),
        _remedy("group-norm", -MIB), _remedy("amp-fp16", 0, impossible="no autocast"),
    ))  # fmt: skip
    text = str(found)
    assert "net: what would lower the peak of 1.00 GiB at a batch of 32, in backward at conv1#1:x.1" in text
    for word in ("512 MiB", "50.0 %", "+24.1 %", "yes", "checkpoint:layer1: write it", "statistics twice"):
        assert word in text, word
    assert "no effect: fused" in text
    assert "1.00 MiB more: group-norm" in text
    assert "not possible: amp-fp16: no autocast" in text
    assert "nothing that was tried" in str(replace(found, remedies=found.remedies[1:]))
