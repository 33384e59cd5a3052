"""The notebook of the documentation: its cells are those of the script, its outputs those of a new run."""

import json
import re
import subprocess
import sys

import pytest

import write_notebook

STORED = json.loads(write_notebook.FILE.read_text(encoding="utf-8"))


def test_its_cells_are_those_of_the_script():
    stored = tuple((cell["cell_type"], "".join(cell["source"])) for cell in STORED["cells"])
    assert stored == write_notebook.CELLS


def test_it_is_small_and_tells_nothing_of_the_machine():
    text = write_notebook.FILE.read_text(encoding="utf-8")
    assert len(text.encode()) < 600_000
    assert not re.search(r"/(?:home|root|tmp|work|usr|Users)/", text)
    assert set(STORED["metadata"]) == {"kernelspec", "language_info"}
    assert STORED["metadata"]["language_info"] == {"name": "python"}
    assert all(cell["metadata"] == {} for cell in STORED["cells"])


def test_every_cell_ran_in_order_without_warnings():
    code = [cell for cell in STORED["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    kinds = {output["output_type"] for cell in code for output in cell["outputs"]}
    assert kinds == {"execute_result"}  # nothing on standard error, nothing shown twice


def test_as_a_page_it_has_every_cell_and_no_blank_line_within_html():
    page = write_notebook.as_markdown(STORED)
    for kind, text in write_notebook.CELLS:
        assert (text if kind == "markdown" else f"```python\n{text}\n```") in page
    blocks = re.findall(r"^<div style=[^>]*>\n(.*?)\n</div>$", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) > 4
    assert not [block for block in blocks if "\n\n" in block]
    assert page.count("<img ") == 2


@pytest.fixture(scope="module")
def anew(tmp_path_factory):
    file = tmp_path_factory.mktemp("notebook") / "anew.ipynb"
    subprocess.run([sys.executable, write_notebook.__file__, str(file)], check=True, timeout=280)
    return json.loads(file.read_text(encoding="utf-8"))


def _results(cells):
    for cell in cells:
        for output in cell.get("outputs", ()):
            if output["output_type"] == "execute_result":
                yield cell["id"], {kind: "".join(text) for kind, text in output["data"].items()}


def _told(data):
    """What a result says, without mark-up."""
    return " ".join(re.sub(r"<[^>]*>", " ", data.get("text/html", "") + data.get("text/plain", "")).split())


def _without_digits(text):
    return re.sub(r"[\s#−-]+", " ", re.sub(r"[\d.,]+(?:e[-+]?\d+)?", "#", text))


@pytest.mark.slow
def test_run_anew_it_shows_the_same(anew):
    """Plain results and the table of costs to the last digit, other tables in all but digits."""
    assert [cell["source"] for cell in anew["cells"]] == [cell["source"] for cell in STORED["cells"]]
    stored, found = list(_results(STORED["cells"])), list(_results(anew["cells"]))
    assert [(cell, set(data)) for cell, data in found] == [(cell, set(data)) for cell, data in stored]
    num_exact = 0
    for (cell, before), (_, now) in zip(stored, found):
        exact = "text/plain" in before or "cost of a batch" in before.get("text/html", "")
        num_exact += exact
        told = [_told(data) if exact else _without_digits(_told(data)) for data in (before, now)]
        assert told[0] == told[1], cell
    assert num_exact > 6


@pytest.mark.slow
def test_a_result_is_shown_once(anew):
    assert {output["output_type"] for cell in anew["cells"] for output in cell.get("outputs", ())} == {
        "execute_result"
    }
