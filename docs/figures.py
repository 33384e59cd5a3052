"""Draw the figures of the documentation from convscope's own results: ``make docs``.

Charts are the page's charts of the same data; `family.py` draws the picture of the normalisation family,
`stream.py` that of gauges. `docs/figures/*.svg` are the output.
"""

from pathlib import Path
from typing import Any

import vl_convert

import convscope as cs
from convscope.report.charts.report import Spec, memory_chart
from family import family_picture
from stream import stream_picture

FOLDER = Path(__file__).with_name("figures")


def main() -> None:
    """Draw every figure."""
    model, inputs = cs.load("alexnet", batch=128)
    found = cs.cost(model, inputs)
    data = {"cost": found.to_dict()}
    _chart("alexnet-memory", filled(memory_chart("cost"), data))
    _write("normalisation-axes", family_picture())
    _write("fold-gauges", stream_picture())


def filled(part: Any, data: dict[str, Any]) -> Any:
    """Return a specification with the data that it names in their places."""
    if isinstance(part, list):
        return [filled(item, data) for item in part]
    if not isinstance(part, dict):
        return part
    if "$field" not in part:
        return {name: filled(item, data) for name, item in part.items()}
    value: Any = data
    for name in part["$field"].split("."):
        value = value[name]
    return value if isinstance(value, list) else [value]


def _chart(name: str, chart: Spec) -> None:
    _write(name, vl_convert.vegalite_to_svg({**chart, "width": 720, "background": "white"}))


def _write(name: str, picture: str) -> None:
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.svg").write_text(picture)
    print(f"docs/figures/{name}.svg")


if __name__ == "__main__":
    main()
