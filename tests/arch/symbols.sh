#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Global names begin with npk_ or kn_; npk__ names stay inside the shared library. Usage: symbols.sh libnpk.so libnpk.a
set -eu
NM=${NM:-nm}
bad=0
report() { # WHAT LIST
    [ -z "$2" ] && return 0
    bad=1
    printf '%s:\n' "$1"
    printf '%s\n' "$2" | sed 's/^/    /'
}
# Sanitizers and the linker add names of their own to what they build; none of those begins with a letter.
names() { awk 'NF >= 3 && $2 != "A" { print $3 }' | sed 's/@.*//' | grep '^[A-Za-z]' | sort -u; }

shared=$("$NM" -D --defined-only "$1" | names) || { echo "$1: no names at all"; exit 1; }
static=$("$NM" -g --defined-only "$2" 2>/dev/null | names) || { echo "$2: no names at all"; exit 1; }
report "$1 exports names that are neither npk_ nor kn_" "$(printf '%s\n' "$shared" | grep -v '^npk_\|^kn_' || true)"
report "$1 exports the engine's own names" "$(printf '%s\n' "$shared" | grep '^npk__' || true)"
report "$2 holds global names that are neither npk_ nor kn_" "$(printf '%s\n' "$static" | grep -v '^npk_\|^kn_' || true)"
[ "$bad" = 0 ] && printf '%s public names, all npk_ or kn_\n' "$(printf '%s\n' "$shared" | wc -l)"
exit "$bad"
