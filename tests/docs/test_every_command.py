"""Every command of the documentation runs: here, page by page, or at the place that ``ELSEWHERE`` names.

Commands run in the order of reading, in a folder with what the reader has at hand. The first pages share one,
since the questions begin where the start ends; the rows of the README's table are tried one by one.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from convscope.checkup.judging.faults import registry
from convscope.cli.main import main
from docs import reader
from docs.commands import ALL, DOCS, FIRST, PAGES, ROOT, TOUR, commands, is_mention, words_of
from docs.test_commands import COMPUTED
from docs.told import commands_with_output, first_line_missed, shortened, without_decimals

EXPERIMENTS = sorted(file.stem for file in (DOCS / "experiments").glob("*.json"))
ELSEWHERE = {
    "report zfnet --data photos --norm batch --out report": ("Makefile", "photos --norm batch --out report"),
    "gallery …": ("tests/sight/test_gallery_processes.py", '"--nproc-per-node", "2"'),
    **{
        words: (f"docs/experiments/{name}.json", f'"convscope compare {name} --out exp/{name} ')
        for name in EXPERIMENTS
        for words in (f"compare {name} --out exp/{name} --processes 1 --threads 1 --yes", f"compare {name}")
        if any(words == words_of(line) for _, line in ALL)
    },
}
"""Commands that take minutes or hours, where they run or have run, and what stands there."""

APPENDED = (
    (r"^cost alexnet --batch 8 --measure", "--width 0.1", "the whole network's steps take half a minute"),
    (r"^cost .*--verify", "--device cpu", "without it, the command asks for a GPU"),
    (r"^fold timm:", "--input 3x64x64", "every layer runs, on a twelfth of the pixels"),
    (r"^fold .*--measure", "--repeats 2", "twenty passes take longer and do nothing else"),
    (r"^checkup zfnet --weights (w|.*--fix)", "--max-batches 8", "an eighth of the images"),
    (r"^fold zfnet (--norm batch|--measure)$", "--width 0.1", "the proof runs the whole network in float64"),
    (r"^gallery .*--data photos", "--limit 100", "a twentieth of the images"),
    (r"^train .*--evaluate-every 10 ", "--batch-size 200", "one measurement inside an epoch, not three"),
    (r"^train .*--data pictures", "--epochs 1", "ten epochs, or a recipe's seventy"),
    (r"^train .*--recipe zfnet --data pictures", "--width 0.1", "a hundredth of the work"),
    (r"^compare zfnet .*pictures", "--option width=0.05 --set epochs=1 --seeds 2", "twenty trainings"),
    (r"^compare (zfnet|table)", "--processes 0", "starting processes takes longer than the trainings"),
    (r"^report .* --norm batch$", "--width 0.05 --size 64 --epochs 1", "`make demo` runs it as it is"),
    (r"^report ", "--per-class 20", "a tenth of the images"),
)
"""Which commands end with more words here, which, and why."""
REPLACED = (
    (r"(seeds[ =]+)5\b", r"\g<1>1", "a flag can't be given twice"),
    (r"(epochs ?= ?)10\b", r"\g<1>1", "nor a name after --set"),
    (r"(width ?= ?)0\.25\b", r"\g<1>0.05", "nor one after --option"),
)
"""What is replaced in tables of trainings, for which nothing can be appended: as what, and why."""


def shorter_table(text):
    """The text of a ``compare`` with fewer and smaller trainings."""
    for old, new, _ in REPLACED:
        text = re.sub(old, new, text)
    return text


def shorter(words):
    """The words with what is replaced, and with what is appended."""
    words = shorter_table(words) if words.startswith("compare ") else words
    return " ".join([words, *(more for pattern, more, _ in APPENDED if re.search(pattern, words))])


def _quoted(page):
    """What the page quotes of each command's output, by the command's words."""
    return {shlex.join(words): told for words, told in commands_with_output(page.read_text(encoding="utf-8"))}


BESIDE = {words for page in TOUR for words in _quoted(page)} | {
    shlex.join(each.values[0]) for each in COMPUTED
}
"""What is run and compared with its quotation by test_tour.py and test_commands.py."""
TOGETHER = [*FIRST, DOCS / "training.md"]


def _steps():
    """Name, page or pages, and lines to run in one folder; what only prints is run where it is met first."""
    seen = set(BESIDE)
    for pages in (TOGETHER, *([page] for page in PAGES if page not in TOGETHER)):
        found = []
        for page in pages:
            for line in commands(page):
                words = words_of(line)
                if is_mention(words) or words in ELSEWHERE or words in seen:
                    continue
                if "--out" not in words or pages == TOGETHER:
                    seen.add(words)
                found.append((page, line))
        if pages == [ROOT / "README.md"]:
            yield from (pytest.param([each], id=f"README: {words_of(each[1])}") for each in found)
        elif found:
            yield pytest.param(found, id=pages[0].relative_to(ROOT).as_posix())


STEPS = list(_steps())


@pytest.fixture(scope="module")
def at_hand(tmp_path_factory):
    """A folder with what readers have, made once."""
    folder = tmp_path_factory.mktemp("reader")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        reader.make(folder)
    return folder


@pytest.fixture
def rules_as_they_were():
    """One page's network brings a rule of its own."""
    before = dict(registry._RULES)
    yield
    registry._RULES.clear()
    registry._RULES.update(before)
    sys.modules.pop("my_rules", None)


def _run(line, capsys):
    """What the line prints; a launcher is started as written, others run in this process."""
    if line.startswith("torchrun "):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PET_STANDALONE": "1"}  # a port that is free
        launched = [sys.executable, "-m", "torch.distributed.run", *shlex.split(line)[1:]]
        ended = subprocess.run(launched, capture_output=True, text=True, timeout=200, env=environment)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout
    words = shorter(words_of(line))
    try:
        main(shlex.split(words))
    except SystemExit as stopped:
        if stopped.code:
            pytest.fail(f"convscope {words}: exit code {stopped.code}, {capsys.readouterr().err}")
    return capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("rules_as_they_were")
@pytest.mark.parametrize("lines", STEPS)
def test_a_pages_commands_run(lines, at_hand, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "here"
    shutil.copytree(at_hand, folder)
    monkeypatch.chdir(folder)
    for page in dict.fromkeys(page for page, _ in lines):
        reader.add_files_of(page, folder, shorter_table)
    for page, line in lines:
        printed = _run(line, capsys)
        told = _quoted(page).get(words_of(line))
        if told is not None:
            missed = first_line_missed(shortened(without_decimals(told)), without_decimals(printed))
            assert missed is None, f"{page.name}: {line}: {missed!r} isn't in its place in\n{printed}"
        for name in re.findall(r"--(?:out|junit) (\S+)", line):
            healthy = "--fix" in line and "run/" in line  # of which nothing is mended, and so nothing written
            assert (folder / name).exists() is not healthy, f"{page.name}: {line}: {name}"


def test_every_command_is_run_or_runs_elsewhere():
    run = {words_of(line) for step in STEPS for _, line in step.values[0]}
    assert {words_of(line) for _, line in ALL} == run | BESIDE | set(ELSEWHERE)
    assert len(run) > 60


@pytest.mark.parametrize("words", ELSEWHERE)
def test_the_place_where_it_runs_has_it(words):
    place, text = ELSEWHERE[words]
    assert text in (ROOT / place).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_that_ran_elsewhere_can_be_begun(name, capsys):
    (page,) = [page for page in PAGES if page.stem == name]
    (line,) = [line for line in commands(page) if words_of(line).startswith(f"compare {name} ")]
    main(shlex.split(f"{words_of(line)} --list"))
    assert page.read_text(encoding="utf-8").split("**")[1] in " ".join(capsys.readouterr().out.split())


def test_nothing_is_shortened_that_isnt_there():
    lines = [words_of(line) for step in STEPS for _, line in step.values[0]]
    assert all(any(re.search(pattern, words) for words in lines) for pattern, _, _ in APPENDED)
    comparisons = "\n".join(words for words in lines if words.startswith("compare "))
    assert all(re.search(pattern, comparisons) for pattern, _, _ in REPLACED)
