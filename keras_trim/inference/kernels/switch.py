"""A compiled function that dispatches to one of several: Numba compiles no table of functions."""

from keras_trim.inference.kernels.compiled import inner


def switch(parameters, cases):
    """Makes `function(key, *parameters)`, which calls the case of `key`.

    Args:
        parameters: String, the names of the parameters of all cases: "x, y, count".
        cases: Dictionary, integer -> compiled function or intrinsic. The last one also handles all
            keys without a case.
    """
    functions = {f"case_{key}": function for key, function in cases.items()}
    *tested, last = cases
    lines = [f"def call(key, {parameters}):"]
    for key in tested:
        lines += [f"    if key == {key}:", f"        case_{key}({parameters})", "        return"]
    lines.append(f"    case_{last}({parameters})")
    exec("\n".join(lines), functions)
    return inner(functions["call"])
