#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Make a .npy file from text, without numpy.

Usage: npy.py [--fortran] FILE DTYPE SHAPE VALUE...     FILE - is standard output; values repeat when they are too few
DTYPE is a code such as <f4, |b1, |S3, <U2 or a descr in Python text, whose data is then given as hexadecimal bytes.
"""
import math
import struct
import sys

CODES = {"i1": "b", "u1": "B", "i2": "h", "u2": "H", "i4": "i", "u4": "I", "i8": "q", "u8": "Q", "f2": "e", "f4": "f",
         "f8": "d", "b1": "?", "M8": "q", "m8": "q"}


def encode(dtype, value):
    order, code = dtype[0], dtype[1:].split("[")[0]
    if code[0] == "S":
        return value.encode().ljust(int(code[1:]), b"\0")
    if code[0] == "U":
        return value.encode("utf-32-be" if order == ">" else "utf-32-le").ljust(4 * int(code[1:]), b"\0")
    if code[0] == "c":
        half = {"c8": "f", "c16": "d"}[code]
        number = complex(value)
        return struct.pack(order + half * 2, number.real, number.imag)
    number = float(value) if code[0] == "f" else int(value)
    return struct.pack(("<" if order == "|" else order) + CODES[code], number)


def main():
    words = sys.argv[1:]
    fortran = words[0] == "--fortran"
    path, dtype, shape, *values = words[1:] if fortran else words
    dims = tuple(int(d) for d in shape.split(",") if d)
    count = math.prod(dims)
    if dtype.startswith("["):
        descr, data = dtype, bytes.fromhex("".join(values))
    else:
        descr = repr(dtype)
        data = b"".join(encode(dtype, values[i % len(values)]) for i in range(count)) if values else b""
    text = f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {dims!r}, }}"
    text = text.ljust((len(text) + 10 + 64) // 64 * 64 - 10 - 1 + 64) + "\n"
    header = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode("latin-1")
    with (sys.stdout.buffer if path == "-" else open(path, "wb")) as file:
        file.write(header + data)


if __name__ == "__main__":
    main()
