"""Draw a residual stream of one channel before and after its batch norms are folded, with all gauges.

The network is built and folded here: what the lower panel says of every layer and every value is read off the
plan that `cs.fold` carries out. `tests/docs/` reads the picture back and computes both panels by hand.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

import convscope as cs
from convscope.fold.planning.plan import plan

NORMS = ((0.25, -1.0), (2.0, 4.0), (0.5, -1.0))  # s and t
LAYERS = {"stem": (2.0, 1.0), "conv1": (4.0, 0.0), "conv2": (-1.0, 2.0), "head": (5.0, 0.5)}  # W and c
WIDTH, PANEL = 1170, 182
STREAM, BRANCH = 66, 136  # heights within a panel
BOX, LAYER, RELU = 28, 72, 48
_STYLE = """
  svg { font-family: system-ui, "Segoe UI", "DejaVu Sans", Helvetica, Arial, sans-serif; }
  .paper { fill: #ffffff; } .ink { fill: #1f2328; } .soft { fill: #59636e; }
  .wire { stroke: #59636e; fill: none; stroke-width: 1.5; } .box { fill: #f6f8fa; stroke: #59636e; }
  .norm { fill: #fbe3c8; stroke: #a4561a; } .changed { fill: #d6e6fb; stroke: #2a62ad; }
  .gauge { fill: #2a62ad; } .title { font-size: 16px; font-weight: 600; }
  text { font-size: 13.5px; text-anchor: middle; } .left { text-anchor: start; }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #0d1117; } .ink { fill: #f0f6fc; } .soft { fill: #9198a1; }
    .wire { stroke: #9198a1; } .box { fill: #21262d; stroke: #9198a1; }
    .norm { fill: #5a3410; stroke: #d08a4d; } .changed { fill: #143762; stroke: #6ea8ee; }
    .gauge { fill: #6ea8ee; }
  }
"""


class Sum(nn.Module):
    """An addition with an address of its own."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the sum."""
        return x + y


class Stream(nn.Module):
    """Two pre-activation blocks of one channel; each step is a module, so that each value has an address."""

    def __init__(self) -> None:
        super().__init__()
        for name, (weight, bias) in LAYERS.items():
            layer = nn.Conv2d(1, 1, 1)
            with torch.no_grad():
                layer.weight.fill_(weight)
                layer.bias.fill_(bias)  # type: ignore[union-attr]
            self.add_module(name, layer)
        for number, (scale, shift) in enumerate(NORMS, 1):
            norm = nn.BatchNorm2d(1, eps=0.0)  # mean 0, variance 1
            nn.init.constant_(norm.weight, scale)
            nn.init.constant_(norm.bias, shift)
            self.add_module(f"norm{number}", norm)
            self.add_module(f"relu{number}", nn.ReLU())
        self.add1, self.add2 = Sum(), Sum()

    def forward(self, x: Tensor) -> Tensor:
        """Return what the head makes of the stream."""
        step = self.get_submodule
        x = step("stem")(x)
        for number in (1, 2):
            y = step(f"relu{number}")(step(f"norm{number}")(x))
            x = step(f"add{number}")(x, step(f"conv{number}")(y))
        return step("head")(step("relu3")(step("norm3")(x)))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Panel:
    """What one half of the picture says.

    Attributes:
        title: above it.
        layers: W and c, by the layer's name.
        gauges: a and b of the value that a module returns, by the module's name; empty before the fold.
    """

    title: str
    layers: dict[str, tuple[float, float]]
    gauges: dict[str, tuple[float, float]]


def panels() -> tuple[Panel, Panel]:
    """Return the network as it was and folded."""
    model, inputs = Stream().double().eval(), torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    planned = plan(cs.record(model, inputs), model)
    folded = cs.fold(model, inputs)
    assert folded.ledger.folded == len(NORMS)
    gauges = {}
    for name, _ in model.named_children():
        found = planned.gauge_at(f"{name}#1")
        assert found is not None
        gauges[name] = (found[0].item(), found[1].item())
    return (
        Panel("The network: v is the value on a wire", _numbers(model), {}),
        Panel("Folded: the value on the same wire, where it isn't v", _numbers(folded.model), gauges),
    )


def _numbers(model: nn.Module) -> dict[str, tuple[float, float]]:
    held = model.state_dict()
    return {name: (held[f"{name}.weight"].item(), held[f"{name}.bias"].item()) for name in LAYERS}


def linear(factor: float, term: float, of: str) -> str:
    """Return ``factor · of + term`` as it is written.

    Example:
        >>> linear(2.0, -1.5, "v"), linear(1.0, 0.0, "v"), linear(-1.0, 2.0, "x")
        ('2v − 1.5', 'v', '−x + 2')
    """
    before = {1.0: "", -1.0: "−"}.get(factor, f"{factor:g}".replace("-", "−"))
    return f"{before}{of}" + (f" {'−' if term < 0 else '+'} {abs(term):g}" if term else "")


def stream_picture() -> str:
    """Return both panels as SVG; elements carry in ``data-`` attributes what they show."""
    drawn = [_panel(panel, index * PANEL) for index, panel in enumerate(panels())]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {2 * PANEL}" width="{WIDTH}">\n'
        f"<style>{_STYLE}</style>\n"
        f'<rect class="paper" width="{WIDTH}" height="{2 * PANEL}"/>\n' + "".join(drawn) + "</svg>\n"
    )


def _panel(panel: Panel, top: int) -> str:
    """One panel: the stream above, the blocks below it."""
    parts = [f'<text class="ink title left" x="16" y="24">{panel.title}</text>']
    parts += [_wire((16, STREAM), (WIDTH - 16, STREAM)), _text(24, STREAM - 9, "x", "soft")]
    parts += _layer(panel, "stem", 84, STREAM, 35)
    for number, left in ((1, 186), (2, 572)):
        right = left + 316
        parts.append(_wire((left, STREAM), (left, BRANCH), (right, BRANCH), (right, STREAM + 9)))
        parts += _norm(panel, number, left + 46, BRANCH)
        parts += _relu(panel, number, left + 118, BRANCH)
        parts += _layer(panel, f"conv{number}", left + 216, BRANCH, 32)
        parts.append(f'<circle class="box" cx="{right}" cy="{STREAM}" r="9"/>')
        parts.append(_text(right, STREAM + 4, "+", "ink"))
        parts += _gauge(panel, f"add{number}", right + 40, STREAM)
    parts += _norm(panel, 3, 972, STREAM)
    parts += _relu(panel, 3, 1042, STREAM)
    parts += _layer(panel, "head", 1112, STREAM, 10)
    name = "folded" if panel.gauges else "before"
    body = "\n".join(parts)
    return f'<g data-panel="{name}" transform="translate(0 {top})">\n{body}\n</g>\n'


def _layer(panel: Panel, name: str, x: int, y: int, room: int) -> list[str]:
    """A layer; behind it is room for half a gauge."""
    weight, bias = panel.layers[name]
    kind = "changed" if (weight, bias) != LAYERS[name] else "box"
    made = _box(
        linear(weight, bias, "x"), kind, x, y, LAYER, f'data-layer="{name}" data-numbers="{weight} {bias}"'
    )
    return [*made, *_gauge(panel, name, x + LAYER // 2 + room, y)]


def _norm(panel: Panel, number: int, x: int, y: int) -> list[str]:
    if panel.gauges:  # it's gone; what reads its input reads on
        return []
    scale, shift = NORMS[number - 1]
    return _box(linear(scale, shift, "x"), "norm", x, y, LAYER, f'data-norm="norm{number}"')


def _relu(panel: Panel, number: int, x: int, y: int) -> list[str]:
    return [*_box("ReLU", "box", x, y, RELU, ""), *_gauge(panel, f"relu{number}", x + RELU // 2 + 19, y)]


def _gauge(panel: Panel, name: str, x: int, y: int) -> list[str]:
    """What the folded network computes on a wire, if it isn't the same."""
    gauge = panel.gauges.get(name, (1.0, 0.0))
    if not panel.gauges:
        return []
    above = 9 if y == STREAM else 19  # clear of the boxes
    shown = [] if gauge == (1.0, 0.0) else [_text(x, y - above, linear(*gauge, "v"), "gauge")]
    return [*shown, f'<metadata data-value="{name}" data-gauge="{gauge[0]} {gauge[1]}"/>']


def _box(text: str, kind: str, x: int, y: int, width: int, data: str) -> list[str]:
    left, top = x - width // 2, y - BOX // 2
    box = f'<rect class="{kind}" x="{left}" y="{top}" width="{width}" height="{BOX}" rx="4" {data}/>'
    return [box, _text(x, y + 4, text, "ink")]


def _wire(*corners: tuple[int, int]) -> str:
    return f'<path class="wire" d="M{" L".join(f"{x} {y}" for x, y in corners)}"/>'


def _text(x: int, y: int, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x}" y="{y}">{text}</text>'
