"""``record``: one step of any network, run on simulated tensors and written down."""

import threading
from contextlib import ExitStack
from typing import Any, get_args

import torch
from torch import nn

from convscope.core.collector import collector_at_rest
from convscope.core.errors import ConvscopeError
from convscope.core.inference import outside_inference_mode
from convscope.tape.attention import attention_in_parts
from convscope.tape.autocast import CudaAutocast
from convscope.tape.calls import Tape
from convscope.tape.decisions import Decisions
from convscope.tape.device import Device
from convscope.tape.failures import network_failed
from convscope.tape.plan import TrainingPlan
from convscope.tape.recorder import Recorder
from convscope.tape.rewrites import DeviceRewrites
from convscope.tape.states import create_states
from convscope.tape.step import LossScaler, Step, autocast_of, loss_of, run_inference, trainable
from convscope.tape.substrate import Inputs, Simulated, simulated

_ONE_AT_A_TIME = threading.RLock()


def record(
    model: nn.Module,
    inputs: Inputs,
    plan: TrainingPlan | None = None,
    step: Step | None = None,
    *,
    device: Device = "cuda",
    real: bool = False,
    decisions: Decisions | None = None,
) -> Tape:
    """Return the tape of one step: every operator call, value, storage and module call.

    Nothing is allocated, and the model comes back as it was. The step runs forward, loss, backward,
    clipping and the optimizer, in steady state: optimizer states exist when it begins.

    Args:
        model: any eager PyTorch module.
        inputs: a tensor, a tuple or dict of tensors, or a shape such as ``(128, 3, 227, 227)``.
        plan: the training step; None records inference, in evaluation mode. With a plan, a model in training
            mode keeps its modules' modes (frozen batch norms stay frozen); one in evaluation mode is
            recorded in training mode.
        step: called as ``step(model, args, kwargs)`` in place of the default step; returns the outputs.
        device: whose operators to imitate: ``"cuda"`` or ``"cpu"``.
        real: run the step for real on the CPU, on a copy of the model's tensors, for networks that decide by
            what their tensors hold. It takes the step's time and memory: give a small batch.
        decisions: what to answer where the network's code reads numbers out of tensors, to record another of
            its paths; it is told what was asked. None: see :class:`Decisions`.

    Raises:
        ConvscopeError: the model can't be simulated, or doesn't run on these inputs; it names the operator.

    Example:
        >>> tape = record(nn.Conv2d(3, 8, 3), (2, 3, 9, 7))
        >>> [(str(call.address), tape.values[call.output].shape) for call in tape.calls]
        [('self#1:convolution.1', (2, 8, 7, 5))]
    """
    if plan is not None and not isinstance(plan, TrainingPlan):
        raise ConvscopeError(
            f"plan={plan!r}", "a TrainingPlan, or None for inference", "write TrainingPlan(optimizer=...)"
        )
    if device not in get_args(Device):
        raise ConvscopeError(f"device {device!r}", "'cuda' or 'cpu'", "choose one of them")
    if decisions is not None and not isinstance(decisions, Decisions):
        raise ConvscopeError(
            f"decisions={decisions!r}", "Decisions, or None", "write Decisions((True, False)), say"
        )
    dtype = torch.bfloat16 if plan is not None and plan.precision == "bf16" else None
    with ExitStack() as modes:
        modes.enter_context(_ONE_AT_A_TIME)  # some switches of PyTorch are the whole process's
        modes.enter_context(outside_inference_mode())
        # It would decide when storages die, and walk PyTorch's heap.
        modes.enter_context(collector_at_rest(collect_first=False))
        modes.enter_context(attention_in_parts())
        state = modes.enter_context(
            simulated(
                model, inputs, training=plan is not None, dtype=dtype, real=real,
                channels_last=plan is not None and plan.channels_last,
            )
        )  # fmt: skip
        recorder = Recorder(model, state, device, decisions)
        modes.callback(recorder.note_progress)
        if not real:
            modes.enter_context(state.mode)
        if device == "cpu":  # the plan says what the precision is, not the caller's context
            modes.enter_context(torch.autocast("cpu", enabled=False))
        if device == "cuda":
            modes.enter_context(CudaAutocast())
            modes.enter_context(DeviceRewrites())
        modes.enter_context(recorder.own)
        modes.enter_context(recorder.attribution)
        modes.enter_context(recorder)
        try:
            outputs = _run(model, state, recorder, plan, step, device)
        except ConvscopeError:
            raise
        except Exception as error:
            raise network_failed(recorder.attribution.failed_in, error, real=real) from error
        return recorder.tape(outputs, training=plan is not None, device=device)


def _run(
    model: nn.Module,
    state: Simulated,
    recorder: Recorder,
    plan: TrainingPlan | None,
    step: Step | None,
    device: str,
) -> Any:
    if step is not None:
        with torch.autograd.graph.saved_tensors_hooks(recorder.pack, _unpack):
            return step(model, state.args, state.kwargs)
    if plan is None:
        return run_inference(model, state.args, state.kwargs)
    return _train(model, state, recorder, plan, device)


def _train(model: nn.Module, state: Simulated, recorder: Recorder, plan: TrainingPlan, device: str) -> Any:
    parameters = trainable(model)
    recorder.listening = False
    scaler = LossScaler(plan)
    recorder.mark((("", tensor) for tensor in scaler.standing), "optimizer-state", standing=True)
    recorder.keep(scaler)
    recorder.listening = True
    names = {id(tensor): name for name, tensor in reversed(state.parameters.items())}
    with torch.enable_grad():
        hooks = torch.autograd.graph.saved_tensors_hooks(recorder.pack, _unpack)
        with hooks, autocast_of(plan, device):
            outputs = model(*state.args, **state.kwargs)
            loss = loss_of(outputs, plan)
        recorder.mark_activations()
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    recorder.mark(
        ((names[id(p)], p.grad) for p in parameters), "gradient", standing=not plan.zero_grad_set_to_none
    )
    if parameters:
        _update(recorder, plan, scaler, parameters, names)
    return outputs


def _update(
    recorder: Recorder,
    plan: TrainingPlan,
    scaler: LossScaler,
    parameters: list[nn.Parameter],
    names: dict[int, str],
) -> None:
    optimizer = plan.make_optimizer(parameters)
    recorder.listening = False
    create_states(optimizer, parameters)
    for parameter, state in optimizer.state.items():
        kept = [(names[id(parameter)], item) for item in state.values() if isinstance(item, torch.Tensor)]
        recorder.mark(kept, "optimizer-state", standing=True)
    recorder.keep(optimizer)
    recorder.listening = True
    if plan.clip_grad_norm is not None:
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(parameters, plan.clip_grad_norm, foreach=bool(plan.foreach))
    if any(parameter.grad is not None for parameter in parameters):
        scaler.step(optimizer)
        scaler.update()


def _unpack(tensor: torch.Tensor) -> torch.Tensor:
    return tensor
