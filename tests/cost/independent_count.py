"""A second counter of multiply–accumulates: calls of Python functions, not dispatched operators.

It imports nothing from convscope and shares no idea with its tape. While a network runs, every function of
PyTorch's that is a sum of products (``conv2d``, ``linear``, ``@``, ``einsum``, attention, recurrent layers)
is counted from the shapes of what it was given. What backward costs follows from the graph that autograd
built, without running it: a product's gradients are taken if its result leads to the loss, each of them if
its operand requires a gradient, and each costs what the formulas here say.

Gradients are of a weight or of an input: what ``conv2d`` and ``linear`` call ``weight`` is one; in products
that name none, the factor that is computed from parameters alone (the second, where both are).
"""

from collections import Counter
from dataclasses import dataclass, field
from math import prod

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

_CONVOLUTIONS = {"conv1d", "conv2d", "conv3d"}
_TRANSPOSED = {"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}
# Positions of the two factors among the arguments; a bare product has no argument that is added.
_FACTORS = {
    "matmul": (0, 1), "__matmul__": (0, 1), "__rmatmul__": (1, 0), "mm": (0, 1), "bmm": (0, 1), "mv": (0, 1),
    "addmm": (1, 2), "addmm_": (1, 2), "baddbmm": (1, 2), "baddbmm_": (1, 2), "addbmm": (1, 2),
    "addmv": (1, 2), "dot": (0, 1), "inner": (0, 1),
}  # fmt: skip
_RECURRENT = {"lstm", "gru", "rnn_tanh", "rnn_relu"}
# Sums of products which this file has no formula for: a network that calls one isn't proved.
_UNKNOWN = {
    "tensordot", "chain_matmul", "bilinear", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell",
    "cdist", "multi_dot", "conv_tbc", "_native_multi_head_attention", "_transformer_encoder_layer_fwd",
    "convolution", "_convolution", "sparse_mm", "corrcoef", "cov", "vdot", "matrix_power", "pinverse", "svd",
}  # fmt: skip


@dataclass
class Product:
    """One function call: MACs forward, and of both kinds of gradients if the result leads to the loss."""

    name: str
    forward: int
    to_input: int
    to_weight: int
    nodes: list = field(default_factory=list)


@dataclass(frozen=True)
class Count:
    """Multiply–accumulates of one step, parameters (tied ones once), names of functions without formula."""

    forward: int
    to_input: int
    to_weight: int
    params: int
    unknown: tuple


class IndependentCount(TorchFunctionMode):
    """Counts the products of the functions called inside; see :func:`count`."""

    def __init__(self, model):
        super().__init__()
        self.products, self.unknown = [], Counter()
        # Held, so that no other tensor gets the place of one that the network replaces.
        self._buffers = {id(tensor): tensor for tensor in model.buffers()}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in _UNKNOWN:
            self.unknown[name] += 1
        product = self._product(name, args, kwargs)
        before = torch._C._autograd._get_sequence_nr()
        result = func(*args, **kwargs)
        tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        if product is not None:
            product = product(tensors)
            product.nodes = _made_since(before, [tensor.grad_fn for tensor in tensors])
            if not product.nodes:
                product.to_input = product.to_weight = 0
            self.products.append(product)
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        origins = {self._origin(tensor) for tensor in given}
        for tensor in tensors:
            # None wins over parameters, and these over constants, which is what comes from nothing.
            tensor._origin = None if None in origins else max(origins, default="constant")
        return result

    def of_parameters(self, tensor):
        """Whether a tensor is computed from parameters, with buffers and constants, alone."""
        return self._origin(tensor) == "parameter"

    def _origin(self, tensor):
        if isinstance(tensor, nn.Parameter):
            return "parameter"
        return "constant" if id(tensor) in self._buffers else getattr(tensor, "_origin", None)

    def _product(self, name, args, kwargs):
        """A function from the call's results to its product, or None."""
        if name in _CONVOLUTIONS | _TRANSPOSED:
            return self._convolution(name, *_named(args, kwargs, "input", "weight"))
        if name == "linear":
            return self._linear(*_named(args, kwargs, "input", "weight"))
        if name in _FACTORS:
            return self._matmul(name, args, kwargs)
        if name == "einsum":
            return self._einsum(*args)
        if name == "scaled_dot_product_attention":
            return self._attention(*_named(args, kwargs, "query", "key", "value"))
        if name == "multi_head_attention_forward":
            return self._multi_head(args, kwargs)
        if name in _RECURRENT:
            return self._recurrent(name, *args)
        return None

    def _convolution(self, name, x, weight):
        # A kernel's weights meet every position: of the result, or of the input if it is transposed.
        in_x, in_weight, kernel = needs(x), needs(weight), prod(weight.shape[1:])
        positions = None if name in _CONVOLUTIONS else x.numel()

        def finish(results):
            macs = (results[0].numel() if positions is None else positions) * kernel
            return Product(name, macs, macs * in_x, macs * in_weight)

        return finish

    def _linear(self, x, weight):
        macs = x.numel() * weight.shape[0] if weight.dim() == 2 else x.numel()
        return lambda _: Product("linear", macs, macs * needs(x), macs * needs(weight))

    def _matmul(self, name, args, kwargs):
        first, second = (
            (args[position] for position in _FACTORS[name]) if not kwargs else _keywords(args, kwargs)
        )
        split, length = self._split(first, second), first.shape[-1]
        rows = prod(first.shape[:-1]) * prod(second.shape[-1:]) if name == "addbmm" else None

        def finish(results):
            macs = (results[0].numel() if rows is None else rows) * length
            if name == "inner":
                macs = prod(first.shape) * prod(second.shape[:-1])
            return Product(name, macs, macs * split.count("input"), macs * split.count("weight"))

        return finish

    def _einsum(self, equation, *operands):
        operands = operands[0] if len(operands) == 1 and isinstance(operands[0], list | tuple) else operands
        if not isinstance(equation, str) or len(operands) != 2:
            if len(operands) > 1:
                self.unknown["einsum"] += 1
            return None
        macs = _contraction(equation, *operands)
        split = self._split(*operands)
        return lambda _: Product("einsum", macs, macs * split.count("input"), macs * split.count("weight"))

    def _attention(self, query, key, value):
        scores = query.numel() * key.shape[-2]
        mixture = prod(query.shape[:-1]) * prod(value.shape[-2:])
        # The probabilities need a gradient if the query or the key does.
        kinds = self._split(query, key)
        of_value = "weight" if self.of_parameters(value) else "input"
        parts = [(kind, scores) for kind in kinds if kind] + [(of_value, mixture)] * needs(value)
        parts += [("input", mixture)] * any(kinds)
        return lambda _: Product("attention", scores + mixture, _sum(parts, "input"), _sum(parts, "weight"))

    def _multi_head(self, args, kwargs):
        names = ("query", "key", "value", "embed_dim_to_check", "num_heads", "in_proj_weight", "in_proj_bias")
        names += ("bias_k", "bias_v", "add_zero_attn", "dropout_p", "out_proj_weight")
        given = {**dict(zip(names, args)), **kwargs}
        query, key, value, out = (given[name] for name in ("query", "key", "value", "out_proj_weight"))
        width = query.shape[-1]
        if given.get("use_separate_proj_weight"):
            weights = [given[name] for name in ("q_proj_weight", "k_proj_weight", "v_proj_weight")]
        else:
            weights = [given["in_proj_weight"]] * 3
        forward = to_input = to_weight = 0
        for x, weight in zip((query, key, value), weights):
            macs = x.numel() * width
            forward, to_input, to_weight = (
                forward + macs, to_input + macs * needs(x), to_weight + macs * needs(weight)
            )  # fmt: skip
        keys = key.shape[0] + (given["bias_k"] is not None) + bool(given["add_zero_attn"])
        scores = query.numel() * keys
        projected = any(map(needs, (query, key, value, *weights)))
        last = query.numel() * width
        forward += 2 * scores + last
        to_input += (4 * scores + last) * projected
        return lambda _: Product("multi_head", forward, to_input, to_weight + last * needs(out))

    def _recurrent(
        self, name, x, state, weights, has_biases, layers, dropout, train, bidirectional, batch_first
    ):
        steps = prod(x.shape[:-1])
        per_cell = len(weights) // (layers * (1 + bidirectional))
        forward = to_input = to_weight = 0
        for cell in range(layers * (1 + bidirectional)):
            from_input, from_state, *_ = weights[cell * per_cell : (cell + 1) * per_cell]
            macs = steps * (from_input.numel() + from_state.numel())
            forward += macs
            first = cell < 1 + bidirectional
            to_input += steps * (from_state.numel() + from_input.numel() * (needs(x) or not first))
            to_weight += macs * needs(from_input)
        return lambda _: Product(name, forward, to_input, to_weight)

    def _split(self, first, second):
        """The kind of each factor's gradient, None if it needs none."""
        of = [self.of_parameters(first), self.of_parameters(second)]
        kinds = ["input", "weight"] if all(of) else ["weight" if one else "input" for one in of]
        return [kind if needs(factor) else None for kind, factor in zip(kinds, (first, second))]


def count(model, *inputs, loss=None):
    """Run a model once and return the multiply–accumulates of a training step on it."""
    mode = IndependentCount(model)
    with torch.enable_grad(), mode:
        outputs = model(*inputs)
    roots = [outputs] if loss is None else [loss(outputs)]
    reached = _reached(tensor.grad_fn for tensor in tree_leaves(_plain(roots)) if _differentiable(tensor))
    backward = [p for p in mode.products if any(id(node) in reached for node in p.nodes)]
    return Count(
        forward=sum(product.forward for product in mode.products),
        to_input=sum(product.to_input for product in backward),
        to_weight=sum(product.to_weight for product in backward),
        params=sum(parameter.numel() for parameter in model.parameters()),
        unknown=tuple(sorted(mode.unknown)),
    )


def needs(tensor):
    """Whether autograd will compute a gradient with respect to a tensor."""
    return isinstance(tensor, torch.Tensor) and tensor.requires_grad


def _named(args, kwargs, *names):
    return [args[i] if i < len(args) else kwargs[name] for i, name in enumerate(names)]


def _keywords(args, kwargs):
    tensors = [leaf for leaf in (*args, *kwargs.values()) if isinstance(leaf, torch.Tensor)]
    return tensors[-2:]


def _sum(parts, kind):
    return sum(macs for name, macs in parts if name == kind)


def _contraction(equation, first, second):
    """Products of a contraction of two factors: the sizes of all axes, those that one factor sums alone left
    out; none if nothing is summed over both (an elementwise product)."""
    left, _, result = equation.replace(" ", "").partition("->")
    terms, sizes = [], {}
    for term, operand in zip(left.split(","), (first, second)):
        head, dots, tail = term.partition("...")
        missing = operand.dim() - len(head) - len(tail)
        axes = [*head, *(f".{i}" for i in range(missing, 0, -1) if dots), *tail]
        for axis, size in zip(axes, operand.shape):
            sizes[axis] = max(sizes.get(axis, 1), size)
        terms.append(set(axes))
    shown = set(result) - {"."} | {axis for axis in sizes if axis.startswith(".")}
    summed = (terms[0] & terms[1]) - shown
    if not any(sizes[axis] > 1 for axis in summed):
        return 0
    return prod(sizes[axis] for axis in summed | (shown & set(sizes)))


def _differentiable(leaf):
    return isinstance(leaf, torch.Tensor) and leaf.requires_grad and leaf.grad_fn is not None


def _plain(outputs):
    if isinstance(outputs, torch.Tensor | list | tuple | dict):
        return [_plain(item) for item in outputs] if isinstance(outputs, list) else outputs
    return list(vars(outputs).values())


def _made_since(sequence, roots):
    """The nodes that a call made: an in-place operator on its result may replace the last of them."""
    found, waiting = {}, [node for node in roots if node is not None]
    while waiting:
        node = waiting.pop()
        if id(node) not in found and not hasattr(node, "variable") and node._sequence_nr() >= sequence:
            found[id(node)] = node
            waiting += [following for following, _ in node.next_functions if following is not None]
    return list(found.values())


def _reached(roots):
    """The nodes of autograd's graph that lead to the roots, by id; kept alive by those that hold them."""
    reached, waiting = {}, list(roots)
    while waiting:
        node = waiting.pop()
        if id(node) not in reached:
            reached[id(node)] = node
            waiting += [following for following, _ in node.next_functions if following is not None]
    return reached
