"""How much scratch memory may libraries take: cuBLAS exactly, cuDNN's convolutions within bounds.

cuBLAS keeps one workspace per handle and stream, which PyTorch takes from the caching allocator at the first
matrix product. The thread that calls has one handle, the one that runs backward another
(``aten/src/ATen/cuda/CublasHandlePool.cpp``).

cuDNN's choice of a convolution kernel isn't known without the library. The low end is 0: the implicit matrix
product needs no workspace. The high end is the most that one of these ways needs:

1. *Other layout.* Kernels for tensor cores read channels-last with channels in multiples of 16 B. Operands
   that lie otherwise are rewritten into the workspace: the padded sizes of the input, the weight and the
   output, the result of the kernel in 32 bit. Source: NVIDIA, "Convolutional Layers User's Guide", on NCHW
   and NHWC and on the number of channels; seen to the byte in pytorch issue 95024 (three operands in 16 bit)
   and in issue 31500 (48.01 GiB: channels padded from 1 to 8, the result in 32 bit).
2. *Winograd* for 3×3 and 5×5 kernels of stride 1, one group, without dilation: tiles of 4×4 results are
   transformed to (4 + k - 1)² 32-bit numbers each, for input and output, and k² weights to as many. Source:
   Lavin and Gray 2016 (arXiv:1509.09308), section 4.
3. *Split sums* for the gradient of the weight: every thread block writes 32-bit partial sums of its tile,
   of at most 128×256; two blocks per multiprocessor. At least one 32-bit copy of the weight. Source: NVIDIA,
   CUTLASS, "Efficient GEMM in CUDA", section "Parallelized Reductions".

A workspace that doesn't fit makes PyTorch try the next kernel (``try_configs`` in
``aten/src/ATen/native/cudnn/Conv_v8.cpp``), so it never makes a step fail.

Limits: ``torch.backends.cudnn.benchmark = True`` tries kernels of any workspace that fits in its first step.
Transforms by FFT, which older versions of cuDNN chose for some shapes (pytorch issues 14614 and 26112), need
more than the high end. Three-dimensional convolutions in 16 bit run PyTorch's own kernel in some versions.
"""

from dataclasses import dataclass
from math import prod

from convscope.cost.memory.constants import GpuFigures
from convscope.cost.memory.scratch import Kernel, is_channels_last, operand, passings
from convscope.tape import OperatorCall, Tape, Value

_VECTOR_BYTES = 16
_WINOGRAD_TILE = 4
_TILE_ELEMENTS = 128 * 256
_BLOCKS_PER_MULTIPROCESSOR = 2


@dataclass(frozen=True)
class Workspace:
    """Scratch memory of the libraries during a step.

    Attributes:
        cublas_bytes: per thread that multiplies matrices.
        cublaslt_bytes: besides, for the thread that runs linear layers with bias.
        convolution_bytes: per convolution kernel in order; empty: none takes any.
    """

    cublas_bytes: int = 0
    cublaslt_bytes: int = 0
    convolution_bytes: tuple[int, ...] = ()


def workspaces(tape: Tape, figures: GpuFigures) -> tuple[Workspace, Workspace]:
    """Return the least and the most that a step's libraries may take.

    Args:
        tape: the recording.
        figures: of the GPU.
    """
    if tape.device != "cuda":
        return Workspace(), Workspace()
    high = tuple(
        convolution_bound(tape, call, passing.kernel, figures)
        for call in tape.calls
        for passing in passings(tape, call)
        if passing.kernel is not None
    )
    cublas, lt = figures.cublas_workspace_bytes, figures.cublaslt_workspace_bytes
    return Workspace(cublas, lt), Workspace(cublas, lt, high)


def convolution_bound(tape: Tape, call: OperatorCall, kernel: Kernel, figures: GpuFigures) -> int:
    """Return the most bytes that a cuDNN kernel of a convolution takes; see the module's text."""
    x, weight = operand(tape, call, "input"), operand(tape, call, "weight")
    y = tape.values[call.output] if kernel == "forward" else operand(tape, call, "grad_output")
    result = {"forward": y, "input-gradient": x, "weight-gradient": weight}[kernel]
    split = _split_sums(weight, figures) if kernel == "weight-gradient" else 0
    return max(_other_layout((x, weight, y), result), _winograd(call, x, weight, y), split)


def _other_layout(operands: tuple[Value, Value, Value], result: Value) -> int:
    total = 0
    for value in operands:
        vector = _VECTOR_BYTES // value.dtype.itemsize
        if not is_channels_last(value) or value.shape[1] % vector:
            itemsize = max(4, value.dtype.itemsize) if value is result else value.dtype.itemsize
            total += _padded_numel(value, vector) * itemsize
    return total


def _padded_numel(value: Value, vector: int) -> int:
    channels = value.shape[1]
    return value.numel // max(channels, 1) * (-(-channels // vector) * vector)


def _winograd(call: OperatorCall, x: Value, weight: Value, y: Value) -> int:
    kernel = weight.shape[2:]
    plain = call.arguments["groups"] == 1 and {*call.arguments["stride"], *call.arguments["dilation"]} == {1}
    if kernel not in ((3, 3), (5, 5)) or not plain:
        return 0
    edge = _WINOGRAD_TILE + kernel[0] - 1
    tiles = x.shape[0] * prod(-(-max(sizes) // _WINOGRAD_TILE) for sizes in zip(x.shape[2:], y.shape[2:]))
    numbers = tiles * (x.shape[1] + y.shape[1]) + weight.shape[0] * weight.shape[1]
    return 4 * edge * edge * numbers


def _split_sums(weight: Value, figures: GpuFigures) -> int:
    blocks = _BLOCKS_PER_MULTIPROCESSOR * figures.multiprocessors
    return 4 * max(weight.numel, blocks * _TILE_ELEMENTS)
