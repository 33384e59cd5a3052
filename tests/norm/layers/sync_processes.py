"""Three processes that run the scenarios of test_sync.py one by one, and write down what they find."""

import contextlib
import copy
import datetime
import pickle
import time
import traceback
import warnings

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import convscope as cs
from convscope.core.errors import ConvscopeError
from convscope.norm.engine import exchange
from convscope.norm.engine.exchange import ProcessExchange
from convscope.norm.layers.sync import SyncBatchNorm
from norm.layers.sync_cases import CASES, STEPS, parameters, shares
from processes import FORKING

NUM_PROCESSES = 3
SCENARIOS = {}


def scenario(function):
    """Register a scenario: a function of the rank and the group of the first two processes."""
    SCENARIOS[function.__name__] = function
    return function


def found_by(folder, names, seconds=120):
    """Run scenarios on three new processes; return each one's findings, by scenario."""
    processes = [
        FORKING.Process(target=work, args=(rank, str(folder), names)) for rank in range(NUM_PROCESSES)
    ]
    end = time.monotonic() + seconds
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join(end - time.monotonic())
    finally:
        for process in processes:
            process.kill()
            process.join()
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(NUM_PROCESSES)]


def work(rank, folder, names):
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    limit = datetime.timedelta(seconds=30)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=NUM_PROCESSES, timeout=limit
    )
    pair = dist.new_group([0, 1], timeout=limit)
    findings = {}
    for name in names:
        try:
            torch.manual_seed(rank)
            findings[name] = SCENARIOS[name](rank, pair)
        except Exception:  # the processes are no longer in step: the rest can't be run
            findings["failed"] = f"{name} on process {rank}: {traceback.format_exc()}"
            break
    torch.save(findings, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def error_of(function, *args):
    """Return the message of the ConvscopeError that a call raises."""
    try:
        function(*args)
    except ConvscopeError as error:
        return str(error)
    return None


def layer_of(channels, dtype=torch.float32, **options):
    layer = SyncBatchNorm(channels, **options)
    if layer.affine:
        with torch.no_grad():
            for parameter, value in zip(layer.parameters(), parameters(channels)):
                parameter.copy_(value)
    return layer.double() if dtype == torch.float64 else layer


@scenario
def batches(rank, pair):
    """Forward and backward, twice, of every case, by all processes and by the first two."""
    found = {("all", name): steps(name, rank, None) for name in CASES}
    if rank < 2:
        found |= {("pair", name): steps(name, rank, pair) for name in CASES}
    return found


def steps(name, rank, group):
    case = CASES[name]
    layer = layer_of(case.channels, case.dtype, process_group=group, **case.options)
    usual, exchange.FRAME_BYTES = exchange.FRAME_BYTES, case.frame or exchange.FRAME_BYTES
    found = []
    for step in range(STEPS):
        share = shares(name, step)[rank]
        x = share.x.requires_grad_()
        y = layer(x, share.mask)
        grads = torch.autograd.grad(y, [x, *layer.parameters()], share.dy)
        found.append((y.detach(), y.stride() == x.stride(), grads))
    exchange.FRAME_BYTES = usual
    return found, layer.state_dict()


@scenario
def derivatives(rank, pair):
    """Second and third derivatives, one process with nothing."""
    return {name: derivatives_of(name, rank) for name in ("float64", "the second has nothing", "masks")}


def derivatives_of(name, rank):
    layer = layer_of(3, eps=1e-2).double()
    share = shares(name, 0)[rank]
    x = share.x.double().requires_grad_()
    inputs = [x, layer.weight, layer.bias]
    output = layer(x, share.mask) * share.dy.double()
    found = []
    for _ in range(3):
        first, *rest = torch.autograd.grad(output.sum(), inputs, create_graph=True, allow_unused=True)
        found.append([first, *(grad if grad is None else grad.detach() for grad in rest)])
        output = first.square() + first * share.dy.double()
    return found


@scenario
def sums(rank, pair):
    """The sum over processes, and the gradient of (rank + 1) times it on each of them."""
    share = torch.arange(3.0).add(10**rank).requires_grad_()
    before = share.detach().clone()
    whole = ProcessExchange(SyncBatchNorm(3), None, True, torch.float32).total(share)
    weights = torch.full((3,), rank + 1.0)
    (gradient,) = torch.autograd.grad((whole * weights).sum(), share)
    return whole.detach(), gradient, torch.equal(share, before), weights[0].item() == rank + 1


class Block(nn.Module):
    """Two synchronised layers, in a checkpoint or not."""

    def __init__(self, reentrant=None):
        super().__init__()
        self.reentrant = reentrant
        self.body = nn.Sequential(
            nn.Conv2d(4, 4, 3, padding=1), SyncBatchNorm(4), nn.Tanh(), nn.Conv2d(4, 4, 1), SyncBatchNorm(4)
        )

    def forward(self, x):
        if self.reentrant is None:
            return self.body(x)
        return checkpoint(self.body, x, use_reentrant=self.reentrant)


def network(reentrant=None, group=None):
    torch.manual_seed(5)
    blocks = [Block(reentrant) for _ in range(3)]
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3), SyncBatchNorm(4), *blocks, nn.Flatten(), nn.Linear(64, 3)
    ).double()
    for module in net.modules():
        if isinstance(module, SyncBatchNorm):
            module.process_group = group
    return net


def images(rank, step=0):
    generator = torch.Generator().manual_seed(100 * step + rank)
    return torch.randn(2, 2, 6, 6, generator=generator, dtype=torch.float64)


def gradients(net):
    return {name: parameter.grad.clone() for name, parameter in net.named_parameters()}


@scenario
def data_parallel(rank, pair):
    """Gradients and averages of DDP: all processes, two of them, two micro-batches, checkpoints."""
    found = {"all": in_ddp(network(), rank, None)}
    found["accumulated"] = in_ddp(network(), rank, None, micro_batches=2)
    found["checkpoint"] = in_ddp(network(reentrant=False), rank, None)
    if rank < 2:
        found["pair"] = in_ddp(network(group=pair), rank, pair)
    return found


def in_ddp(net, rank, group, micro_batches=1):
    wrapped = DistributedDataParallel(net, process_group=group)
    for step in range(micro_batches):
        with contextlib.nullcontext() if step == micro_batches - 1 else wrapped.no_sync():
            wrapped(images(rank, step)).square().mean().backward()
    return gradients(net), net.state_dict()


@scenario
def checkpoints(rank, pair):
    """The recomputation exchanges again; both kinds of checkpoints beside none."""
    found = {}
    for reentrant in (None, False, True):
        net = network(reentrant)
        x = images(rank).requires_grad_()
        net(x).square().mean().backward()
        found[reentrant] = (gradients(net) | {"x": x.grad}, net.state_dict())
    return found


@scenario
def alone(rank, pair):
    """What the first process does while the others do nothing: no exchange, or it would wait for ever."""
    if rank != 0:
        return None
    net = network()
    found = {"eval": net.eval()(images(0)).detach()}
    net.train()
    layer = SyncBatchNorm(4, track_running_stats=False).eval()
    found["no averages"] = layer(torch.randn(2, 4, 3, 3)).mean().item()
    before = copy.deepcopy(net.state_dict())
    tape = cs.record(net.float(), (2, 2, 6, 6), plan=cs.TrainingPlan())
    found["operators"] = [call.overload for call in tape.calls if "convscope" in call.overload]
    found["macs"] = cs.cost(net, (2, 2, 6, 6), plan=cs.TrainingPlan()).totals.macs
    after = net.double().state_dict()
    found["moved"] = [key for key in before if "num_batches" in key and before[key] != after[key]]
    found["meta"] = tuple(SyncBatchNorm(4, device="meta")(torch.empty(2, 4, 3, 3, device="meta")).shape)
    single = dist.new_group([0], use_local_synchronization=True)
    lone = SyncBatchNorm(4, process_group=single)
    x = images(0).float().repeat(1, 2, 1, 1)
    found["group of one"] = (x, lone(x).detach(), lone.state_dict())
    return found


@scenario
def copies(rank, pair):
    """Deep copies share the group; a layer with a group of its own can't be pickled."""
    x, default = torch.randn(4, 3, 2, 2), SyncBatchNorm(3)
    found = {"pickled": torch.equal(pickle.loads(pickle.dumps(default))(x), default(x))}
    if rank < 2:
        layer = SyncBatchNorm(3, process_group=pair)
        twin = copy.deepcopy(layer)
        found["same group"] = twin.process_group is layer.process_group
        found["same output"] = torch.equal(layer(x), twin(x))
        found["own tensors"] = twin.running_mean is not layer.running_mean
        for kind in (SyncBatchNorm, nn.SyncBatchNorm):
            try:
                pickle.dumps(kind(3, process_group=pair))
            except TypeError as error:
                found[kind] = str(error)
    return found


@scenario
def disagreements(rank, pair):
    """Every process gets an error, and the processes stay in step."""
    net = nn.Sequential(nn.Identity(), SyncBatchNorm(4 + rank // 2))
    found = {"channels": error_of(net, torch.randn(2, 4 + rank // 2, 3))}
    many = SyncBatchNorm(1100 + rank)
    found["many channels"] = error_of(many, torch.randn(2, 1100 + rank))
    layer = SyncBatchNorm(3)
    dtype = torch.bfloat16 if rank == 1 else torch.float32
    found["dtype"] = error_of(layer, torch.randn(2, 3, 4).to(dtype))
    found["wide dtype"] = error_of(layer, torch.randn(2, 3, 4).to(torch.float64 if rank == 1 else dtype))
    with torch.set_grad_enabled(rank != 0):
        found["gradients"] = error_of(layer, torch.randn(2, 3, 4))
    found["refused"] = error_of(layer, torch.randn(2, 5 if rank == 1 else 3, 4))
    found["integers"] = error_of(layer, torch.ones(2, 3, 4, dtype=torch.int64 if rank == 2 else None))
    found["mask"] = error_of(layer, torch.randn(2, 3), torch.ones(3 if rank == 0 else 2, dtype=torch.bool))
    found["one value"] = error_of(layer, torch.randn(int(rank == 1), 3))
    found["no values"] = error_of(layer, torch.randn(0, 3, 4))
    found["all masked"] = error_of(layer, torch.randn(2, 3), torch.zeros(2, dtype=torch.bool))
    found["unmoved"] = layer.num_batches_tracked.item()
    found["in step"] = layer(torch.full((2, 3), float(rank))).detach()
    if rank == 2:
        found["not a member"] = error_of(SyncBatchNorm(3, process_group=pair), torch.randn(2, 3))
    return found


@scenario
def not_finite(rank, pair):
    """NaN on one process moves no average on any, and each reports it."""
    layer = SyncBatchNorm(3)
    x = torch.randn(4, 3)
    if rank == 1:
        x[0, 1] = torch.nan
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        y = layer(x)
    return [type(each.message).__name__ for each in caught], layer.state_dict(), y.isnan().any(0).tolist()


@scenario
def a_process_in_eval_mode(rank, pair):
    """The last process is in eval mode and exchanges nothing, the others wait until the timeout."""
    group = dist.new_group([0, 1, 2], timeout=datetime.timedelta(seconds=3))
    layer = SyncBatchNorm(3, process_group=group).train(rank != 2)
    message = error_of(layer, torch.randn(2, 3))
    dist.barrier()
    return message


@scenario
def a_process_without_backward(rank, pair):
    """The first process runs no backward pass, the others wait until the timeout."""
    group = dist.new_group([0, 1, 2], timeout=datetime.timedelta(seconds=3))
    dist.barrier()
    y = SyncBatchNorm(3, process_group=group)(torch.randn(2, 3))
    message = None if rank == 0 else error_of(y.sum().backward)
    dist.barrier()
    return message


@scenario
def compiled(rank, pair):
    """Compiled code runs the layer eagerly where it exchanges, and without a break where it doesn't."""
    warnings.simplefilter("default")  # the compiler's own
    net = network()
    run = torch.compile(net, backend="eager")
    x = images(rank).requires_grad_()
    run(x).square().mean().backward()
    found = {"gradients": gradients(net) | {"x": x.grad}, "state": net.state_dict()}
    whole = torch.compile(network().eval(), backend="eager", fullgraph=True)
    found["eval"] = whole(images(rank)).detach(), network().eval()(images(rank)).detach()
    return found


@scenario
def a_lost_process(rank, pair):
    """The last process ends, the others run the layer: the last scenario."""
    return None if rank == 2 else error_of(SyncBatchNorm(3), torch.randn(2, 3))
