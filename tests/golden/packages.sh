#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Each vN*.npkg, unpacked from the file and from a pipe, is what vN.sha256 says: sums of the files, and as "# " lines the
# name, kind, mode, time and target of everything. Usage: packages.sh NPK
set -eu
npk=$1
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
count=0

compare() { # DIRECTORY SUMS
    (cd "$1" && grep -v '^#' "$2" | sha256sum --quiet -c -)
    grep '^#' "$2" >"$work/want"
    (cd "$1" && find . -printf '%p %y %m %T@ %l\n' | sed 's/^/# /' | LC_ALL=C sort) >"$work/is"
    diff "$work/want" "$work/is"
}

for package in "$here"/v*.npkg; do
    version=$(basename "$package" .npkg)
    sums=$here/${version%%-*}.sha256
    "$npk" check "$package" >"$work/findings"
    [ ! -s "$work/findings" ] || { cat "$work/findings"; exit 1; }
    "$npk" unpack "$package" "$work/file"
    compare "$work/file" "$sums"
    "$npk" unpack - "$work/pipe" <"$package"
    compare "$work/pipe" "$sums"
    rm -rf "$work/file" "$work/pipe"
    count=$((count + 1))
done
[ "$count" -ge 2 ] || { echo "only $count packages found"; exit 1; }
echo "$count packages open as they did"
