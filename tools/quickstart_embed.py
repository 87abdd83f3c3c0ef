#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Real data that every Debian has: the paragraphs of its licences and package documentation, as vectors.

Usage: quickstart_embed.py MOUNT SPARE [ROWS]
       quickstart_embed.py --query TEXT > q.npy      the vector of a text of yours

Each paragraph becomes 256 float32: its letters' 3-, 4- and 5-grams hashed to a place and a sign, damped, scaled to
length 1. Saves MOUNT/x.npy (one row per paragraph) and MOUNT/texts.txt (its line), and in SPARE what is appended later:
more.f32 and again.f32 (raw rows), more.txt and again.txt (their texts).
"""
import glob
import gzip
import io
import pathlib
import re
import sys
import time

import numpy as np

DIMS = 256
SPARE_ROWS = (1000, 500)
SOURCES = ("/usr/share/common-licenses/*", "/usr/share/doc/*/copyright", "/usr/share/doc/*/README*",
           "/usr/share/doc/*/NEWS*", "/usr/share/doc/*/changelog*", "/usr/share/doc/*/*.txt*")
CHARACTERS = (40, 600)  # a shorter paragraph says nothing, a longer one is cut


def paragraphs(wanted):
    """Different paragraphs in a stable order, until there are enough."""
    seen = {}
    for pattern in SOURCES:
        for name in sorted(glob.glob(pattern)):
            path = pathlib.Path(name)
            try:
                if not path.is_file() or path.stat().st_size > 4 << 20:
                    continue
                data = gzip.decompress(path.read_bytes()) if name.endswith(".gz") else path.read_bytes()
            except (OSError, EOFError):
                continue
            for block in re.split(r"\n[ \t.]*\n", data.decode("utf-8", "replace")):
                text = " ".join(block.split())[:CHARACTERS[1]]
                if len(text) >= CHARACTERS[0]:
                    seen.setdefault(text)
            if len(seen) >= wanted:
                return list(seen)[:wanted]
    return list(seen)


def embed(texts):
    """Hashed n-grams of many texts at once; nothing but numpy."""
    out = np.empty((len(texts), DIMS), np.float32)
    for start in range(0, len(texts), 1024):
        raw = [text.lower().encode() for text in texts[start:start + 1024]]
        letters = np.frombuffer(b"\0\0\0\0".join(raw) + b"\0\0\0\0\0", np.uint8).astype(np.uint64)
        rows = np.repeat(np.arange(len(raw)), [len(text) + 4 for text in raw])
        counts = np.zeros(len(raw) * DIMS)
        code = letters
        for n in range(1, 5):
            code = code[:-1] * np.uint64(257) + letters[n:]
            if n < 2:
                continue
            hashed = code * np.uint64(0x9E3779B97F4A7C15)
            place = (hashed >> np.uint64(56)).astype(np.int64)
            sign = 1.0 - 2.0 * ((hashed >> np.uint64(40)) & np.uint64(1)).astype(np.float64)
            counts += np.bincount(rows[:len(code)] * DIMS + place, sign, len(raw) * DIMS)
        part = counts.reshape(len(raw), DIMS)
        part = np.sign(part) * np.log1p(np.abs(part))
        part /= np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-9)
        out[start:start + len(raw)] = part
    return out


def lines(texts):
    return "".join(text + "\n" for text in texts)


def query(text):
    out = io.BytesIO()
    np.save(out, embed([text])[0])
    sys.stdout.buffer.write(out.getvalue())


def main():
    if sys.argv[1] == "--query":
        query(sys.argv[2])
        return
    mount, spare = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    rows = int(sys.argv[3]) if len(sys.argv) > 3 else 20000
    began = time.perf_counter()
    texts = paragraphs(rows + sum(SPARE_ROWS))
    if len(texts) < 2 * sum(SPARE_ROWS):
        sys.exit(f"only {len(texts)} paragraphs under /usr/share/common-licenses and /usr/share/doc: too few to show much")
    vectors = embed(texts)
    kept = len(texts) - sum(SPARE_ROWS)
    print(f"{len(texts)} different paragraphs embedded in {time.perf_counter() - began:.1f} s")

    np.save(mount / "x.npy", vectors[:kept])
    (mount / "texts.txt").write_text(lines(texts[:kept]), encoding="utf-8")
    at = kept
    for name, count in zip(("more", "again"), SPARE_ROWS):
        vectors[at:at + count].tofile(spare / f"{name}.f32")
        (spare / f"{name}.txt").write_text(lines(texts[at:at + count]), encoding="utf-8")
        at += count


if __name__ == "__main__":
    main()
