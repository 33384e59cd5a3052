"""Multiply–accumulates and gates of fused recurrent layers.

Recurrent layers that run step by step (GRUs on the CPU, cells in a loop) need no rule here: their operators
have their own.
"""

from math import prod

from convscope.cost.arithmetic.elementwise import elementwise_rule
from convscope.cost.arithmetic.flops import Gradients, backward_rule, macs_rule
from convscope.cost.arithmetic.rules import OperatorShapes


@macs_rule("mkldnn_rnn_layer")
def recurrent_layer(call: OperatorShapes) -> int:
    """One direction of one layer: every step multiplies the input and the state with their weights."""
    steps, batch = call.shape("input")[:2]
    return steps * batch * (prod(call.shape("weight0")) + prod(call.shape("weight1")))


@backward_rule("mkldnn_rnn_layer_backward")
def recurrent_layer_backward(call: OperatorShapes) -> Gradients:
    """As much as the forward pass for each kind of gradient; the operator computes both, asked for or not."""
    steps, batch = call.shape("input")[:2]
    each = steps * batch * (prod(call.shape("weight1")) + prod(call.shape("weight2")))
    return Gradients(input=each, weight=each)


@elementwise_rule("mkldnn_rnn_layer")
def gates(call: OperatorShapes) -> int:
    """Per unit and step: four sums, three sigmoids (4), two hyperbolic tangents, three products and a sum."""
    steps, batch = call.shape("input")[:2]
    return 22 * int(steps * batch * call.argument("hidden_size"))
