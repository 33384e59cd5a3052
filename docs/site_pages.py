"""Build the site of the documentation: ``python docs/site_pages.py`` or ``make site``, into build/site-pages.

The pages are the Markdown files as they lie in the repository: those of docs/, the pages about faults, the
changelog and the limitations, the notebook as it was executed, and a page of reference for each public room,
from its docstrings. Links between them are kept; links to other files of the repository become their text.
The site loads nothing from elsewhere.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from formulas import with_formulas
from write_notebook import as_markdown

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build"
ROOMS = ("cost", "checkup", "fold", "sight", "train", "gate", "report", "norm", "networks", "data", "tape")
QUESTIONS = ("will-it-fit", "worse-at-test-time", "remove-batch-norm", "what-does-this-unit-see")
TOUR = (
    "index",
    "batch-norm-in-training",
    "batch-norm-at-test-time",
    "batch-norm-of-maps",
    "alexnet",
    "zfnet",
)
EXTENDING = ("flop-rule", "fold-rule", "fault", "backward-rule")
NAV = {
    "Start": ["index.md", "start.md", "notebook.md", "training.md", "comparing.md", "gate.md"],
    "Questions": [f"questions/{name}.md" for name in QUESTIONS],
    "The notes, toured": [f"tour/{name}.md" for name in TOUR],
    "What it costs": ["memory.md", "flops.md"],
    "Is it healthy?": ["checkup.md", "normalisation.md", "faults/index.md"],
    "Without batch norm": ["folding.md"],
    "What it sees": ["sight.md"],
    "Experiments": ["experiments/index.md"],
    "Reference": [f"reference/{room}.md" for room in ROOMS],
    "Carry it on": ["architecture.md", *(f"extending/{name}.md" for name in EXTENDING), "decisions/index.md"],
    "About": ["glossary.md", "reliability.md", "limitations.md", "changelog.md"],
}
_FOLDERS = {"docs/decisions": "decisions", "docs/experiments": "experiments", "docs/questions": "questions",
            "docs/tour": "tour", "docs/extending": "extending",
            "src/convscope/checkup/pages": "faults"}  # fmt: skip
_FILES = {"LIMITATIONS.md": "limitations.md", "CHANGELOG.md": "changelog.md", "README.md": "index.md",
          "docs/notebook.ipynb": "notebook.md"}  # fmt: skip
_ASSETS = (".svg", ".png", ".json")
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
_ROLE = re.compile(r":(?:class|func|meth|mod|data|attr|exc):`~?([^`]+)`")
_EXAMPLE = re.compile(r"^( +)Example::?$", re.MULTILINE)


def main() -> None:
    """Build the site; a link that leads nowhere ends the build."""
    stage(BUILD / "site-pages")
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    sys.exit(subprocess.run(command, cwd=BUILD / "site-pages", check=False).returncode)


def stage(folder: Path) -> None:
    """Write the pages as the site has them, and its settings."""
    shutil.rmtree(folder, ignore_errors=True)
    pages = dict(sources())
    for source, page in pages.items():
        target = folder / "docs" / page
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".ipynb":
            target.write_text(as_markdown(json.loads(source.read_text(encoding="utf-8"))), encoding="utf-8")
        elif source.suffix == ".md":
            target.write_text(with_formulas(linked(source, page, pages)), encoding="utf-8")
        else:
            shutil.copyfile(source, target)
    for name in ("decisions", "faults"):
        (folder / "docs" / name / "index.md").write_text(listed(folder / "docs" / name, name.capitalize()))
    for room in ROOMS:
        target = folder / "docs" / "reference" / f"{room}.md"
        target.parent.mkdir(exist_ok=True)
        target.write_text(f"# convscope.{room}\n\n::: convscope.{room}\n", encoding="utf-8")
    for file in (ROOT / "src").rglob("*.py"):
        target = folder / file.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(for_reference(file.read_text(encoding="utf-8")), encoding="utf-8")
    (folder / "zensical.toml").write_text(settings(folder / "docs"), encoding="utf-8")


def sources() -> Iterator[tuple[Path, str]]:
    """Yield each file of the repository that is a page or a picture, with its path on the site."""
    for name, page in _FILES.items():
        yield ROOT / name, page
    for file in sorted((ROOT / "docs").glob("*.md")):
        if file.name != "index.md":  # the README begins the site
            yield file, file.name
    for file in sorted((ROOT / "docs" / "figures").iterdir()):
        yield file, f"figures/{file.name}"
    for folder, page in _FOLDERS.items():
        for file in sorted((ROOT / folder).glob("*")):
            if file.suffix in (".md", *_ASSETS):
                yield file, f"{page}/{file.name}"


def linked(source: Path, page: str, pages: dict[Path, str]) -> str:
    """Return a page's text with its links as the site has them."""

    def replaced(found: re.Match[str]) -> str:
        mark, text, target = found.groups()
        path, hash_, anchor = target.partition("#")
        if "://" in target or not path:
            return found[0]
        file = (source.parent / path).resolve()
        if file.is_dir():
            file = file / "index.md"
        if file == ROOT / "docs" / "index.md":
            file = ROOT / "README.md"
        if file not in pages and file.parent.name == "decisions":
            return f"[{text}]({_relative('decisions/index.md', page)})"
        if file not in pages:
            return text
        return f"{mark}[{text}]({_relative(pages[file], page)}{hash_}{anchor})"

    return _LINK.sub(replaced, source.read_text(encoding="utf-8"))


def for_reference(code: str) -> str:
    r"""Return code whose docstrings are written as the site's reader of docstrings expects.

    Example:
        >>> for_reference("See :func:`~convscope.cost.cost`.\n\n    Example:\n        >>> 1")
        'See `convscope.cost.cost`.\n\n    Examples:\n        >>> 1'
    """
    return _EXAMPLE.sub(r"\1Examples:", _ROLE.sub(r"`\1`", code))


def _relative(target: str, page: str) -> str:
    return os.path.relpath(target, Path(page).parent).replace(os.sep, "/")


def listed(folder: Path, title: str) -> str:
    """Return a page that lists all others of a folder by their titles."""
    lines = []
    for file in sorted(folder.glob("*.md")):
        heading = file.read_text(encoding="utf-8").lstrip("# ").split("\n")[0]
        lines.append(f"- [{heading}]({file.name})")
    return f"# {title}\n\n" + "\n".join(lines) + "\n"


def settings(folder: Path) -> str:
    """Return the settings of the site's builder."""
    version = _version()
    nav = [{name: [page for page in pages if (folder / page).exists()]} for name, pages in NAV.items()]
    lines = [
        "[project]",
        'site_name = "convscope"',
        'site_description = "The anatomy of a convolutional network"',
        f'copyright = "convscope {version}"',
        'site_dir = "site"',
        "use_directory_urls = false  # pages open from a folder, too",
        f"nav = {_toml(nav)}",
        "[project.theme]",
        "font = false  # nothing is loaded from elsewhere",
        'features = ["content.code.copy", "navigation.sections", "navigation.top", "search.highlight"]',
        "[[project.theme.palette]]",
        'media = "(prefers-color-scheme: light)"',
        'scheme = "default"',
        'toggle = { icon = "lucide/sun", name = "Switch to dark mode" }',
        "[[project.theme.palette]]",
        'media = "(prefers-color-scheme: dark)"',
        'scheme = "slate"',
        'toggle = { icon = "lucide/moon", name = "Switch to light mode" }',
        "[project.plugins.mkdocstrings.handlers.python]",
        'paths = ["src"]',
        "[project.plugins.mkdocstrings.handlers.python.options]",
        'docstring_style = "google"',
        "show_root_heading = false",
        "show_source = false",
        'members_order = "source"',
        "separate_signature = true",
        "docstring_options = { warn_unknown_params = false, warn_missing_types = false }",
    ]
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


def _version() -> str:
    tree = ast.parse((ROOT / "src" / "convscope" / "__init__.py").read_text(encoding="utf-8"))
    return next(
        str(ast.literal_eval(node.value))
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__version__"
    )


if __name__ == "__main__":
    main()
