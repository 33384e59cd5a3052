"""What recurrent layers keep that a recording on simulated tensors doesn't show.

Their fused operators return a reserve for backward (every step's gates), whose size the library decides; the
simulated operators give it no bytes. For a CUDA device, layers that were recorded by their parts run as one
operator of cuDNN's there, or as one of PyTorch's per cell. So memory is said to be short, by layer.

Source: ``mkldnn_rnn_layer``, ``_cudnn_rnn`` and ``_thnn_fused_lstm_cell`` in
``aten/src/ATen/native/native_functions.yaml``; ``aten/src/ATen/native/cudnn/RNN.cpp``.
"""

from convscope.tape import Tape

_FUSED = ("mkldnn_rnn_layer", "_cudnn_rnn", "miopen_rnn", "_thnn_fused_")
_ONE_OPERATOR_ON_CUDA = ("LSTM", "GRU", "RNN", "LSTMCell", "GRUCell")
_MANY = 4


def memory_of_recurrent_layers(tape: Tape) -> tuple[str, ...]:
    """Return sentences that name the recurrent layers whose memory isn't all forecast; () without any.

    Args:
        tape: the recording.
    """
    fused: dict[str, str] = {}
    for call in tape.in_phase("forward"):
        if call.op.startswith(_FUSED):
            fused.setdefault(call.address.path, call.op)
    ops = ", ".join(dict.fromkeys(fused.values()))
    library = "cuDNN" if tape.device == "cuda" else "oneDNN"
    told = []
    if fused:
        told.append(
            f"allocated_peak_bytes: too low by what {library} keeps for backward, and takes as workspace, in "
            f"recurrent layers: {_listed([*fused])} ({ops})"
        )
    parts = [
        module.address.path
        for module in tape.modules
        if module.type_name in _ONE_OPERATOR_ON_CUDA and module.address.path not in fused
    ]
    if parts and tape.device == "cuda":
        told.append(
            "allocated_peak_bytes: counts the parts of recurrent layers that run as one operator on a GPU: "
            f"{_listed(list(dict.fromkeys(parts)))}"
        )
    return tuple(told)


def _listed(paths: list[str]) -> str:
    shown = ", ".join(paths[:_MANY])
    return shown + (f" and {len(paths) - _MANY} more" if len(paths) > _MANY else "")
