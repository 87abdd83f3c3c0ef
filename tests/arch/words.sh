#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The tree speaks of the work and not of where it was made: no paths of one machine, no names of its tools.
# Usage: words.sh TREE
set -eu
cd "$1"
paths='(^|[^[:alnum:]_.])/(work|root)/[[:alnum:]_.]'
tools='/opt/(wheels|pypi)|bare-debian|pyenv|/\.library/|shared/(facts|tools|seeds|hooks|golden)|work/notes'
people='\b(CEO|TODO|FIXME|XXX)\b|\bhelper (BUILD|CLI|CORE|OPS|NPY|MAIN|CONTROLS|TESTS)\b|\b(ChatGPT|Claude|Copilot|LLM)\b'
if [ -e .git ] && git -c safe.directory='*' ls-files >/dev/null 2>&1; then
    list() { git -c safe.directory='*' ls-files -z --cached --others --exclude-standard; }
else
    list() { find . -path ./build -prune -o -type f -print0; }
fi
found=$(list | xargs -0 -r grep -nIE "$paths|$tools|$people" -- 2>/dev/null | grep -v '^\(\./\)\{0,1\}tests/arch/words\.sh:' || true)
if [ -n "$found" ]; then
    echo "words that do not belong in the tree:"
    printf '%s\n' "$found" | cut -c1-200
    exit 1
fi
echo "no such word"
