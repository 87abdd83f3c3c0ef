# SPDX-License-Identifier: Apache-2.0
"""The engine's reader and writer of .npy headers against numpy's.

    npy_headers.py NPY_DUMP [SEED [CASES]]

What the engine accepts numpy must accept, with the same numbers. What numpy accepts the engine may refuse only for a
reason of the list below: Python that no writer of headers produces. A failure prints the header; the seed is printed.
"""
import ast
import io
import itertools
import random
import re
import struct
import subprocess
import sys
import warnings

import numpy as np

from numpy.lib import format as npformat

try:  # where numpy 2 keeps what all versions of the format share
    from numpy.lib import _format_impl as npshared
except ImportError:
    npshared = npformat

warnings.simplefilter("ignore")

# Reasons that the engine gives for refusing what numpy reads, each with a pattern of the header that makes it right.
NARROWER = [
    (r"negative number", r"\(.*-"),
    (r"plain decimal digits", r"\d_\d|0[xXoObB]|\d[eE.jJ]|3 ?L *L"),
    (r"whole number is expected.*\"[+~(\[TF]", r""),              # +1, ((3),), [2], True
    (r"has the key '\w+' twice", r""),
    (r"unknown key '.*\\", r"\\"),                               # an escape inside a key
    (r"is no dtype of numpy's", r"\\|[,()\s/]|'\d|\+|\[0"),      # 'i4,f4', '(2,)f4', '\x3cf4', 'S+5', 'M8[D/2]'
    (r"where \"[\"']", r"[\"'][\"']|[\"']\s*[\"']"),             # joined and triple-quoted strings
    (r"unknown key '", r"['\"][rRuU]?['\"]"),
    (r"behind a field's name", r"\(\s*[uU]?'..'\s*\)"),         # a string of two letters as a field
    (r"behind a field's name", r"\(\("),                         # parentheses around a field
    (r"items that have no size", r""),                           # ('a', 'S', 4) and ('a', 'S', '<f4')
    (r"where \"[rR]", r"[rR][\"']"),
    (r"where \"\\", r"\\"),                                      # a line that a backslash continues
    (r"where \"\(", r"\("),                                      # parentheses around a value
    (r"behind the shape", r"\("),
    (r"instead of the tuple", r"\(\s*\("),
    (r"", r"'shape'.*'shape'"),                                  # a key twice, wrong where the second one hides it
    (r"where \"\[", r"\["),                                      # a field or a shape as a list
    (r"where \"[+\-~]", r""),
    (r"is no escape", r"\\N"),
    (r"2\^63 - 1", r""),
    (r"more than 64 dimensions", r""),
    (r"nested more than", r""),
    (r"a subarray has more than", r""),
    (r"title and name|field's title|a string is expected", r"\(\("),  # titles that are neither a string nor a number
]

# What the engine reads and numpy does not: quirks of Python's tokenizer with line ends that are no part of the format.
WIDER = [
    rb"\A.{6}\x03.{5}.*\n[ \t\f]+\Z",  # version 3 with blanks behind the last newline
    rb"\A.{10}(..)?[ \t\f]*\r",         # a carriage return before the dict
]


class Engine:
    """Collects requests, asks them all in one run of npy-dump."""

    def __init__(self, program):
        self.program, self.requests = program, []

    def add(self, what, data, argument="x"):
        self.requests.append(f"{what} {len(data)} {argument}\n".encode() + data)

    def run(self):
        done = subprocess.run([self.program], input=b"".join(self.requests), stdout=subprocess.PIPE, check=True)
        answers = done.stdout.decode("latin1").split("\n")[:-1]
        assert len(answers) == len(self.requests), (len(answers), len(self.requests))
        self.requests = []
        return answers


def wrap(text, version=1):
    data = text if isinstance(text, bytes) else text.encode("latin1")
    return npformat.magic(version, 0) + struct.pack("<H" if version == 1 else "<I", len(data)) + data


def numpy_reads(data):
    """(shape, fortran, dtype, offset), or the exception. What is no shape of an array counts as refused."""
    f = io.BytesIO(data)
    try:
        version = npformat.read_magic(f)
        if version not in [(1, 0), (2, 0), (3, 0)]:
            raise ValueError("version")
        shape, fortran, dtype = npshared._read_array_header(f, version=version, max_header_size=1 << 20)
        return shape, fortran, dtype, f.tell()
    except Exception as problem:  # numpy lets TokenError, RecursionError, IndexError and others through
        return problem


def fields(answer):
    return dict(part.split("=", 1) for part in answer[3:].split(" "))


def compare(data, answer, failures):
    theirs = numpy_reads(data)
    text = data[10 if data[6:7] == b"\x01" else 12:].decode("latin1")
    if answer.startswith("ok"):
        if isinstance(theirs, Exception) and any(re.search(wider, data, re.S) for wider in WIDER):
            return "wider"
        if isinstance(theirs, Exception):
            failures.append(("only the engine reads it", data, answer, repr(theirs)))
            return "differs"
        shape, fortran, dtype, offset = theirs
        ours = fields(answer)
        start, length = map(int, ours["descr"].split("+"))
        item = 0 if dtype.hasobject else dtype.itemsize
        rows = int(np.prod(shape, dtype=object)) if shape else 1
        expected = {
            "shape": ",".join(map(str, shape)), "fortran": str(int(fortran)), "item": str(item), "offset": str(offset),
            "data": str(rows * item),
            "row": str(item * int(np.prod(shape[1:], dtype=object))) if shape else "0",
        }
        for key, value in expected.items():
            if ours[key] != value:
                failures.append((f"{key} is {ours[key]}, numpy says {value}", data, answer, repr(theirs)))
                return "differs"
        if (int(ours["kind"]) == 10) != dtype.hasobject:
            failures.append(("object or not", data, answer, repr(theirs)))
        try:
            value = ast.literal_eval(data[start:start + length].decode("utf-8" if ours["version"] == "3" else "latin1"))
            if npformat.descr_to_dtype(value) != dtype:
                failures.append(("the descr's text is another dtype", data, answer, repr(theirs)))
        except SyntaxError:
            pass  # an L in the descr; its numbers were compared
        return "both read"
    if isinstance(theirs, Exception):
        return "both refuse"
    if any(isinstance(n, bool) for n in theirs[0]):
        return "narrower"
    reason = answer.split(" ", 1)[1]
    for why, pattern in NARROWER:
        if re.search(why, reason) and re.search(pattern, text, re.S):
            return "narrower"
    failures.append(("only numpy reads it", data, answer, repr(theirs)))
    return "differs"


DTYPES = ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "f16", "c8", "c16", "c32", ">i2",
          ">u4", ">i8", ">f2", ">f4", ">f8", ">c16", "S1", "S10", "U1", "U7", ">U7", "V1", "V16", "M8[ns]", "M8[D]", ">M8[us]",
          "m8[25s]", "m8", "O"]
STRUCTURED = [
    [("a", "i1"), ("b", "f8")],
    [("a", "i1"), ("b", "f8", (2, 3)), ("c", ">U3")],
    [("a", [("b", "f4"), ("c", [("d", "M8[s]"), ("e", "?")], (2,))]), ("f", "S5")],
    [(("a title", "a"), "f4"), ("b", "O")],
    [("a", "O", (2,)), ("b", "i1")],
    [("it's", "f4"), ('say "x"', "f4"), ("back\\slash", "f4"), ("tab\t", "f4"), ("nul\0l", "f4")],
    [("é", "f4")], [("日本", "f4"), ("b", "u1")],
    [("x%d" % i, "f4") for i in range(300)],
    np.dtype([("a", "i1"), ("b", "f8"), ("c", "i2")], align=True),
    np.dtype({"names": ["a", "b"], "formats": ["u1", "f4"], "offsets": [3, 9], "itemsize": 20}),
    np.dtype({"names": ["a"], "formats": [("f4", (2, 2))], "offsets": [0], "itemsize": 32}),
    np.dtype([("a", np.dtype([("x", "i1"), ("y", "i4")], align=True)), ("b", "i1")], align=True),
    [("", "f4")], [("a", "S0"), ("b", "f4")], [("a", "f4", (0,)), ("b", "f4")],
]
SHAPES = [(), (0,), (1,), (9,), (10,), (3, 4), (4, 0), (0, 7), (1, 1, 1, 1), (123456789,), (2, 3, 4, 5, 6, 7)]


def header_of(dtype, shape, fortran, version=None):
    f = io.BytesIO()
    d = {"shape": shape, "fortran_order": fortran, "descr": npformat.dtype_to_descr(np.dtype(dtype))}
    npshared._write_array_header(f, d, version)
    return f.getvalue(), d["descr"]


def test_written_by_numpy(engine):
    """Every header numpy writes is read, and the engine writes the same bytes."""
    headers, failures = [], []
    for dtype, shape, fortran in itertools.product(DTYPES + STRUCTURED, SHAPES, [False, True]):
        for version in [None, (2, 0), (3, 0)]:
            try:
                data, descr = header_of(dtype, shape, fortran, version)
            except UnicodeEncodeError:
                continue
            headers.append((data, version, repr(descr), shape, fortran))
            engine.add("parse", data)
            engine.add("format", repr(descr).encode("utf8"), ("F:" if fortran else "C:") + ",".join(map(str, shape)))
    answers = engine.run()
    for (data, version, descr, shape, fortran), parsed, made in zip(headers, answers[::2], answers[1::2]):
        if compare(data, parsed, failures) != "both read":
            failures.append(("written by numpy, not read", data, parsed, ""))
        # Where only latin-1 letters are beyond ASCII numpy takes version 1, the engine 3.
        if version is None and descr.isascii() and made != "ok " + data.hex():
            failures.append(("not written as numpy does", data, made, descr))
    return len(headers), failures


TEXTS = """{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }          \n
{"shape":(3,4),"fortran_order":True,"descr":"<f4"}
{'descr': '<f4', 'fortran_order': False, 'shape': (3L, 4L), }  \n
{'descr': '>M8[25s]', 'fortran_order': True, 'shape': (), }
{'descr': [('a', '<f4'), ('b', '|S10', (2,)), (('t', 'c'), '>U3')], 'fortran_order': False, 'shape': (9,), }    \n
{'descr': [('a', [('x', '|u1'), ('', '|V3'), ('y', '<i4')]), ('b', '|O')], 'fortran_order': False, 'shape': (9,)}
{'descr': [('a', ('<f4', (2,)), 3)], 'fortran_order': False, 'shape': (100,), }
{'descr': 'float32', 'fortran_order': False, 'shape': ((  10, 3)), }
{'descr': '|S0', 'fortran_order': False, 'shape': (000, 1)}  # note
{'descr': u'<i8',\n 'fortran_order': False,\n 'shape': ( 7, # rows\n ),\n}\n""".split("\n{")
TEXTS = [t if t.startswith("{") else "{" + t for t in TEXTS]
TOKENS = ["'", '"', "(", ")", "[", "]", "{", "}", ",", ":", " ", "\n", "\r", "\t", "\f", "\v", "#", "\\", "-", "+", "0",
          "1", "9", "00", "99999999999", "L", "l", "u", "r", "b", "_", ".", "e", "x", "True", "False", "None", "''",
          "()", "(3,)", "'<f4'", "'|O'", "|", "<", ">", "S", "U", "V", "M8", "[ns]", "'a'", "('z', '<f4'), ",
          "'shape': (1,), ",
          "\x85", "\xa0", "\xe9", "\x00", "\x7f", "\\x41", "\\u00e9", "\\'", "\\\n", "\\N{DIGIT ONE}", "f", "i", "c",
          "16"]


def mutate(rng, text):
    for _ in range(rng.choice([1, 1, 1, 2, 2, 3])):
        at = rng.randrange(len(text) + 1)
        end = min(len(text), at + rng.choice([0, 1, 1, 1, 2, 5]))
        kind = rng.randrange(5)
        if kind <= 1:
            text = text[:at] + rng.choice(TOKENS) + text[end if kind else at:]
        elif kind == 2:
            text = text[:at] + text[end:]
        elif kind == 3:
            text = text[:end] + text[at:]
        else:
            text = text[:at] + rng.choice(TOKENS) * rng.choice([2, 3]) + text[at:]
    return text


def test_mutated(engine, seed, cases):
    """Headers changed at random: the same verdict, the same numbers."""
    rng, inputs, failures, counts = random.Random(seed), [], [], {}
    for _ in range(cases):
        version = rng.choice([1, 1, 2, 3])
        inputs.append(wrap(mutate(rng, rng.choice(TEXTS)), version))
        engine.add("parse", inputs[-1])
    for data, answer in zip(inputs, engine.run()):
        verdict = compare(data, answer, failures)
        counts[verdict] = counts.get(verdict, 0) + 1
    print("  ", counts)
    # If almost everything were refused, or nothing, the comparison would say little.
    for verdict in ["both read", "both refuse"]:
        assert counts.get(verdict, 0) > cases // 20, counts
    return cases, failures


def test_dtypes(engine):
    """Names of dtypes: what the engine knows means the same to numpy."""
    names = sorted({k for k in getattr(np, "sctypeDict", {}) if isinstance(k, str)})
    names += [o + k + s for o in ["", "<", ">", "=", "|"] for k in "?bBhHiIlLqQpPnNefdgFDGSUVmMOac" for s in
              ["", "0", "1", "2", "3", "4", "8", "16", "32", "05", "[ns]", "8[ns]", "8[D]", "8[25s]", "8[generic]",
               "8[x]"]]
    names += ["datetime64[ns]", "timedelta64[3h]", "float", "int", "complex", "float32 ", "i4,f4", "(2,)f4", "3f4", "T"]
    failures, known = [], 0
    for name in names:
        engine.add("dtype", name.encode())
    for name, answer in zip(names, engine.run()):
        try:
            dtype = np.dtype(name)
        except Exception:
            dtype = None
        if answer.startswith("ok"):
            known += 1
            descr, item = answer.split(" ")[1:3]
            # numpy 1.24 lacks the letters n and N
            if dtype is None and name.strip("<>=|") in ("n", "N", "ulong", "long"):
                continue
            # numpy 2.5 dropped the letter a; headers of older ones have it
            if dtype is None and re.match(r"[<>=|]?a", name):
                continue
            if dtype is None or descr != repr(dtype.str) or int(item) != dtype.itemsize:
                failures.append((f"dtype {name!r}", b"", answer, repr(dtype)))
        elif dtype is not None and not (dtype.itemsize == 0 or dtype.hasobject or re.search(r"[,\s(]|^\d|^T", name)):
            # Aliases that numpy 2 dropped are not carried on.
            if name not in ("bool8", "int0", "uint0", "Bytes0", "Str0", "str0", "bytes0", "void0",
                                                      "singlecomplex", "cfloat", "longfloat", "clongfloat",
                                                      "longcomplex", "object0", "float_", "complex_", "string_"):
                failures.append((f"dtype {name!r} is unknown", b"", answer, repr(dtype)))
    assert known > 150, known
    return len(names), failures


def mixtures(old, steps, moves, rng):
    """Yield (bytes that a reader may see, the state before, the state after) for every step."""
    for offset, data in steps:
        new = old[:offset] + data + old[offset + len(data):]
        if moves:
            for cut in range(offset, offset + len(data) + 1):
                yield old[:cut] + new[cut:], old, new
                yield new[:cut] + old[cut:], old, new
        else:
            masks = range(1 << len(data)) if len(data) <= 5 else [rng.getrandbits(len(data)) for _ in range(40)]
            for mask in masks:
                mixed = bytearray(old)
                for i in range(len(data)):
                    if mask >> i & 1:
                        mixed[offset + i] = data[i]
                yield bytes(mixed), old, new
        old = new


def test_digits(engine, seed):
    """numpy, too, reads every state of a rewrite, and never more rows than there are."""
    rng, cases, failures, seen = random.Random(seed), [], [], 0
    pairs = [(9, 10), (99, 100), (1999999, 2000000), (2000000, 1999999), (0, 12345), (12345, 0), (5, 100000), (100, 99)]
    for (old, new), row, width, tail in itertools.product(pairs, ["", " 4", " 3, 512"], [0, 9, 19], [0, 3, 30]):
        for comma in [", }", "}"]:
            text = "{'descr': '<f4', 'fortran_order': False, 'shape': (%*d,%s)%s" % (width, old, row, comma)
            data = wrap(text + " " * tail + "\n")
            for what in ["plan", "relayout"]:
                cases.append((what, data, old, new))
                engine.add(what, data, str(new))
    moved = 0
    for (what, data, old, new), answer in zip(cases, engine.run()):
        if not answer.startswith("ok"):
            if what == "relayout" or not answer.startswith("-28"):
                failures.append((f"{what} from {old} to {new}", data, answer, ""))
            continue
        shape = numpy_reads(data)[0]
        if what == "relayout":
            longer = numpy_reads(bytes.fromhex(answer[3:]))
            if isinstance(longer, Exception) or longer[0] != (new,) + shape[1:] or longer[3] % 64:
                failures.append(("the longer header", data, answer, repr(longer)))
            continue
        parts = answer[3:].split(" ")
        moves, steps = parts[0] == "1", [(int(o), bytes.fromhex(h)) for o, h in (p.split(":") for p in parts[1:])]
        moved += moves
        for mixed, before, after in mixtures(data, steps, moves, rng):
            read, seen = numpy_reads(mixed), seen + 1
            if moves:
                right = isinstance(read, Exception) or read[0] in (numpy_reads(before)[0], numpy_reads(after)[0])
            else:
                right = not isinstance(read, Exception) and read[0][0] <= max(old, new) and read[0][1:] == shape[1:]
            if not right:
                failures.append((f"from {old} to {new}, a mixture", mixed, answer, repr(read)))
        end = data
        for offset, text in steps:
            end = end[:offset] + text + end[offset + len(text):]
        if numpy_reads(end)[0] != (new,) + shape[1:]:
            failures.append((f"the end of {old} to {new}", end, answer, repr(numpy_reads(end))))
    assert moved > 10, moved
    return seen, failures


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 32)
    cases = int(sys.argv[3]) if len(sys.argv) > 3 else 20000
    engine = Engine(sys.argv[1])
    print(f"numpy {np.__version__}, seed {seed}")
    bad = 0
    for test, arguments in [(test_written_by_numpy, ()), (test_dtypes, ()), (test_digits, (seed,)),
                            (test_mutated, (seed, cases))]:
        count, failures = test(engine, *arguments)
        word = "FAIL" if failures or not count else "ok  "
        print(f"{word} {test.__name__}: {count} compared, {len(failures)} differ")
        for what, data, ours, theirs in failures[:15]:
            print(f"    {what}\n      {data!r}\n      engine: {ours[:300]}\n      numpy:  {theirs[:300]}")
        bad += len(failures) + (not count)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
