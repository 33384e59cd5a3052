"""Blocks with gates, denominators and statistics, as written and with a stop at what is frozen.

Called with ``stop=torch.Tensor.detach``, a network is its own oracle: autograd's gradient through it is the
projection with these frozen.
"""

import torch
import torch.nn.functional as F
from torch import nn

from convscope.norm import GroupNorm, LayerNorm


class Block(nn.Module):
    """A convolution, any block of maps, a convolution; ``stop`` stands at what is frozen."""

    def __init__(self, block):
        super().__init__()
        self.first, self.last, self.block = nn.Conv2d(2, 8, 3), nn.Conv2d(8, 4, 3), block
        self.squeeze, self.spot = nn.Linear(8, 8), nn.Conv2d(2, 1, 3, padding=1)
        self.norm, self.own_group, self.own_layer = nn.GroupNorm(2, 8), GroupNorm(2, 8), LayerNorm([8])
        for parameter in self.parameters():
            nn.init.normal_(parameter, 0, 0.5)
        self.own_group.load_state_dict(self.norm.state_dict())

    def forward(self, x, stop=None):
        y = self.first(x)
        is_as_written = stop is None
        return self.last(self.block(self, y, stop or (lambda t: t), is_as_written))


def columns(values):
    return values[:, :, None, None]


def affine(net, y):
    return y * net.norm.weight[:, None, None] + net.norm.bias[:, None, None]


def gate(net, y):
    return torch.sigmoid(net.squeeze(F.silu(y.mean((2, 3)))))


def standardised(y, dims, stop):
    mean = stop(y.mean(dims, keepdim=True))
    return (y - mean) / stop((y.var(dims, unbiased=False, keepdim=True) + 1e-5).sqrt())


def squeeze_excite(net, y, stop, _):
    return y * stop(columns(gate(net, y)))


def in_place(net, y, stop, _):
    y = y * 1.0
    return y.mul_(stop(columns(gate(net, y))))


def in_place_on_a_part(net, y, stop, _):
    y = y * 1.0
    y[:, :8] *= stop(columns(gate(net, y)))
    return y


def gate_first(net, y, stop, _):
    return stop(columns(gate(net, y))) * y


def expanded(net, y, stop, _):
    return y * stop(columns(gate(net, y)).expand_as(y))


def hard_gate(net, y, stop, _):
    return y * stop(F.hardsigmoid(columns(net.squeeze(y.mean((2, 3))))))


def residual_gate(net, y, stop, _):
    return y * stop(1 + torch.tanh(net.squeeze(y.mean((2, 3))))[:, :, None, None])


def broadcasting_factor(net, y, stop, _):
    return y * stop(columns(net.squeeze(y.mean((2, 3)))))


def spatial(net, y, stop, _):
    return y * stop(torch.sigmoid(net.spot(torch.stack([y.mean(1), y.amax(1)], 1))))


def enlarged_gate(net, y, stop, _):
    small = torch.sigmoid(F.avg_pool2d(y, 2))
    return y * stop(F.interpolate(small, y.shape[2:], mode="nearest"))


def two_products_with_one_gate(net, y, stop, _):
    shared = stop(columns(gate(net, y)))
    return y * shared + (y.flip(3) * shared) * 2


def selective_kernels(net, y, stop, _):
    paths = torch.stack([y, y.flip(1)], 1)
    choice = torch.stack([gate(net, y), gate(net, y) * 2], 1).softmax(1)
    return (paths * stop(choice[..., None, None])).sum(1)


def linear_unit(net, y, stop, as_written):
    both = torch.cat([y, y.flip(2)], 1)
    if as_written:
        return F.glu(both, 1)
    data, switch = both.chunk(2, 1)
    return data * stop(switch.sigmoid())


def linear_unit_by_halves(net, y, stop, _):
    data, switch = torch.cat([y, y.flip(2)], 1).chunk(2, 1)
    return data * stop(switch.sigmoid())


def group_norm(net, y, stop, as_written):
    if as_written:
        return net.norm(y)
    return affine(net, standardised(y.unflatten(1, (2, 4)), (2, 3, 4), stop).flatten(1, 2))


def own_group_norm(net, y, stop, as_written):
    return net.own_group(y) if as_written else group_norm(net, y, stop, False)


def instance_norm(net, y, stop, as_written):
    if as_written:
        return F.instance_norm(y, weight=net.norm.weight, bias=net.norm.bias)
    return affine(net, standardised(y, (2, 3), stop))


def batch_norm_of_one_image(net, y, stop, as_written):
    if as_written:
        return F.batch_norm(y, None, None, net.norm.weight, net.norm.bias, training=True)
    return affine(net, standardised(y, (2, 3), stop))


def layer_norm(net, y, stop, as_written):
    if as_written:
        last = F.layer_norm(y.permute(0, 2, 3, 1), (8,), net.norm.weight, net.norm.bias)
        return last.permute(0, 3, 1, 2)
    return affine(net, standardised(y, 1, stop))


def own_layer_norm(net, y, stop, as_written):
    if as_written:
        return net.own_layer(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    scaled = standardised(y, 1, stop) * net.own_layer.weight[:, None, None]
    return scaled + net.own_layer.bias[:, None, None]


def layer_norm_of_all(net, y, stop, as_written):
    return F.layer_norm(y, y.shape[1:]) if as_written else standardised(y, (1, 2, 3), stop)


def layer_norm_written_out(net, y, stop, _):
    mean = stop(y.mean(1, keepdim=True))
    variance = stop((y - y.mean(1, keepdim=True)).pow(2).mean(1, keepdim=True))
    return affine(net, (y - mean) / torch.sqrt(variance + 1e-5))


def norm_by_both_moments(net, y, stop, _):
    variance, mean = torch.var_mean(y, (2, 3), keepdim=True)
    return (y - stop(mean)) * stop((variance + 1e-5).rsqrt())


def root_mean_square_norm(net, y, stop, as_written):
    if as_written:
        return F.rms_norm(y, y.shape[1:], eps=1e-6)
    return y * stop((y.pow(2).mean((1, 2, 3), keepdim=True) + 1e-6).rsqrt())


def global_response_norm(net, y, stop, _):
    size = y.norm(p=2, dim=(2, 3), keepdim=True)
    share = stop(size / (size.mean(1, keepdim=True) + 1e-6))
    return y + torch.addcmul(net.norm.bias[:, None, None], net.norm.weight[:, None, None], y * share)


def unit_length(net, y, stop, as_written):
    return F.normalize(y, dim=1) if as_written else y / stop(y.norm(dim=1, keepdim=True))


def tokens(y):
    return y.flatten(2).transpose(1, 2)


def attention(net, y, stop, _):
    seen = tokens(y)
    weights = stop(torch.softmax(net.squeeze(seen) @ seen.transpose(1, 2) / 3, -1))
    return (weights @ (2 * seen)).transpose(1, 2).reshape(y.shape) + y


def dot_product_attention(net, y, stop, as_written):
    seen = tokens(y)
    if as_written:
        out = F.scaled_dot_product_attention(net.squeeze(seen), seen, 2 * seen, scale=1 / 3)
        return out.transpose(1, 2).reshape(y.shape) + y
    return attention(net, y, stop, False)


def attention_over_channels(net, y, stop, _):
    seen = y.flatten(2)
    return (stop(torch.softmax(seen @ seen.transpose(1, 2) / 9, -1)) @ (2 * seen)).reshape(y.shape)


def pooled_by_attention(net, y, stop, _):
    seen = y.flatten(2)
    return y + columns(torch.einsum("ncp,np->nc", seen, stop(seen.mean(1).softmax(1))))


def weights_made_from_the_image(net, y, stop, _):
    return F.conv2d(y, stop(net.squeeze(y.mean((2, 3))).view(8, 1, 1, 1)), groups=8)


def sampled_at_made_places(net, y, stop, _):
    places = torch.stack([torch.tanh(y[:, 0]), torch.tanh(y[:, 1])], -1)
    return F.grid_sample(y, stop(places), align_corners=False)


def chosen_by_the_mean(net, y, stop, _):
    return torch.where(stop(y.mean((2, 3), keepdim=True)) > 0, y, 2 * y)


BLOCKS = [
    squeeze_excite, in_place, in_place_on_a_part, gate_first, expanded, hard_gate, residual_gate,
    broadcasting_factor, spatial, enlarged_gate, two_products_with_one_gate, selective_kernels, linear_unit,
    linear_unit_by_halves, group_norm, own_group_norm, instance_norm, batch_norm_of_one_image, layer_norm,
    own_layer_norm, layer_norm_of_all, layer_norm_written_out, norm_by_both_moments, root_mean_square_norm,
    global_response_norm, unit_length, attention, dot_product_attention, attention_over_channels,
    pooled_by_attention, weights_made_from_the_image, sampled_at_made_places, chosen_by_the_mean,
]  # fmt: skip
