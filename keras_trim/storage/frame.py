"""What a file begins and ends with."""

import struct

# As in PNG: the first byte is not text, and a transfer that changes line endings damages the rest.
MAGIC = b"\x89KTRIM\r\n"
VERSION = 1
PREFIX = struct.Struct("<8sII")  # magic, version, zero
# Header: offset, stored size, decoded size, checksum. Then version, zero, magic.
TRAILER = struct.Struct("<QIIIII8s")
