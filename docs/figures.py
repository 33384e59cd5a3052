"""Draw the figures of the documentation from convscope's own results: ``make docs``.

Each figure is the page's chart of the same data; `docs/figures/*.svg` are its output.
"""

from pathlib import Path
from typing import Any

import vl_convert

import convscope as cs
from convscope.report.charts import Spec, memory_chart

FOLDER = Path(__file__).with_name("figures")


def main() -> None:
    """Draw every figure."""
    model, inputs = cs.load("alexnet", batch=128)
    found = cs.cost(model, inputs)
    data = {"cost": found.to_dict()}
    _draw("alexnet-memory", filled(memory_chart("cost"), data))


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


def _draw(name: str, chart: Spec) -> None:
    picture = vl_convert.vegalite_to_svg({**chart, "width": 720, "background": "white"})
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.svg").write_text(picture)
    print(f"docs/figures/{name}.svg")


if __name__ == "__main__":
    main()
