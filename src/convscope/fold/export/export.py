"""``export``: a folded network written to a file, checked against the original network before it is there."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from convscope.core.errors import ConvscopeError
from convscope.core.files import whole_file
from convscope.core.inference import outside_inference_mode
from convscope.fold.export.check import Answers, answers
from convscope.fold.export.formats import FORMATS, Format, check_format
from convscope.fold.export.program import num_samples, sizes_of
from convscope.fold.export.result import Exported, NotExportable
from convscope.fold.export.weights import add_metadata
from convscope.fold.ledger import Folded
from convscope.fold.proof.settle import copied
from convscope.fold.proof.trials import Trial, described

FOLDED = {"convscope.folded": "true"}
"""The entry of every written file's metadata that says what it is of."""


def export(
    folded: Folded,
    original: nn.Module,
    inputs: Any,
    path: str | Path,
    *,
    weights_writer: Callable[[nn.Module, Path], None] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Exported:
    """Write a folded network to a file in the format of its name, and return the check that it passed.

    ================  ==================================================================================
    ending            what is written
    ================  ==================================================================================
    ``.safetensors``  parameters and buffers: for ``folded.model.load_state_dict``
    ``.pt2``          the whole program, by ``torch.export``: for ``torch.export.load(path).module()``
    ``.onnx``         the whole graph, weights inside; needs ``convscope[onnx]``
    ================  ==================================================================================

    The file is read back by a program of its kind (ONNX Runtime for a graph) and run on the inputs given and
    on random ones like them. Its outputs, in the network's own dtype, may differ from those of the
    *original* network by thirty times as much as the original's own differ from float64, or by 1e-4. Only
    then does the file get its name; otherwise nothing is left. A program takes any number of samples where
    the network's code allows it, which is checked with two other numbers; all other sizes are those given.
    Its metadata says that the network is a folded one (``convscope.folded``: ``true``).

    Args:
        folded: what :func:`~convscope.fold.fold.fold` returned.
        original: the network that was folded; it stays as it is, and so does ``folded.model``.
        inputs: a tensor, a tuple or dict of tensors, or a shape, which is filled with random numbers.
        path: the file; its folder is made if need be.
        weights_writer: writes a network's weights to a path, where a header shall say more about them.
        metadata: more entries, such as how pixels become inputs: in a header of safetensors, in the extra
            files of a program, in the ``metadata_props`` of a graph.

    Raises:
        ConvscopeError: ``folded`` isn't a :class:`~convscope.fold.ledger.Folded`, the ending is unknown, a
            package isn't installed, the fold has failed its proof, the network can't be exported in this
            format, the file's outputs differ, or it can't be written.

    Not covered: a graph's check where ONNX Runtime isn't installed (``checked_with`` is "" then); graphs
    larger than 2 GiB.

    Example:
        >>> import tempfile
        >>> from convscope.fold import fold
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)).eval()
        >>> file = Path(tempfile.mkdtemp()) / "folded.pt2"
        >>> exported = export(fold(net, (2, 3, 9, 7)), net, (2, 3, 9, 7), file)
        >>> exported.any_batch, exported.max_error < exported.allowed
        (True, True)
        >>> torch.export.load(file).module()(torch.randn(5, 3, 9, 7)).shape
        torch.Size([5, 8, 7, 5])
    """
    path, form = Path(path), check_format(path)
    _require_folded(folded)
    if not folded.proof.passed:
        raise ConvscopeError("a fold whose proof failed", "one that is proved", "see folded.ledger")
    if weights_writer is not None and not form.has_program:
        form = replace(form, write=_with_header(weights_writer))
    entries = {**(metadata or {}), **FOLDED}
    with outside_inference_mode():
        pair = _Pair(original, copied(folded.model).eval(), described(inputs, _dtype(original)), entries)
        for any_batch in (True, False) if form.has_program else (True,):
            try:
                return pair.written(form, path, any_batch)
            except NotExportable as error:
                reason = str(error)
    others = " or ".join(ending for ending in FORMATS if ending != path.suffix.lower())
    is_rare = form.extra and _dtype(original) != torch.float32  # runtimes have few operators in others
    raise ConvscopeError(
        f"{type(original).__name__} can't be exported to {str(path)!r} ({reason})",
        "a network that this format can hold, with the same outputs",
        f"{'make it float32 first, or ' if is_rare else ''}choose a name that ends with {others}",
    )


@dataclass(frozen=True)
class _Pair:
    """The original network, the folded one, what both are given, and what files say besides."""

    original: nn.Module
    network: nn.Module
    inputs: Any
    metadata: Mapping[str, str]

    def written(self, form: Format, path: Path, any_batch: bool) -> Exported:
        """Write and check a file.

        Raises:
            NotExportable: it can't be written, or fails its check; nothing is left then.
            ConvscopeError: there can't be a file of that name.
        """
        reader = form.reader()
        said = answers(self.original, self._trials(any_batch and form.has_program)) if reader else None
        with whole_file(path) as temporary:
            form.write(self.network, self.inputs, any_batch, self.metadata, temporary)
            error = None if said is None else self._checked(said, form, temporary)
            num_bytes = temporary.stat().st_size
        return Exported(
            path=str(path),
            num_bytes=num_bytes,
            any_batch=any_batch,
            sizes=sizes_of(self.inputs, any_batch) if form.has_program else (),
            checked_with=reader,
            max_error=error,
            own_error=said.own_error if said else None,
            allowed=said.allowed if said else 0.0,
            trials=said.trials if said else (),
        )

    def _trials(self, other_batches: bool) -> tuple[Trial, ...]:
        as_given = (Trial(self.inputs, None), Trial(self.inputs, 1))
        more = num_samples(self.inputs) + 1
        return (
            (*as_given, Trial(self.inputs, 2, more), Trial(self.inputs, 3, 1)) if other_batches else as_given
        )

    def _checked(self, said: Answers, form: Format, file: Path) -> float:
        error = said.error_of(form.read(self.network, file))
        if not error <= said.allowed:
            raise NotExportable(
                f"the file's outputs differ from the original's by {error:.1e} of their size, "
                f"more than {said.allowed:.1e}"
            )
        return error


def _require_folded(folded: object) -> None:
    if isinstance(folded, nn.Module):
        raise ConvscopeError(
            f"the network {type(folded).__name__} as the fold",
            "what cs.fold returned, not its .model",
            "give export(cs.fold(model, inputs), model, inputs, path)",
        )
    if not isinstance(folded, Folded):
        raise ConvscopeError(
            f"{type(folded).__name__} as the fold", "what cs.fold returned", "give cs.fold(model, inputs)"
        )


def _with_header(
    writer: Callable[[nn.Module, Path], None],
) -> Callable[[nn.Module, Any, bool, Mapping[str, str], Path], None]:
    """A caller's own way to write weights, as a format has it."""

    def write(network: nn.Module, _: Any, __: bool, metadata: Mapping[str, str], path: Path) -> None:
        writer(network, path)
        add_metadata(path, metadata)

    return write


def _dtype(network: nn.Module) -> torch.dtype:
    tensors = (*network.parameters(), *network.buffers())
    return next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), torch.get_default_dtype())
