#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The top level holds what the README's map names and nothing else. Usage: top_level.sh TREE
# In a git work tree only tracked files count, so that somebody's build folder is nobody's fault.
set -eu
cd "$1"
expected='CMakeLists.txt
CMakePresets.json
LICENSE
README.md
fs
kernels
store
tests
tools'
if [ -e .git ] && found=$(git -c safe.directory='*' ls-files 2>/dev/null) && [ -n "$found" ]; then
    found=$(printf '%s\n' "$found" | cut -d/ -f1 | sort -u)
else
    found=$(find . -mindepth 1 -maxdepth 1 ! -name 'build*' | cut -c3-)
fi
found=$(printf '%s\n' "$found" | grep -v '^\.' | LC_ALL=C sort)
if [ "$found" != "$expected" ]; then
    echo "the top level differs from the plan of the house (- planned, + found):"
    a=$(mktemp) && b=$(mktemp)
    trap 'rm -f "$a" "$b"' EXIT
    printf '%s\n' "$expected" >"$a"
    printf '%s\n' "$found" >"$b"
    diff -U0 "$a" "$b" | sed '1,2d; /^@@/d; s/^/    /'
    exit 1
fi
for folder in fs kernels store tests tools; do
    [ -e "$folder/README.md" ] || { echo "$folder/ has no README.md that says what is in which file"; exit 1; }
done
echo "the top level is as planned"
