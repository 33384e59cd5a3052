"""The rows of the table: what every layer costs; together they are the whole network."""

from dataclasses import dataclass, replace

from convscope.core.units import FLOPS_PER_MAC
from convscope.cost.arithmetic.gradients import ParameterFlow
from convscope.cost.arithmetic.work import Work, work_by_layer
from convscope.cost.layers import Layer, Layers
from convscope.cost.parameters import distinct_parameters, nbytes, parameters_by_layer, region
from convscope.cost.row import Row, Totals, UnusedParameter
from convscope.cost.saved import Kept, kept_by_layer
from convscope.tape import Tape, TensorInfo
from convscope.tape.receptive_field import ReceptiveField, fields_and_whole


@dataclass(frozen=True)
class Table:
    """All rows of a network, their sums, and the parameters in none of them."""

    rows: tuple[Row, ...]
    totals: Totals
    unused_parameters: tuple[UnusedParameter, ...]


def table_of(tape: Tape) -> Table:
    """Return the table of a recorded step, with rows in order of execution.

    A layer that backward computed again (checkpointing) has one row. Products in backward that belong to no
    layer, as in a user's own step, are in the last row.
    """
    flow = ParameterFlow(tape)
    layers = Layers(tape, flow)
    work = work_by_layer(tape, layers, flow)
    owned = parameters_by_layer(tape, layers)
    kept = kept_by_layer(tape, layers)
    fields, whole = fields_and_whole(tape)
    rows = tuple(
        replace(
            _row(tape, layer, work[id(layer)], owned.get(id(layer), []), kept.get(id(layer), Kept()), fields),
            sees_whole_image=layer.output in whole,
        )
        for layer in layers.layers
    )
    read = {region(parameter) for parameters in owned.values() for parameter in parameters}
    unused = [parameter for parameter in distinct_parameters(tape) if region(parameter) not in read]
    return Table(rows, _totals(rows, unused), tuple(UnusedParameter(p.name, p.numel) for p in unused))


def _row(
    tape: Tape,
    layer: Layer,
    work: Work,
    parameters: list[TensorInfo],
    kept: Kept,
    fields: dict[int, ReceptiveField | None],
) -> Row:
    output = None if layer.output is None else tape.values[layer.output]
    return Row(
        address=str(layer.address),
        path=layer.address.path,
        type_name=layer.type_name,
        op=layer.op,
        phase=layer.phase,
        output_shape=output.shape if output else (),
        activations=output.numel if output else 0,
        activation_bytes=output.nbytes if output else 0,
        params=sum(parameter.numel for parameter in parameters),
        parameter_bytes=sum(nbytes(parameter) for parameter in parameters),
        macs=work.macs,
        forward_flops=FLOPS_PER_MAC * work.macs,
        backward_input_flops=FLOPS_PER_MAC * work.input_macs,
        backward_weight_flops=FLOPS_PER_MAC * work.weight_macs,
        recompute_flops=FLOPS_PER_MAC * work.recomputed_macs,
        elementwise_ops=work.elementwise,
        saved_bytes=kept.nbytes,
        index_bytes=kept.index_bytes,
        receptive_field=None if output is None else fields.get(output.index),
    )


def _totals(rows: tuple[Row, ...], unused: list[TensorInfo]) -> Totals:
    def total(field: str) -> int:
        return sum(getattr(row, field) for row in rows)

    forward = total("forward_flops")
    for_input, for_weight = total("backward_input_flops"), total("backward_weight_flops")
    return Totals(
        params=total("params") + sum(parameter.numel for parameter in unused),
        parameter_bytes=total("parameter_bytes") + sum(nbytes(parameter) for parameter in unused),
        activations=total("activations"),
        macs=total("macs"),
        forward_flops=forward,
        backward_input_flops=for_input,
        backward_weight_flops=for_weight,
        backward_flops=for_input + for_weight,
        step_flops=forward + for_input + for_weight,
        recompute_flops=total("recompute_flops"),
        elementwise_ops=total("elementwise_ops"),
        saved_bytes=total("saved_bytes"),
        index_bytes=total("index_bytes"),
    )
