"""Write and execute the notebook: ``python docs/write_notebook.py [FILE]``, or ``make docs``.

The cells are built here, run by a kernel of their own and stored with their outputs in docs/notebook.ipynb,
without times, machine names or versions. The site shows the same as a page (:func:`as_markdown`).
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FILE = HERE / "notebook.ipynb"
Cell = tuple[str, str]

CELLS: tuple[Cell, ...] = (
    (
        "markdown",
        """# convscope in five minutes

One small network, from what it costs to what it sees. Everything runs on a CPU and downloads
nothing: the images are four photographs that come with scikit-image. Each result is an object with
numbers; what is shown is its rich form.""",
    ),
    (
        "code",
        """import torch
from PIL import Image
from skimage import data
from torch import nn

import convscope as cs

_ = torch.manual_seed(0)
torch.set_num_threads(1)""",
    ),
    (
        "code",
        '''photographs = [data.chelsea(), data.astronaut(), data.coffee(), data.rocket()]
prepare = cs.networks.Preprocessing((96, 96), mean=(0.5,) * 3, std=(0.25,) * 3)
whole = torch.stack([prepare(Image.fromarray(photograph)) for photograph in photographs])


def crops(num_images):
    """Crops of 64 × 64 at random places, and which photograph each is of."""
    labels = torch.arange(num_images) % len(whole)
    corners = torch.randint(0, 32, (num_images, 2)).tolist()
    return torch.stack([whole[i, :, y : y + 64, x : x + 64] for i, (y, x) in zip(labels, corners)]), labels


images, labels = crops(128)
images.shape''',
    ),
    (
        "markdown",
        """## What does it cost?

ZFNet at a tenth of its width, with batch norm. The step is recorded on tensors without memory, so
that the same line answers for a network and a batch that don't fit here. More: [how memory is
forecast](memory.md), [how FLOPs are counted](flops.md).""",
    ),
    (
        "code",
        """network = cs.load("zfnet", norm="batch", width=0.1, num_classes=4, input_shape=(3, 64, 64)).model
cs.cost(network, (32, 3, 64, 64))""",
    ),
    ("markdown", "Which batch fits into four gigabytes, whatever workspaces cuDNN may take?"),
    ("code", 'cs.largest_batch(network, (1, 3, 64, 64), memory="4GiB").safe.batch'),
    (
        "markdown",
        """## Is its batch norm healthy?

First as it was built: the running averages are still a mean of 0 and a variance of 1.""",
    ),
    (
        "code",
        """loader = list(zip(images.split(32), labels.split(32)))
found = cs.checkup(network, loader)
sorted({finding.fault for finding in found.findings})""",
    ),
    ("markdown", "Then after fifty steps of training."),
    (
        "code",
        """optimizer = torch.optim.SGD(network.parameters(), lr=0.02, momentum=0.9)
for _ in range(50):
    batch, targets = crops(32)
    optimizer.zero_grad()
    nn.functional.cross_entropy(network.train()(batch), targets).backward()
    optimizer.step()
(network.eval()(images).argmax(1) == labels).float().mean().item() > 0.9""",
    ),
    ("code", "cs.checkup(network, loader)"),
    (
        "markdown",
        """If the statistics aren't those of the images, they are estimated anew, with a report of what was
off before and after. More: [the check-up](checkup.md), [normalisation](normalisation.md).""",
    ),
    ("code", "cs.norm.recalibrate(network, loader)"),
    (
        "markdown",
        """## Run it without batch norm

At test time batch norm is a fixed scale and shift, which the layer before can do. The network
before and after runs in float64; a fold that doesn't pass is taken back. Yours stays as it was.
More: [what folds, and what can't](folding.md).""",
    ),
    (
        "code",
        """folded = cs.fold(network, (1, 3, 64, 64))
left = [module for module in folded.model.modules() if isinstance(module, cs.norm.BatchNorm2d)]
folded.ledger.folded, folded.max_error < 1e-9, left""",
    ),
    ("code", "folded"),
    ("markdown", "Or train with another normalisation: the layers are exchanged in place, here in a copy."),
    (
        "code",
        """import copy

cs.norm.convert(copy.deepcopy(network), "group")""",
    ),
    (
        "markdown",
        """## What does it see?

What in each photograph excites one unit of the second layer: a deconvnet projection, grey where
nothing did. How far to trust such a picture is [measured,
too](sight.md#how-far-to-trust-a-picture).""",
    ),
    (
        "code",
        '''def beside(pictures):
    """One picture of several, side by side."""
    sheet = Image.new("RGB", (140 * len(pictures), 136), "white")
    for place, picture in enumerate(pictures):
        sheet.paste(Image.fromarray(picture).resize((136, 136)), (140 * place, 0))
    return sheet


views = [cs.project(network, image, layer="features.relu2", unit=3) for image in images[:4]]
beside([cs.sight.as_picture(view.image) for view in views])''',
    ),
    (
        "code",
        "beside([((image.permute(1, 2, 0) * 0.25 + 0.5) * 255).byte().numpy() for image in images[:4]])",
    ),
    (
        "markdown",
        """All units of a layer, on all images: `cs.gallery(network, images, out="gallery")` writes a page to
look at, and its numbers are here.""",
    ),
    (
        "code",
        """import tempfile

gallery = cs.gallery(network, images, layers=["features.relu2"], out=tempfile.mkdtemp() + "/gallery")
[(layer.name, len(layer.units), len(layer.units[0].examples)) for layer in gallery.layers]""",
    ),
    (
        "markdown",
        """The first layer: dead filters, missing frequencies, and what the stride folds into false
frequencies, with other strides and sizes beside it.""",
    ),
    ("code", "cs.stem(network, images)"),
    (
        "markdown",
        """All of it on one page: `convscope report`, or `cs.report`. [Start in five minutes](start.md) has
the same walk in the terminal; [the tour](tour/index.md) goes through the lecture notes.""",
    ),
)


def main(file: Path = FILE) -> None:
    """Execute the cells and write the notebook."""
    file.write_text(json.dumps(executed(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def executed() -> dict[str, Any]:
    """Return the notebook with the outputs of a run, as nbformat's dictionary.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell fails.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.v4.new_notebook()
    for number, (kind, text) in enumerate(CELLS, 1):
        make = nbformat.v4.new_code_cell if kind == "code" else nbformat.v4.new_markdown_cell
        notebook.cells.append(make(text, id=f"cell-{number:02}"))
    NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(HERE)}}
    ).execute()
    for cell in notebook.cells:
        cell.metadata = nbformat.NotebookNode()
        for output in cell.get("outputs", ()):
            _shorten(output)
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    nbformat.validate(notebook)
    return json.loads(nbformat.writes(notebook))


def _shorten(output: Any) -> None:
    """Leave out what a dataclass's ``repr`` says again where its table stands beside it."""
    bundle = output.get("data", {})
    if "text/html" in bundle or "image/png" in bundle:
        bundle.pop("text/plain", None)
    bundle.pop("image/jpeg", None)


def as_markdown(notebook: dict[str, Any]) -> str:
    """Return an executed notebook as a page: its texts, its code, and behind it what came out."""
    parts = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
        parts.extend(_shown(output) for output in cell.get("outputs", ()))
    return "\n\n".join(parts) + "\n"


def _shown(output: dict[str, Any]) -> str:
    bundle = {kind: "".join(content) for kind, content in output.get("data", {}).items()}
    if "text/html" in bundle:  # a blank line would end a block of HTML
        return (
            '<div style="overflow-x:auto">\n'
            + re.sub(r"\n(?=\n)", "\n&#10;", bundle["text/html"].strip())
            + "\n</div>"
        )
    if "image/png" in bundle:
        return (
            f'<img alt="what the cell above draws" src="data:image/png;base64,{bundle["image/png"].strip()}">'
        )
    return "```\n" + (bundle.get("text/plain") or "".join(output.get("text", ()))).rstrip() + "\n```"


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
