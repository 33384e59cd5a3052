"""``convscope``: the table of commands, and what becomes of errors.

Nothing heavy is imported here: each command's file is imported when that command runs.
"""

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from cyclopts import App, CycloptsError

from convscope import __version__
from convscope.cli.mistyped import in_words
from convscope.cli.quiet import without_quiet
from convscope.cli.waiting import waiting
from convscope.core.errors import ConvscopeError
from convscope.core.printable import in_short, printable

COMMANDS = {
    "cost": (
        "What every layer costs: parameters, activations, FLOPs, bytes kept for backward, memory of a step.",
        "cost alexnet --batch 128",
        "cost timm:resnet50 --batch 32 --optimizer adamw --precision amp-fp16 --json",
        "cost timm:resnet50 --depth 2 --sort saved_bytes --top 10",
        "cost timm:resnet50 --only convolution --depth 1",
        "cost alexnet --all --csv alexnet.csv",
        "cost alexnet zfnet timm:resnet50 --batch 32 --inference",
        "cost alexnet --sweep batch=1:256 --plot batch.html",
        "cost zfnet --sweep resolution=128,160,224",
    ),
    "max-batch": (
        "The largest batch that fits into a device's memory, and what binds. Exit code 1: none does under "
        "the likely answer.",
        "max-batch alexnet --memory 24GiB --optimizer adamw",
        "max-batch timm:resnet50 --memory 16GiB --gpu T4 --precision amp-fp16",
    ),
    "checkup": (
        "Whether the network's batch norms are healthy, with evidence and remedies.",
        "checkup timm:resnet18",
        "checkup zfnet --weights run/final.safetensors --data photos",
        "checkup net.py:build --weights best.pth --data photos --batch 64 --max-batches 20 --json",
        "checkup zfnet --weights run/final.safetensors --data photos --fix --out mended.safetensors",
        "checkup net.py:build --data pictures --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225",
        "checkup net.py:build --data photos --page checkup.html",
        "checkup net.py:student --reference net.py:teacher",
        "checkup --explain stale-statistics",
        "checkup --explain",
    ),
    "fold": (
        "Move test-time batch norm into the layers around it, prove it, and say where each one went. "
        "The network is folded in evaluation mode.",
        "fold timm:resnet18 --measure",
        "fold zfnet --weights run/final.safetensors --out folded.onnx --out folded.safetensors",
        "fold net.py:build --weights best.pth --input 3x224x224 --out folded.pt2",
        "fold timm:densenet121 --border pad --json",
    ),
    "project": (
        "What in one image excites one unit: a deconvnet projection.",
        "project zfnet cat.jpg --weights run/final.safetensors --layer features.relu2 --unit 7",
    ),
    "gallery": (
        "The images that excite every unit most, beside their projections.",
        "gallery zfnet --weights run/final.safetensors --data photos --out gallery",
    ),
    "gallery-compare": (
        "Two galleries of the same images, unit by unit: two checkpoints, or two stems.",
        "gallery-compare before after",
        "gallery-compare stride4 stride2 --layers features.conv1=stem.conv --json",
    ),
    "stem": (
        "Diagnose the first layer: dead and dominant filters, aliasing.",
        "stem zfnet --weights run/final.safetensors --data photos",
    ),
    "occlusion": (
        "What the network's answer and its units depend on in one image: parts of it hidden in turn.",
        "occlusion zfnet cat.jpg --weights run/final.safetensors --unit features.relu5 --compare",
        "occlusion timm:resnet18 cat.jpg --window 32 --stride 8 --out cat.png",
    ),
    "invariance": (
        "How far features and the answer move when images are moved, scaled and turned.",
        "invariance zfnet --weights run/final.safetensors --data photos",
        "invariance timm:resnet18 --data photos --layers layer1,layer4 --rotation none",
    ),
    "train": (
        "Train a network on a data set: from scratch, as a paper did, or from weights.",
        "train zfnet --norm batch --width 0.25 --input 3x96x96 --data photos --epochs 10 --out run",
        "train zfnet --norm batch --width 0.25 --input 3x96x96 --data photos --epochs 10 --out run --resume",
        "train zfnet --recipe zfnet --data pictures --num-workers 8 --out zf",
        "train zfnet --recipe zfnet --width 0.25 --input 3x96x96 --data photos --epochs 20 --out small-zf",
        "train timm:resnet18 --weights resnet18.safetensors --new-head --data pictures --learning-rate 0.001",
    ),
    "compare": (
        "Which choice is better, and is that more than chance: a table of trainings with paired seeds.",
        "compare zfnet --input 3x64x64 --option width=0.25 --data photos --choose norm=none,batch "
        "--choose learning_rate=0.01,0.1 --seeds 5 --set epochs=10 --out comparison",
        "compare table.toml --processes 4",
        "compare table.toml --forecast",
        "compare --list",
        "compare bn-speed --list",
    ),
    "report": (
        "The whole anatomy on one page that opens offline.",
        "report zfnet --data photos --norm batch --out report",
        "report zfnet --weights before.safetensors --weights after.safetensors --data photos --out changed",
        "report monday/ friday/ --out changed",
    ),
    "gate": (
        "Whether a network keeps to limits of memory, work and faults; for CI.",
        "gate zfnet --max-params 65M --max-flops 3G",
        "gate net.py:build --batch 32 --max-memory 24GiB --optimizer adamw --junit gate.xml",
        "gate timm:resnet50 --no-fault error --max-unfolded 0 --json",
        "gate net.py:build --weights best.pth --data photos --no-fault warning --allow micro-batch",
    ),
    "completion": (
        "Print the script with which bash, zsh or fish completes commands, networks, flags and their values. "
        "There is no JSON of it: it is a script.",
        "completion bash > ~/.local/share/bash-completion/completions/convscope",
        "completion fish > ~/.config/fish/completions/convscope.fish",
    ),
    "networks": (
        "List the networks that can be loaded by name.",
        "networks resnet50",
    ),
}
"""Each command's help and examples, here so that none of their files is imported for ``--help``."""

_ALWAYS = "--quiet (-q) with any command: only results and errors, no progress or notes."

_EXIT_CODES = (
    "Exit codes: 0 fine; 1 a limit of the gate isn't kept, or no batch fits (max-batch's likely answer); "
    "2 bad usage or input."
)


class _Application(App):
    """Prints what stands below the help as it is: an example that is wrapped can't be pasted."""

    def help_print(self, tokens: Any = None, *, console: Any = None) -> None:
        super().help_print(tokens, console=console)
        command, *_ = (*self.parse_commands(tokens)[0], "")
        examples = [f"  convscope {example}" for example in COMMANDS.get(command, ())[1:]]
        below = ["", "Examples:", *examples, ""] if examples else ["", _EXIT_CODES]
        print("\n".join((*below, _ALWAYS)))


app = _Application(
    name="convscope",
    version=__version__,
    help="The anatomy of a convolutional network: what every layer costs, whether its batch norm is "
    "healthy, how to run it without batch norm, and what each unit looks for.",
    help_format="plaintext",  # Markdown would cost 40 ms
    suppress_keyboard_interrupt=False,  # main says a word about it
)
for _name, (_help, *_) in COMMANDS.items():
    _home = f"convscope.cli.{_name.replace('-', '_')}:{_name.replace('-', '_')}"
    app.command(_home, name=_name, help=_help)


def main(tokens: Sequence[str] | None = None) -> None:
    """Run one command line and exit with its code.

    Args:
        tokens: the words after ``convscope``; None takes them from ``sys.argv``.
    """
    try:
        with (
            without_quiet(sys.argv[1:] if tokens is None else tokens) as words,
            waiting(words),
            warnings.catch_warnings(),
        ):
            # Of notes in pictures that lead nowhere; a picture that can't be read is an error of ours.
            warnings.filterwarnings("ignore", module=r"PIL\.")
            app(words, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except (ConvscopeError, CycloptsError) as error:
        print(
            "convscope: " + printable(in_short(" ".join(in_words(error, COMMANDS).split()))), file=sys.stderr
        )
        sys.exit(2)
    except BrokenPipeError:
        # The reader has left (`| head`): nothing more can be said, and nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("convscope: interrupted; nothing is left half-written", file=sys.stderr)
        sys.exit(130)
