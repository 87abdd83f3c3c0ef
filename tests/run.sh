#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# All tests, from a bare Debian (12 or later) or Ubuntu (24.04 or later): installs what is missing (apt, and numpy with
# pytest by pip into a folder that goes away again), builds with gcc, with clang, with AddressSanitizer + UBSan and with
# ThreadSanitizer, runs everything through ctest, and says what was skipped and why. Run it again as often as you like;
# it leaves no file, mount or process behind. As root, or as a user with sudo (mounting tests need root).
#
#   tests/run.sh [CTEST_ARGUMENT...]    for example -R '^unit\.' or -L fs
#   NPK_TEST_QUICK=1 tests/run.sh       one gcc build in build/, kept; no test labelled slow; nothing is installed
#   NPK_TEST_BUILDS='gcc asan' ...      only these of: gcc clang asan tsan
#   NPK_TEST_JOBS=4 ...                 how many tests and compilers at once (default: one per core)
set -euo pipefail

tree=$(cd "$(dirname "$0")/.." && pwd)
quick=${NPK_TEST_QUICK:-}
jobs=${NPK_TEST_JOBS:-$(nproc)}
if [ -n "$quick" ]; then builds=${NPK_TEST_BUILDS:-gcc}; else builds=${NPK_TEST_BUILDS:-gcc clang asan tsan}; fi
started=$SECONDS
passed=0 failed=0 skipped=0
notes=()

say() { printf '\n== %s (%d s)\n' "$*" $((SECONDS - started)); }
note() { notes+=("$1"); printf 'note: %s\n' "$1"; }

as_root=()
if [ "$(id -u)" != 0 ]; then
    if sudo -n true 2>/dev/null || { [ -t 0 ] && sudo true; }; then
        as_root=(sudo)
    else
        note "neither root nor sudo: tests that need root are skipped"
    fi
fi

# ---- nothing stays ------------------------------------------------------------------------------------------------

work=$(mktemp -d "${TMPDIR:-/tmp}/npkfs-tests.XXXXXX")
chmod 755 "$work" # tests that drop to another user have to get in

mounts_left() { awk -v at="$work/" 'index($2, at) == 1 { print $2 }' /proc/self/mounts | sort -r; }
processes_left() { # those whose program is one that this run built
    local exe target
    for exe in /proc/[0-9]*/exe; do
        target=$("${as_root[@]}" readlink "$exe" 2>/dev/null) || continue
        case $target in "$work"/*/bin/*) exe=${exe#/proc/} && printf '%s\n' "${exe%/exe}" ;; esac
    done
}
take_down() { # says what it found; what a test leaves is a failure of that test
    local left=0 at pid
    while read -r at; do
        left=1
        printf 'left behind: a mount at %s\n' "$at"
        "${as_root[@]}" umount "$at" 2>/dev/null || "${as_root[@]}" umount -l "$at" || true
    done < <(mounts_left)
    for pid in $(processes_left); do
        left=1
        printf 'left behind: process %s (%s)\n' "$pid" "$(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null || true)"
        "${as_root[@]}" kill -9 "$pid" 2>/dev/null || true
    done
    return "$left"
}
finish() {
    local status=$?
    trap - EXIT
    take_down >/dev/null 2>&1 || true
    "${as_root[@]}" rm -rf --one-file-system "$work"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# ---- what the tests need ------------------------------------------------------------------------------------------

if [ -n "$quick" ]; then
    missing=$("$tree/tools/install-deps.sh" --list tests)
    [ -z "$missing" ] || note "missing packages (not installed in quick mode): ${missing//$'\n'/ }"
    python=$(command -v python3)
else
    say "packages"
    "$tree/tools/install-deps.sh" tests
    say "python: numpy and pytest by pip, in $work/venv"
    python=$work/venv/bin/python
    # hypothesis: numpy's own tests, which are run on the mount, import it.
    if ! { python3 -m venv "$work/venv" &&
        timeout 300 "$python" -m pip install -q --disable-pip-version-check --no-input numpy pytest hypothesis; } \
        >"$work/pip.log" 2>&1; then
        note "pip could not install numpy and pytest ($(tail -n 1 "$work/pip.log")); Debian's are used"
        python=/usr/bin/python3
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install \
            python3-numpy python3-pytest python3-hypothesis >"$work/apt.log" 2>&1 ||
            note "apt could not install python3-pytest: $(tail -n 1 "$work/apt.log")"
    fi
fi
# Libraries whose searches ours are compared with; without them that test is skipped.
if [ -z "$quick" ] && [ "$python" = "$work/venv/bin/python" ]; then
    for peer in faiss-cpu scikit-learn numpack; do
        timeout 150 "$python" -m pip install -q --disable-pip-version-check --no-input --only-binary :all: "$peer" \
            >"$work/pip.log" 2>&1 || note "pip could not install $peer ($(tail -n 1 "$work/pip.log")): not compared with it"
    done
fi
"$python" -c 'import sys, numpy; print("python", sys.version.split()[0], "numpy", numpy.__version__)' ||
    note "no numpy: tests that need it are skipped"

[ -e /dev/fuse ] || "${as_root[@]}" modprobe fuse 2>/dev/null || true
if [ ! -e /dev/fuse ]; then
    note "no /dev/fuse: tests that mount are skipped (load the module fuse, or give the container --device /dev/fuse)"
fi

# ---- one build after the other --------------------------------------------------------------------------------------

generator=()
if command -v ninja >/dev/null 2>&1; then generator=(-G Ninja); fi

build() { # NAME CMAKE_ARGUMENT...
    local name=$1 dir=$work/$1
    shift
    if [ -n "$quick" ]; then dir=$tree/build; fi
    if [ -e "$dir/CMakeCache.txt" ]; then generator=(); fi # the one it was made with stays
    say "build $name"
    if ! cmake -S "$tree" -B "$dir" "${generator[@]}" -DNPK_PYTHON="$python" -DNPK_WERROR=ON "$@" >"$work/$name.log" 2>&1 ||
        ! cmake --build "$dir" -j "$jobs" >>"$work/$name.log" 2>&1; then
        grep -E 'error|warning|Error|undefined reference' "$work/$name.log" | head -n 40 || true
        tail -n 5 "$work/$name.log"
        failed=$((failed + 1))
        note "build $name failed"
        return 1
    fi
    grep -c ' warning: ' "$work/$name.log" >/dev/null && note "build $name has warnings"
    return 0
}

run_tests() { # NAME CTEST_ARGUMENT...
    local name=$1 dir=$work/$1 status=0 report=$work/$1.xml
    shift
    if [ -n "$quick" ]; then dir=$tree/build; fi
    say "tests $name"
    mkdir -p "$work/tmp"
    chmod 1777 "$work/tmp"
    "${as_root[@]}" env TMPDIR="$work/tmp" NPK_TEST_BUILD="$name" "${test_env[@]}" "${wrapper[@]}" \
        ctest --test-dir "$dir" -j "$jobs" --output-on-failure --no-tests=ignore --timeout 300 \
        --output-junit "$report" "$@" 9>&- || status=$?
    local counts
    if ! counts=$(python3 "$tree/tests/summary.py" "$report" "$name"); then
        note "tests $name wrote no report (ctest's exit status $status)"
        failed=$((failed + 1))
        return
    fi
    local p f s rest
    read -r p f s rest <<<"${counts%%$'\n'*}"
    printf '%s\n' "${counts#*$'\n'}"
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    if [ "$status" != 0 ] && [ "$f" = 0 ]; then
        note "tests $name: ctest ended with status $status"
        failed=$((failed + 1))
    fi
    if ! take_down; then
        note "tests $name left a mount or a process behind (taken down)"
        failed=$((failed + 1))
    fi
    "${as_root[@]}" rm -rf --one-file-system "$work/tmp"
}

for name in $builds; do
    test_env=(NPK_TEST_SANITIZER=) wrapper=()
    case $name in
    gcc)
        build gcc -DCMAKE_C_COMPILER=gcc || continue
        run_tests gcc ${quick:+-LE slow} "$@"
        ;;
    clang)
        # The second compiler: its warnings, and the tests that need no mount.
        build clang -DCMAKE_C_COMPILER=clang || continue
        run_tests clang -L '^(unit|fs_unit|cli_unit|fuzz|oracle)$' "$@"
        ;;
    asan)
        build asan -DCMAKE_C_COMPILER=gcc -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS=-O1 -DNPK_SANITIZE=address \
            -DNPK_TEST_TIMEOUT_S=300 || continue
        test_env=(NPK_TEST_SANITIZER=address ASAN_OPTIONS=abort_on_error=1:detect_stack_use_after_return=1
            UBSAN_OPTIONS=print_stacktrace=1)
        run_tests asan -LE '^(arch|bench|slow)$' "$@"
        ;;
    tsan)
        build tsan -DCMAKE_C_COMPILER=gcc -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS=-O1 -DNPK_SANITIZE=thread \
            -DNPK_TEST_TIMEOUT_S=300 || continue
        test_env=(NPK_TEST_SANITIZER=thread TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1)
        # Its shadow memory leaves no room for the wide address randomisation of newer kernels.
        if setarch "$(uname -m)" -R true 2>/dev/null; then wrapper=(setarch "$(uname -m)" -R); fi
        # Without those of one thread that take longest: there is nothing for it to find.
        run_tests tsan -L '^(threads|unit|fs_unit)$' -E '^unit\.(digits|distance|drop_crash|live|package_damage)$' "$@"
        ;;
    *)
        echo "tests/run.sh: unknown build \"$name\"; there are gcc, clang, asan and tsan" >&2
        exit 2
        ;;
    esac
done

# ---- summary ------------------------------------------------------------------------------------------------------

say "summary"
printf 'builds: %s; kernel %s, libfuse %s, %s cores, %d s\n' "$builds" "$(uname -r)" \
    "$(pkg-config --modversion fuse3 2>/dev/null || echo '?')" "$(nproc)" $((SECONDS - started))
for line in "${notes[@]}"; do printf 'note: %s\n' "$line"; done
printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
