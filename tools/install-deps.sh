#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Installs what npkfs needs on Debian (12 or later) and Ubuntu (24.04 or later), by apt, as root or with sudo.
#
#   tools/install-deps.sh               what building and mounting take
#   tools/install-deps.sh quickstart    and what the quickstart shows (numpy)
#   tools/install-deps.sh tests         and what the tests use
#   tools/install-deps.sh --list SET    print the packages that are missing, install nothing
#
# What is there already is left alone: nothing is fetched on a machine that has it all.
set -euo pipefail

say() { printf 'install-deps: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

missing=()
need_program() { command -v "$1" >/dev/null 2>&1 || missing+=("$2"); }      # PROGRAM PACKAGE
need_library() { pkg-config --exists "$1" 2>/dev/null || missing+=("$2"); } # PKG_CONFIG_NAME PACKAGE
need_python() { python3 -c "import $1" >/dev/null 2>&1 || missing+=("$2"); } # MODULE PACKAGE
need_file() { [ -e "$1" ] || missing+=("$2"); }                              # PATH PACKAGE

need_to_build() {
    need_program gcc gcc
    need_file /usr/include/stdlib.h libc6-dev
    need_program cmake cmake
    command -v ninja >/dev/null 2>&1 || need_program make make
    need_program pkg-config pkg-config
    need_library fuse3 libfuse3-dev
    need_library libcjson libcjson-dev
    need_library libzstd libzstd-dev
    need_library libxxhash libxxhash-dev
    need_program fusermount3 fuse3
}

need_to_show() {
    need_program python3 python3
    need_python numpy python3-numpy
    need_program cmp diffutils
    need_program findmnt util-linux
}

need_to_test() {
    need_program g++ g++
    need_program clang clang
    need_program nm binutils
    need_program python3 python3
    python3 -c 'import ensurepip' >/dev/null 2>&1 || missing+=(python3-venv)
    need_program git git
    need_program setfattr attr
    need_program setfacl acl
    need_program rsync rsync
    need_program sqlite3 sqlite3
    command -v vim >/dev/null 2>&1 || need_program vim.tiny vim-tiny
    need_program setpriv util-linux
    need_program ps procps
    need_program mkfs.ext4 e2fsprogs
    need_program xxd xxd
    # The kernels of processors that this one is not.
    [ "$(uname -m)" != x86_64 ] || need_program qemu-x86_64 qemu-user
    if [ "$(uname -m)" = x86_64 ]; then
        need_program aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu
        need_file /usr/aarch64-linux-gnu/include/stdlib.h libc6-dev-arm64-cross
    fi
}

list_only=
if [ "${1-}" = --list ]; then
    list_only=1
    shift
fi
what=${1-build}
case $what in
build) need_to_build ;;
quickstart) need_to_build; need_to_show ;;
tests) need_to_build; need_to_show; need_to_test ;;
*) sed -n '3,11s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
if [ -n "$list_only" ]; then
    [ "${#missing[@]}" = 0 ] || printf '%s\n' "${missing[@]}"
    exit 0
fi
if [ "${#missing[@]}" = 0 ]; then
    say "all that \`$what' takes is there"
    exit 0
fi

command -v apt-get >/dev/null 2>&1 ||
    die "this is no Debian or Ubuntu (no apt-get); please install what these Debian packages hold: ${missing[*]}"
as_root=()
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null 2>&1 || die "run this as root, or install sudo; missing: ${missing[*]}"
    as_root=(sudo)
fi
say "installing: ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=120 "$@" >"$log" 2>&1
}
apt update || { tail -n 5 "$log" >&2; say "apt-get update failed; trying with the lists as they are"; }
apt install -y --no-install-recommends "${missing[@]}" || {
    tail -n 15 "$log" >&2
    die "apt-get install failed"
}
say "done"
