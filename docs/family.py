"""Draw which values share one mean and one variance, for every member of the normalisation family.

A panel shows a small batch: a row for each sample, a column for each channel, and at their crossing the map
of that channel, square by square. Squares of one set have one colour, the set's number is on each of its
maps, and colour runs on between the maps that a set spans. The sets come from `convscope.norm.axes`, which
the layers themselves compute with.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from math import cos, radians, sin

from convscope.norm.axes import GHOST, MEMBERS, Member

SAMPLES, GROUPS, PER_GROUP, SIDE = 4, 2, 3, 3
CHANNELS = GROUPS * PER_GROUP
CELL, GAP, GROUP_GAP = 14, 7, 10
MAP = CELL * SIDE
LEFT, TOP, HEAD, FOOT = 36, 82, 50, 12
PANEL_WIDTH = LEFT + CHANNELS * (MAP + GAP) + GROUP_GAP * (GROUPS - 1) + 17
PANEL_HEIGHT = TOP + SAMPLES * (MAP + GAP)

STYLE = """
  svg { font-family: system-ui, "Segoe UI", "DejaVu Sans", Helvetica, Arial, sans-serif; }
  .paper { fill: #ffffff; } .ink { fill: #1f2328; } .soft { fill: #59636e; }
  .line { stroke: #59636e; fill: none; } .cut { stroke: #1f2328; stroke-width: 2; stroke-dasharray: 7 4; }
  .grid { stroke: #000000; stroke-opacity: .2; fill: none; } .bridge { fill-opacity: .45; }
  .title { font-size: 16px; font-weight: 600; } .small { font-size: 12px; }
  .number { font-size: 16px; font-weight: 600; text-anchor: middle; } .mid { text-anchor: middle; }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #0d1117; } .ink { fill: #f0f6fc; } .soft { fill: #9198a1; }
    .line { stroke: #9198a1; } .cut { stroke: #f0f6fc; }
  }
"""

Place = tuple[int, int, int, int]
"""A value's sample, group, channel of the group, and position in the map."""
Key = tuple[int | None, ...]
"""What the values of one set have in common: part of the batch and place, None along averaged axes."""


@dataclass(frozen=True)
class Panel:
    """One member to draw.

    Attributes:
        title: above the panel.
        member: whose sets it shows.
        parts: how many samples lie in each part of the batch; one part for most members.
        part_name: what a part is called.
    """

    title: str
    member: Member
    parts: tuple[int, ...] = (SAMPLES,)
    part_name: str = "samples N"

    def sets(self) -> dict[Key, list[Place]]:
        """Return the places that share statistics, set by set, in reading order of their first place."""
        found: dict[Key, list[Place]] = {}
        part_of = [at for at, size in enumerate(self.parts) for _ in range(size)]
        for place in product(range(SAMPLES), range(GROUPS), range(PER_GROUP), range(SIDE**2)):
            along = zip("PnGcS", (part_of[place[0]], *place), strict=True)
            key = tuple(None if self.member.averages(axis) else at for axis, at in along)
            found.setdefault(key, []).append(place)
        return found


def panels(members: Mapping[str, Member] = MEMBERS) -> list[Panel]:
    """Return the panels: every member, then batch norm of parts of a batch and of two processes' samples."""
    return [
        *(Panel(f"{member.kind.capitalize()} norm", member) for member in members.values()),
        Panel("Ghost batch norm", GHOST, (SAMPLES // 2,) * 2, "part"),
        Panel("Synchronised batch norm", members["batch"], (1, SAMPLES - 1), "process"),
    ]


def family_picture(members: Mapping[str, Member] = MEMBERS, columns: int = 2) -> str:
    """Return the picture of the family as SVG."""
    shown = panels(members)
    width, height = columns * PANEL_WIDTH, HEAD + -(-len(shown) // columns) * PANEL_HEIGHT + FOOT
    legend = (
        "rows: samples N (parts P of n); columns: channels C (groups G of c); "
        f"maps of {SIDE} × {SIDE} places S"
    )
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-labelledby="name">',
        '<title id="name">Which values share one mean and one variance</title>',
        f"<style>{STYLE}</style>",
        f'<rect class="paper" width="{width}" height="{height}" rx="6"/>',
        _text(LEFT, 28, "One colour, one number: one mean and one variance", "title ink"),
        _text(LEFT, 47, legend, "small soft"),
    ]
    for at, panel in enumerate(shown):
        x, y = at % columns * PANEL_WIDTH, HEAD + at // columns * PANEL_HEIGHT
        lines += [f'<g data-panel="{panel.title}" transform="translate({x} {y})">', *_panel(panel), "</g>"]
    return "\n".join([*lines, "</svg>\n"])


def _panel(panel: Panel) -> Iterator[str]:
    sets = panel.sets()
    sizes = " or ".join(str(size) for size in sorted({len(places) for places in sets.values()}))
    axes = ", ".join(axis for axis in "NnCGcS" if _is_named(panel.member, axis)) or "nothing"
    yield _text(LEFT, 30, panel.title, "title ink")
    yield _text(LEFT, 48, f"over {axes}: {len(sets)} means of {sizes} values each", "small soft")
    yield from _axes(panel)
    for number, (key, places) in enumerate(sets.items(), 1):
        lightness, colour = _colour(key)
        squares = "".join(f"M{x} {y}h{CELL}v{CELL}h-{CELL}z" for x, y in map(_corner, places))
        yield f'<path class="bridge" fill="{colour}" d="{_bridges(places)}"/>'
        yield f'<path data-set="{number}" fill="{colour}" d="{squares}"/>'
        for place in _whole_maps(places):
            x, y = _corner(place)
            ink = "#ffffff" if lightness < 0.66 else "#1f2328"
            yield f'<path class="grid" d="{_grid(x, y)}"/>'
            yield _text(x + MAP / 2, y + MAP / 2 + 6, str(number), "number", f' fill="{ink}"')


def _is_named(member: Member, axis: str) -> bool:
    """Whether a caption names an averaged axis: all channels are C, not G and c; all samples N, not n."""
    whole = {"G": "C", "c": "C", "n": "N"}.get(axis)
    return member.averages(axis) and not (whole and member.averages(whole))


def _axes(panel: Panel) -> Iterator[str]:
    """The groups above the columns, the parts of the batch beside the rows and the lines between them."""
    for group in range(GROUPS):
        left, right = _corner((0, group, 0, 0))[0], _corner((0, group, PER_GROUP - 1, 0))[0] + MAP
        yield f'<path class="line" d="M{left} {TOP - 4}v-5H{right}v5"/>'
        yield _text((left + right) / 2, TOP - 13, f"group {group + 1}", "small soft mid")
    sample = 0
    for number, size in enumerate(panel.parts, 1):
        top, bottom = _corner((sample, 0, 0, 0))[1], _corner((sample + size - 1, 0, 0, 0))[1] + MAP
        name = panel.part_name + (f" {number}" if len(panel.parts) > 1 else "")
        turned = f' transform="translate({LEFT - 14} {(top + bottom) / 2}) rotate(-90)"'
        yield _text(0, 0, name, "small soft mid", turned)
        if sample:
            right = _corner((0, GROUPS - 1, PER_GROUP - 1, 0))[0] + MAP
            yield f'<path class="cut" d="M{LEFT - 8} {top - GAP / 2}H{right + 8}"/>'
        sample += size


def _corner(place: Place) -> tuple[int, int]:
    """The upper left corner of a place's square, in its panel."""
    sample, group, channel, at = place
    row, column = divmod(at, SIDE)
    x = LEFT + (group * PER_GROUP + channel) * (MAP + GAP) + group * GROUP_GAP + column * CELL
    return x, TOP + sample * (MAP + GAP) + row * CELL


def _whole_maps(places: list[Place]) -> list[Place]:
    """The first places of those maps that lie in a set wholly."""
    inside = set(places)
    firsts = [place for place in places if place[3] == 0]
    return [first for first in firsts if all((*first[:3], at) in inside for at in range(SIDE**2))]


def _bridges(places: list[Place]) -> str:
    """What lies between neighbouring maps of one set."""
    corners = {(n, g * PER_GROUP + c): _corner((n, g, c, 0)) for n, g, c, _ in _whole_maps(places)}
    path = []
    for (n, channel), (x, y) in corners.items():
        right, below = corners.get((n, channel + 1)), corners.get((n + 1, channel))
        if right:
            path.append(f"M{x + MAP} {y}H{right[0]}v{MAP}H{x + MAP}z")
        if below:
            path.append(f"M{x} {y + MAP}h{MAP}v{GAP}h-{MAP}z")
        if right and below and (n + 1, channel + 1) in corners:
            path.append(f"M{x + MAP} {y + MAP}H{right[0]}v{GAP}H{x + MAP}z")
    return "".join(path)


def _grid(x: int, y: int) -> str:
    steps = range(CELL, MAP, CELL)
    return "".join(f"M{x + step} {y}v{MAP}M{x} {y + step}h{MAP}" for step in steps)


def _colour(key: Key) -> tuple[float, str]:
    """Lightness and colour of a set: a hue for channels and shades for samples, or a hue for samples."""
    part, sample, group, channel, at = key
    row = sample if sample is not None else part or 0
    if group is None and channel is None:
        hue, shade = row / SAMPLES, 0.5
    else:
        spread = GROUPS if channel is None else PER_GROUP if group is None else CHANNELS
        hue = ((group or 0) * (1 if channel is None else PER_GROUP) + (channel or 0)) / spread
        shade = row
    lightness = 0.57 + 0.1 * shade - 0.02 * (at or 0)
    return lightness, _hex(lightness, 0.115, 25 + 360 * hue)


def _hex(lightness: float, chroma: float, hue: float) -> str:
    """A colour of OKLCH as sRGB (Björn Ottosson, "A perceptual color space for image processing", 2020)."""
    a, b = chroma * cos(radians(hue)), chroma * sin(radians(hue))
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )
    clipped = (min(max(part, 0.0), 1.0) for part in linear)
    parts = (12.92 * p if p <= 0.0031308 else 1.055 * p ** (1 / 2.4) - 0.055 for p in clipped)
    return "#" + "".join(f"{round(255 * part):02x}" for part in parts)


def _text(x: float, y: float, text: str, classes: str, more: str = "") -> str:
    return f'<text class="{classes}" x="{x:g}" y="{y:g}"{more}>{text}</text>'
