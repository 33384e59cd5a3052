"""Attention as CUDA runs it: which operators, and what they keep, worked out by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from convscope.tape import TrainingPlan, record

BATCH, HEADS, QUERIES, CHANNELS = 2, 4, 50, 64
FLASH = "aten._scaled_dot_product_flash_attention.default"
EFFICIENT = "aten._scaled_dot_product_efficient_attention.default"


class Attention(nn.Module):
    """Self-attention over the input, with a learnt bias if asked for."""

    def __init__(self, bias=False, mask=None, **options):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(1, HEADS, QUERIES, QUERIES)) if bias else None
        self.mask, self.options = mask, options

    def forward(self, x):
        x = x * self.weight.to(x.dtype)
        mask = self.mask if self.bias is None else self.bias
        return F.scaled_dot_product_attention(x, x, x, attn_mask=mask, **self.options)


def _tape(module, channels=CHANNELS, precision="fp32", device="cuda", dtype=torch.float32):
    inputs = torch.zeros(BATCH, HEADS, QUERIES, channels, dtype=dtype)
    plan = TrainingPlan("sgd", precision, loss=lambda y: y.float().sum())
    return record(module, inputs, plan, device=device)


def _kernels(tape):
    return [call.overload for call in tape.calls if call.op == "attention"]


def test_half_precision_without_a_mask_is_flash_attention():
    tape = _tape(Attention(), precision="amp-fp16")
    assert _kernels(tape) == [FLASH]
    (call,) = (call for call in tape.calls if call.op == "attention")
    # Kept: the inputs, cast one by one (casts are shared for parameters only), the result, a float32 per
    # query, and three numbers of the random state.
    saved = {tape.values[value].storage for value in call.saved}
    elements = BATCH * HEADS * QUERIES
    expected = 4 * 2 * elements * CHANNELS + 4 * elements + 3 * 8
    assert sum(tape.storages[index].nbytes for index in saved) == expected


def test_float32_is_memory_efficient_attention():
    tape = _tape(Attention())
    assert _kernels(tape) == [EFFICIENT]
    (call,) = (call for call in tape.calls if call.op == "attention")
    saved = {tape.values[value].storage for value in call.saved}
    # The float32 per query is kept for 64 queries: the kernel rounds 50 up to a multiple of 32.
    inputs_and_result = 2 * 4 * BATCH * HEADS * QUERIES * CHANNELS
    assert sum(tape.storages[i].nbytes for i in saved) == inputs_and_result + 4 * BATCH * HEADS * 64 + 2 * 8


@pytest.mark.parametrize("precision", ["fp32", "amp-bf16"])
@pytest.mark.parametrize(
    "options",
    [
        {"bias": True},
        {"bias": True, "dropout_p": 0.1},
        {"mask": torch.ones(QUERIES, QUERIES, dtype=torch.bool)},
        {"mask": torch.zeros(BATCH, 1, 1, QUERIES)},
    ],
)
def test_masks_are_for_memory_efficient_attention(options, precision):
    tape = _tape(Attention(**options), precision=precision)
    assert _kernels(tape) == [EFFICIENT]
    assert "bmm" not in {call.op for call in tape.calls}
    (call,) = (call for call in tape.calls if call.op == "attention")
    # 50 numbers a row don't begin where the kernel reads: the mask lies in rows of 56.
    mask = tape.values[call.tensor("attn_bias")]
    assert (mask.shape, mask.stride[-2] % 8) == ((BATCH, HEADS, QUERIES, QUERIES), 0)
    if "bias" in options:
        gradients = [storage for storage in tape.storages if storage.role == "gradient"]
        assert {storage.name for storage in gradients} == {"weight", "bias"}


@pytest.mark.parametrize("precision", ["fp32", "amp-fp16"])
def test_dropout_stays_inside_the_fused_kernels(precision):
    tape = _tape(Attention(dropout_p=0.1), precision=precision)
    assert _kernels(tape) == [EFFICIENT if precision == "fp32" else FLASH]
    assert max(storage.nbytes for storage in tape.storages) < 4 * BATCH * HEADS * QUERIES * QUERIES * 2
    # On the CPU the scores are kept, as PyTorch does there.
    assert "_safe_softmax" in {call.op for call in _tape(Attention(dropout_p=0.1), device="cpu").calls}


def test_odd_head_sizes():
    # Flash attention pads heads to a multiple of 8; the memory-efficient kernel asks for 16 bytes.
    padded = _tape(Attention(), channels=20, precision="amp-bf16")
    (call,) = (call for call in padded.calls if call.op == "attention")
    assert padded.values[call.inputs[0]].shape[-1] == 24
    assert padded.values[padded.outputs[0]].shape[-1] == 20
    assert _kernels(_tape(Attention(), channels=20)) == [EFFICIENT]
    assert _kernels(_tape(Attention(), channels=18)) == []
    assert _kernels(_tape(Attention(), channels=264, precision="amp-bf16")) == [EFFICIENT]


def test_what_no_fused_kernel_takes_is_computed_in_steps():
    for tape in (_tape(Attention(), dtype=torch.float64), _tape(Attention(bias=True), channels=18)):
        assert {"bmm", "_safe_softmax"} <= {call.op for call in tape.calls}


class Grouped(nn.Module):
    """Attention whose keys and values have a quarter of the queries' heads."""

    def __init__(self):
        super().__init__()
        sizes = (BATCH, 8, QUERIES, CHANNELS), *2 * [(BATCH, 2, QUERIES, CHANNELS)]
        self.q, self.k, self.v = (nn.Parameter(torch.zeros(size)) for size in sizes)

    def forward(self, x):
        return F.scaled_dot_product_attention(self.q * x, self.k * x, self.v * x, enable_gqa=True)


@pytest.mark.parametrize(("precision", "kernels"), [("fp32", []), ("amp-fp16", [FLASH])])
def test_grouped_queries_are_for_flash_attention_or_steps(precision, kernels):
    tape = record(Grouped(), (1,), TrainingPlan("sgd", precision, loss=lambda y: y.float().sum()))
    assert _kernels(tape) == kernels
    assert tape.values[tape.outputs[0]].shape == (BATCH, 8, QUERIES, CHANNELS)
    gradients = {storage.name: storage.nbytes for storage in tape.storages if storage.role == "gradient"}
    nbytes = 4 * BATCH * QUERIES * CHANNELS
    assert gradients == {"q": 8 * nbytes, "k": 2 * nbytes, "v": 2 * nbytes}


def test_attention_in_steps_draws_fused_dropout():
    dropped, whole = (_tape(Attention(dropout_p=p), channels=18) for p in (0.1, 0.0))
    assert "bernoulli_" not in {call.op for call in dropped.calls}
    (mask,) = (call.outputs[1] for call in dropped.calls if call.op == "native_dropout")
    assert dropped.values[mask].shape[-2:] == (QUERIES, QUERIES)
    same = [call.op for call in dropped.in_phase("forward") if call.op not in ("native_dropout", "view")]
    views = ("view", "_unsafe_view")
    assert same == [call.op for call in whole.in_phase("forward") if call.op not in views]


def test_causal_attention_and_scale_are_passed_on():
    (call,) = (c for c in _tape(Attention(is_causal=True, scale=0.5)).calls if c.op == "attention")
    assert (call.arguments["is_causal"], call.arguments["scale"]) == (True, 0.5)


def test_the_users_choice_of_kernels_is_respected():
    with sdpa_kernel(SDPBackend.MATH):
        assert _kernels(_tape(Attention(), precision="amp-fp16")) == []
    with sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION):
        assert _kernels(_tape(Attention(), precision="amp-fp16")) == [EFFICIENT]


def test_inference_keeps_nothing_per_query():
    tape = record(Attention(), (BATCH, HEADS, QUERIES, CHANNELS))
    (call,) = (call for call in tape.calls if call.op == "attention")
    assert tape.values[call.outputs[1]].shape == (BATCH, HEADS, 0)


def test_layers_run_in_parts_in_inference_too():
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    for device in ("cuda", "cpu"):
        operators = {call.op for call in record(layer, (2, 10, 32), device=device).calls}
        assert "attention" in operators
    assert torch.backends.mha.get_fastpath_enabled()


def test_the_layer_that_calls_it_inside_pytorch_is_covered():
    layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1, batch_first=True)
    tape = record(layer, (2, 10, 32), TrainingPlan(precision="amp-fp16", loss=lambda y: y.float().sum()))
    assert _kernels(tape) == [FLASH]
    assert "bernoulli_" not in {call.op for call in tape.calls}
