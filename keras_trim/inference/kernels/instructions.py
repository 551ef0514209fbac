"""The instructions of a program: each declared once, with its operands by name.

Everything else derives from these declarations: `Builder.emit` checks operands against them,
kernels find the operand `x` at `INSTRUCTION.at.x`, the interpreter dispatches by `code`, and the
dump of a program prints operands by name.

An operand is one integer. `name:arena` is a place in the arena. `name:constants`, `name:index` and
`name:short_index` are places in the constant pools (float32, int32, uint16). A bare `name` is a
number. `?` marks an optional operand, 0 if left out. `name[8]` is eight integers in a row. Factors
are float32. Distances and sizes are in floats.
"""

import dataclasses
import re
import types

OPERANDS = 40  # integers per instruction, including its code, the first
FACTORS = 4  # float32 per instruction
AXES = 8  # of the instructions over strided axes

INSTRUCTIONS = []  # indexed by code
_KERNELS = {}  # name of an instruction -> compiled function
_WORD = re.compile(r"(\w+?)(?:\[(\d+)\])?(?::(arena|constants|index|short_index))?(\?)?")


@dataclasses.dataclass(frozen=True)
class Operand:
    """One operand of an instruction.

    Args:
        name: String.
        kind: String, "arena", "constants", "index", "short_index" or "number".
        count: Integer. How many integers it has.
        is_optional: Boolean. Whether it may be left out.
    """

    name: str
    kind: str
    count: int
    is_optional: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Instruction:
    """A kind of instruction.

    Args:
        name: String.
        code: Integer, in the first column of its row.
        does: String. What it computes.
        operands: Tuple of `Operand`.
        factors: Tuple of strings.
        at: Module. The column of each operand in its row, and of each factor in the row of factors.
            Numba compiles a module's attributes to constants. With a named tuple, it would build
            the whole tuple for each access.
    """

    name: str
    code: int
    does: str
    operands: tuple
    factors: tuple
    at: types.ModuleType

    def encode(self, values):
        """Returns the operands and factors of one instruction, in order.

        Args:
            values: Dictionary, name -> operand or factor.

        Returns:
            `(operands, factors)`, lists.

        Raises:
            TypeError: if a name is unknown or missing, or a list has the wrong length.
        """
        values, operands = dict(values), []
        for operand in self.operands:
            if operand.name not in values and not operand.is_optional:
                raise TypeError(f"The instruction {self.name} needs the operand {operand.name}.")
            value = values.pop(operand.name, 0 if operand.count == 1 else [0] * operand.count)
            if operand.count == 1:
                operands.append(value)
                continue
            if len(value) != operand.count:
                raise TypeError(
                    f"The operand {operand.name} of the instruction {self.name} is "
                    f"{operand.count} integers. Received: {value!r:.100}"
                )
            operands += value
        missing = [name for name in self.factors if name not in values]
        factors = [values.pop(name, None) for name in self.factors]
        if missing or values:
            raise TypeError(
                f"The instruction {self.name} has the factors {self.factors}. "
                f"Received: {sorted(values)} besides its operands, and not {missing}"
            )
        return operands, factors

    def decode(self, row, factors):
        """Maps names to values, for a row of the table and its factors; used by dumps."""
        values = {}
        for operand in self.operands:
            first = getattr(self.at, operand.name)
            part = row[first : first + operand.count].tolist()
            values[operand.name] = part[0] if operand.count == 1 else part
        return values | dict(zip(self.factors, factors.tolist(), strict=False))


def executes(instruction):
    """Registers the compiled function that runs an instruction."""

    def register(function):
        _KERNELS[instruction.name] = function
        return function

    return register


def kernel_of(instruction):
    """Returns the function registered for an instruction, or `None`."""
    return _KERNELS.get(instruction.name)


def _operands(words):
    operands = []
    for word in words.split():
        name, count, kind, optional = _WORD.fullmatch(word).groups()
        operands.append(Operand(name, kind or "number", int(count or 1), optional is not None))
    return tuple(operands)


def _instruction(name, does, words, factors=""):
    operands, factors = _operands(words), tuple(factors.split())
    columns, column = {}, 1
    for operand in operands:
        columns[operand.name] = column
        column += operand.count
    if column > OPERANDS or len(factors) > FACTORS:
        raise ValueError(f"{name} has too many operands.")
    columns |= {factor: number for number, factor in enumerate(factors)}
    at = types.ModuleType(f"{name}_at")
    vars(at).update(columns)
    instruction = Instruction(name, len(INSTRUCTIONS), does, operands, factors, at)
    INSTRUCTIONS.append(instruction)
    return instruction


# Operands that several instructions share.
_PLANES = """
    x:arena x_sample x_plane y:arena y_sample y_plane batch channels height width"""
# `values` are the weights of a product, `num_values` per output channel, or the factors of a sum,
# one per pixel.
_WINDOWS = f"""{_PLANES}
    multiplier out_height out_width top left stride_y stride_x kind taps values:constants num_values
    bias:constants flags"""
_WINDOW_FACTORS = "low high pad_value"
_SPMV = """
    x:arena x_row y:arena y_row batch outputs starts:index? columns:short_index? values:constants
    bias:constants flags inputs vectors lanes:short_index?"""
_COPY = "x:arena y:arena batch x_sample y_sample rows columns x_row y_row"

SPMM = _instruction(
    "spmm",
    "y = clip(weights * x + bias + residual) over planes of pixels",
    """
    x:arena x_sample y:arena y_sample batch plane pixels row width height
    runs:index num_runs table:index num_groups blocks offsets:index values:constants bias:constants
    residual:arena? residual_sample? scratch:arena? scratch_size? flags vectors mode
    copies:index? num_copies? packed? length? starts:index? masks:short_index?
    inside:short_index? taps? per_tap?""",
    "low high",
)
PAD = _instruction(
    "pad",
    "y = x with padding written out, and strides taken apart into phases",
    f"""{_PLANES}
    phase_plane row rows top left stride_y stride_x input_dilation_y input_dilation_x phases_y
    phases_x starts:index? masks:short_index? vectors?""",
    "value",
)
DWCONV_PADDED = _instruction(
    "dwconv_padded",
    "windows of each plane, on a padded copy of it",
    f"""{_WINDOWS}
    rows row offsets:index scratch:arena scratch_size padded_plane phases_y phases_x together""",
    _WINDOW_FACTORS,
)
DWCONV_MASKED = _instruction(
    "dwconv_masked",
    "windows of each plane, whole vectors of it, with masks at its edges",
    f"{_WINDOWS} shifts:index masks:short_index vectors scratch:arena? scratch_size?",
    _WINDOW_FACTORS,
)
DWCONV_ROLLING = _instruction(
    "dwconv_rolling",
    "windows of each plane, down its lines, the sums of several lines in registers",
    f"{_WINDOWS} number others:arena others_size",
    _WINDOW_FACTORS,
)
IM2COL = _instruction(
    "im2col",
    "y[c * taps + t] = what tap t of a window reads of x[c]",
    f"{_PLANES} out_height out_width taps offsets:index",
)
UNARY = _instruction("unary", "y = function(x)", "x:arena y:arena size function", "a b")
BINARY = _instruction("binary", "out = function(x, y)", "x:arena y:arena out:arena size function")
GLOBAL_POOL = _instruction(
    "global_pool",
    "y = mean or maximum of each plane",
    "x:arena x_sample x_plane y:arena batch channels pixels is_max",
)
TRANSPOSE = _instruction("transpose", "y[n, j, i] = x[n, i, j]", _COPY)
COPY = _instruction("copy", "y[n, i, :] = x[n, i, :]", _COPY)
GATHER = _instruction(
    "gather", "y[i, :] = table[x[i], :]", "table:constants length width size y:arena x:arena"
)
SPMV_CSR = _instruction("spmv_csr", "y = clip(weights . x + bias), CSR weights", _SPMV, "low high")
GEMV = _instruction("gemv", "y = clip(weights . x + bias), dense weights", _SPMV, "low high")
SOFTMAX = _instruction("softmax", "softmax of each row", "x:arena y:arena rows width is_log")
LAYER_NORM = _instruction(
    "layer_norm",
    "normalization of each row",
    "x:arena y:arena rows width gamma:constants beta:constants is_rms",
    "epsilon",
)
MOVE = _instruction(
    "move",
    "y[i] = x[i] over strided axes",
    f"x:arena y:arena sizes[{AXES}] x_strides[{AXES}] y_strides[{AXES}]",
)
FILL = _instruction("fill", "y[:] = value", "y:arena size", "value")
CONSTANT = _instruction("constant", "y[:] = constant[:]", "y:arena size constant:constants")
SCALE = _instruction(
    "scale",
    "y[i, :] = x[i, :] * scale + shift, per column or, with channels, per plane",
    "x:arena y:arena rows width scale:constants shift:constants channels",
)
BROADCAST = _instruction(
    "broadcast",
    "out[i] = function(x[i], y[i]) over strided axes",
    f"""x:arena y:arena out:arena function sizes[{AXES}] x_strides[{AXES}] y_strides[{AXES}]
    out_strides[{AXES}]""",
)
CELL = _instruction(
    "cell",
    "the state of a recurrent layer after a time step",
    """
    kind samples units width input:arena input_sample input_unit sums:arena sums_sample
    candidate:arena candidate_sample state:arena carry:arena state_sample y:arena? y_sample? y_unit?
    has_output? mask:arena? mask_sample? has_mask? zeroes? activation recurrent_activation""",
    "a b recurrent_a recurrent_b",
)
SPMV_SELL = _instruction(
    "spmv_sell", "y = clip(weights . x + bias), sliced ELLPACK weights", _SPMV, "low high"
)
RESIZE = _instruction(
    "resize",
    "images of another size, a blend of two by two pixels or the nearest",
    """
    x:arena x_plane y:arena y_plane planes width out_height out_width is_blend rows:index
    row_weights:constants columns:short_index column_weights:constants scratch:arena
    scratch_size""",
)
GROUP_NORM = _instruction(
    "group_norm",
    "normalization of groups of planes",
    "x:arena y:arena plane pixels batch groups width gamma:constants beta:constants",
    "epsilon",
)
TAKE_INPUT = _instruction(
    "take_input",
    "y = the array whose address stands at source; checks tell whether it is finite",
    "source:arena y:arena size checks:arena",
)
# A task is a list of instructions that one thread runs alone: for a band of an image, or for a
# branch of a network. Their rows follow those of the program, once per thread, because each thread
# keeps intermediate values in its own memory. `one` is the number of threads that share a task. It
# is an operand to hide its value from the compiler, which would compile all kernels a second time.
_MOST_TASKS = OPERANDS - 6
TASKS = _instruction(
    "tasks",
    "tasks that one thread each runs",
    f"num_tasks first_row rows_per_thread one begins[{_MOST_TASKS + 1}]?",
)
MOST_TASKS = _MOST_TASKS
KN2ROW = _instruction(
    "kn2row",
    "a convolution whose sums move along the lines of the image",
    """
    x:arena x_sample row y:arena y_sample plane batch height width lines outputs shifts blocks
    starts:index counts:index offsets:index values:constants bias:constants residual:arena?
    residual_sample? scratch:arena? scratch_size? flags places:index packed channels x_plane
    x_height x_width top left reach inside:short_index""",
    "low high",
)
DWCONV_SMALL = _instruction(
    "dwconv_small",
    "windows that cover the whole plane, as a product of its pixels with a matrix",
    f"{_PLANES} multiplier pixels values:constants bias:constants flags",
    "low high",
)
