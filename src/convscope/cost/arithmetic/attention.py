"""Multiply–accumulates and softmax of attention, under every name that PyTorch's back ends give it.

Attention that runs as matrix products and a softmax of its own (the ``math`` back end, and networks that
write it out) needs no rule here. Causal masks and windows save nothing, by convention. Sequences packed
end to end count as if each had as many keys as the longest.
"""

from math import prod

from convscope.cost.arithmetic.elementwise import elementwise_rule
from convscope.cost.arithmetic.flops import Gradients, backward_rule, macs_rule
from convscope.cost.arithmetic.rules import OperatorShapes

# Heads before positions: (batch, heads, positions, depth).
_FUSED = ("attention", "_scaled_dot_product_fused_attention_overrideable")
# Positions before heads: (batch, positions, heads, depth), or all sequences end to end without a batch.
_POSITIONS_FIRST = ("_flash_attention_forward", "_efficient_attention_forward")
_MULTI_HEAD = "_native_multi_head_attention"
_ENCODER_LAYER = "_transformer_encoder_layer_fwd"

_MASKS = ("attn_mask", "attn_bias", "bias", "mask")


@macs_rule(*_FUSED, *_POSITIONS_FIRST)
def attention(call: OperatorShapes) -> int:
    """Scores Q Kᵀ and mixture P V, over all pairs of positions."""
    scores, mixture = _products(call)
    return scores + mixture


@backward_rule(
    "_scaled_dot_product_flash_attention_backward",
    "_scaled_dot_product_flash_attention_for_cpu_backward",
    "_scaled_dot_product_efficient_attention_backward",
    "_scaled_dot_product_cudnn_attention_backward",
    "_scaled_dot_product_fused_attention_overrideable_backward",
    "_flash_attention_backward",
    "_efficient_attention_backward",
)
def attention_backward(call: OperatorShapes) -> Gradients:
    """A mixture each for dV and dP, the scores each for dQ and dK; the scores are computed again."""
    scores, mixture = _products(call)
    operands = (("query", scores), ("key", scores), ("value", mixture))
    return Gradients(input=mixture, recomputed=scores, operands=operands)


@elementwise_rule(*_FUSED, *_POSITIONS_FIRST)
def attention_softmax(call: OperatorShapes) -> int:
    """Per score: scale (1), softmax (5), and with a mask that is added 1, with dropout 2."""
    return _pairs(call) * _per_score(call)


@macs_rule(_MULTI_HEAD)
def multi_head(call: OperatorShapes) -> int:
    """The projections of queries, keys, values and result, and the attention between them."""
    width, batch = int(call.argument("embed_dim")), call.shape("query")[0]
    queries, keys = call.shape("query")[1], call.shape("key")[1]
    projections = width * sum(prod(call.shape(name)) for name in ("query", "key", "value", "query"))
    return projections + 2 * batch * queries * keys * width


@elementwise_rule(_MULTI_HEAD)
def multi_head_softmax(call: OperatorShapes) -> int:
    """As attention's, for every head."""
    pairs = prod(call.shape("query")[:2]) * call.shape("key")[1] * int(call.argument("num_head"))
    return pairs * _per_score(call)


@macs_rule(_ENCODER_LAYER)
def encoder_layer(call: OperatorShapes) -> int:
    """Four projections, attention, and the two layers of the perceptron."""
    batch, positions, width = call.shape("src")
    perceptron = prod(call.shape("ffn_weight_1")) + prod(call.shape("ffn_weight_2"))
    return batch * positions * (4 * width * width + 2 * positions * width + perceptron)


@elementwise_rule(_ENCODER_LAYER)
def encoder_layer_elementwise(call: OperatorShapes) -> int:
    """Attention's softmax; two layer norms (8) and sums (1) an element; ReLU (1) or GELU (5) inside."""
    batch, positions, width = call.shape("src")
    scores = batch * int(call.argument("num_heads")) * positions * positions
    activation = 5 if call.argument("use_gelu") else 1
    hidden = call.shape("ffn_weight_1")[0]
    return scores * _per_score(call) + batch * positions * (18 * width + activation * hidden)


def _products(call: OperatorShapes) -> tuple[int, int]:
    """MACs of the scores and of the mixture."""
    pairs = _pairs(call)
    return pairs * call.shape("query")[-1], pairs * call.shape("value")[-1]


def _pairs(call: OperatorShapes) -> int:
    """Scores: a query, a key and a head each."""
    query, key = call.shape("query"), call.shape("key")
    if not call.call.op.startswith(("_flash_attention", "_efficient_attention")):
        return prod(query[:-1]) * key[-2]
    keys = key[-3]
    if len(query) == 3 or any(call.argument(name) for name in ("cum_seq_q", "cu_seqlens_q")):
        keys = next((k for k in map(call.argument, ("max_k", "max_seqlen_k")) if k is not None), keys)
    return prod(query[:-1]) * int(keys)


def _per_score(call: OperatorShapes) -> int:
    masked = any(call.call.tensor(name) is not None for name in _MASKS)
    return 6 + masked + (2 if call.argument("dropout_p") else 0)
