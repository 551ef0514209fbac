"""Reads the arguments for the shape of zeros, in any form that users may write."""

import re
from collections.abc import Sequence

from keras_trim.arguments import described, is_integer

# How users may write them.
BlockSize = Sequence[int] | int | str
ZerosOfGroup = Sequence[int] | str | None


def validate_pattern_arguments(
    block_size: object, block_pooling_type: object, sparsity_m_by_n: object
) -> tuple[tuple[int, int], tuple[int, int] | None]:
    """Checks the arguments as far as possible without a weight.

    Args:
        block_size: Two integers, or one for both, or a string such as `"4x4"`.
        block_pooling_type: `"AVG"` or `"MAX"`.
        sparsity_m_by_n: Two integers: zeros and group size. Or a string in hardware vendors'
            notation, such as `"2:4"`: weights kept and group size. Or `None`.

    Returns:
        `(block_size, sparsity_m_by_n)` as tuples of Python integers (the second may be `None`).

    Raises:
        ValueError: for anything else, or if both are given.
    """
    block_size = _block_size(block_size)
    if block_pooling_type not in ("AVG", "MAX"):
        raise ValueError(
            "`block_pooling_type` must be 'AVG' or 'MAX'. "
            f"Received: block_pooling_type={described(block_pooling_type)}"
        )
    if sparsity_m_by_n is None:
        return block_size, None
    zeros, group = _zeros_of_group(sparsity_m_by_n)
    if block_size != (1, 1):
        raise ValueError(
            "Give either `block_size` or `sparsity_m_by_n`: a weight has one pattern. "
            f"Received: block_size={block_size}, sparsity_m_by_n={(zeros, group)}"
        )
    return block_size, (zeros, group)


def _block_size(value: object) -> tuple[int, int]:
    if is_integer(value):
        value = (value, value)
    pair = _pair(value, "x")
    if pair is None or min(pair) < 1:
        raise ValueError(
            "`block_size` must be two integers of at least 1, input channels and output channels: "
            f"(4, 4), or 4 for both. Received: block_size={described(value)}"
        )
    return pair


def _zeros_of_group(value: object) -> tuple[int, int]:
    pair = _pair(value, ":")
    if pair is not None and isinstance(value, str):
        pair = pair[1] - pair[0], pair[1]
    if pair is None or not 1 <= pair[0] < pair[1] <= 127:
        raise ValueError(
            "`sparsity_m_by_n=(m, n)` asks for m zeros in every n consecutive weights, with "
            "1 <= m < n <= 127: (2, 4) or '2:4' is the 2:4 pattern. "
            f"Received: sparsity_m_by_n={described(value)}"
        )
    return pair


def _pair(value: object, separator: str) -> tuple[int, int] | None:
    """Returns two Python integers, or `None` if the value is something else."""
    if isinstance(value, str):
        found = re.fullmatch(rf"\s*(\d+)\s*{separator}\s*(\d+)\s*", value)
        return (int(found[1]), int(found[2])) if found else None
    try:
        pair = tuple(value)  # type: ignore[arg-type]
    except TypeError:
        return None
    if len(pair) != 2 or not all(map(is_integer, pair)):
        return None
    return int(pair[0]), int(pair[1])
