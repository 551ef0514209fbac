"""Operations that run in Python."""

from keras_trim.inference.ir.dtypes import stored
from keras_trim.inference.ir.operations.host import HostOperation
from keras_trim.inference.lowering.registry import lowers
from keras_trim.inference.program.tensors import Tensor


@lowers(HostOperation)
def _lower_host_operation(op, builder, *inputs):
    specs = op.output_specs([x.shape for x in inputs])
    outputs = [Tensor(shape, "NHWC", stored(dtype)) for shape, dtype in specs]

    def call(*arrays):
        op.run(arrays[: -len(outputs)], arrays[-len(outputs) :])

    builder.label(op.label)
    builder.host(call, list(inputs), outputs)
    return outputs
