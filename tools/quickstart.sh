#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# npkfs from nothing, on a bare Debian (12 or later) or Ubuntu (24.04 or later), as root or as a user with sudo:
# installs what is missing, builds, makes a store of real vectors through a mount, and shows what one can do with it.
# Leaves the mount up. Run it again as often as you like.
#
#   tools/quickstart.sh            all of the above; under a minute once the packages are there
#   tools/quickstart.sh --clean    unmount, and remove what it made (store, and the build if it made that)
#
# The store is in $NPK_QUICKSTART_DIR, by default ${XDG_CACHE_HOME:-$HOME/.cache}/npkfs-quickstart.
set -euo pipefail

tree=$(cd "$(dirname "$0")/.." && pwd)
home=${NPK_QUICKSTART_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/npkfs-quickstart}
store=$home/store
mnt=$home/mnt
spare=$home/spare
mark=$tree/build/.made-by-quickstart

step() { printf '\n\033[1m%s\033[0m\n' "$*"; }
[ -t 1 ] || step() { printf '\n%s\n' "$*"; }
die() { printf 'quickstart: %s\n' "$*" >&2; exit 1; }
show() { printf '$ %s\n' "$1"; bash -c "set -euo pipefail; $1"; } # what is shown is what is run

mounted() { findmnt -n -M "$mnt" >/dev/null 2>&1; }

unmount() { # of a mount made by root or by us, also when its daemon died
    mounted || return 0
    fusermount3 -u "$mnt" 2>/dev/null && return
    umount "$mnt" 2>/dev/null && return
    "${as_root[@]}" umount "$mnt" 2>/dev/null && return
    die "$mnt is in use (a shell standing in it?): leave it and run this again, or: ${as_root[*]} umount -l $mnt"
}

as_root=()
can_be_root=1
if [ "$(id -u)" != 0 ]; then
    as_root=(sudo)
    sudo -n true 2>/dev/null || { [ -t 0 ] && command -v sudo >/dev/null 2>&1 && sudo true; } || can_be_root=
fi

case ${1-} in
'') ;;
--clean)
    daemon=$(sed -n 's|^fd\t/proc/\([0-9]*\)/.*|\1|p' "$mnt/.npk/store" 2>/dev/null || true)
    unmount
    while [ -n "$daemon" ] && [ -e "/proc/$daemon/exe" ]; do sleep 0.05; done # it tidies the store up before it ends
    rm -rf --one-file-system "$home"
    if [ -e "$mark" ]; then rm -rf "$tree/build"; fi
    echo "gone: $home$([ -e "$tree/build" ] || echo " and $tree/build")"
    exit 0
    ;;
*)
    sed -n '3,12s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac

# ---- 1. packages and build ----------------------------------------------------------------------------------------

step "1. Packages and build"
"$tree/tools/install-deps.sh" quickstart
if [ ! -d "$tree/build" ]; then mkdir "$tree/build" && touch "$mark"; fi
log=$tree/build/quickstart.log
generator=() # of a build that is there: the one it was made with
if [ ! -e "$tree/build/CMakeCache.txt" ] && command -v ninja >/dev/null 2>&1; then generator=(-G Ninja); fi
build() {
    cmake -S "$tree" -B "$tree/build" "${generator[@]}" && cmake --build "$tree/build" -j "$(nproc)" --target npkfs npk
}
build >"$log" 2>&1 || { tail -n 20 "$log" >&2; die "the build failed; all of it is in $log"; }
echo "build/bin/npkfs: $("$tree/build/bin/npkfs" --version)"

# ---- 2. mount -----------------------------------------------------------------------------------------------------

step "2. Mount an empty directory"
[ -e /dev/fuse ] || [ -z "$can_be_root" ] || "${as_root[@]}" modprobe fuse 2>/dev/null || true
[ -e /dev/fuse ] || die "there is no /dev/fuse: load the module (modprobe fuse) or give the container --device /dev/fuse --cap-add SYS_ADMIN"
unmount
rm -rf --one-file-system "$store" "$spare"
mkdir -p "$store" "$mnt" "$spare"
if [ -n "$can_be_root" ]; then
    # Handing files to the kernel (passthrough) takes root; the files stay their owner's, and modes are obeyed.
    mounter=("${as_root[@]}")
elif [ -r /dev/fuse ] && [ -w /dev/fuse ]; then
    mounter=()
    echo "no root and no sudo: this user mounts, and the daemon serves every byte itself"
else
    die "this user may not open /dev/fuse, and there is no sudo: run this as root"
fi
echo "\$ ${mounter[*]}${mounter[*]:+ }build/bin/npkfs $store $mnt"
"${mounter[@]}" "$tree/build/bin/npkfs" "$store" "$mnt" || die "the mount failed (the sentence above says why)"
findmnt -n -o FSTYPE,SOURCE,TARGET "$mnt"

# ---- 3. real data, by numpy that knows nothing of it --------------------------------------------------------------

step "3. Embed the paragraphs of this system's licences and package documentation; save them with np.save"
python3 "$tree/tools/quickstart_embed.py" "$mnt" "$spare"
cd "$mnt" # what follows is typed in the mount; `spare` holds rows to append
export spare store mnt
show 'ls -l'

step "4. numpy reads it"
cat >"$spare/look.py" <<'PYTHON'
import numpy as np

x = np.load("x.npy")
print("np.load:  ", x.shape, x.dtype)
x = np.load("x.npy", mmap_mode="r")
print(f"{type(x).__name__}:   ", x.shape, "its file at byte", x.offset)
texts = open("texts.txt", encoding="utf-8").read().split("\n")
row = next(i for i, text in enumerate(texts) if "WITHOUT WARRANTY" in text.upper())
near = np.argsort(-(x @ x[row]), kind="stable")[1:4]
print(f'nearest to row {row}, "{texts[row][:70]}...":')
for i in near:
    print(f"  {float(x[i] @ x[row]):.2f}  {i:6d}  {texts[i][:76]}")
PYTHON
show "python3 \$spare/look.py"

step "5. Raw rows appended by a shell: the header follows"
show 'cat .npk/x.npy/shape'
show "cat \$spare/more.f32 >> x.npy && cat \$spare/more.txt >> texts.txt"
show 'cat .npk/x.npy/shape'
show "dd if=\$spare/again.f32 of=x.npy oflag=append conv=notrunc bs=1M status=none && cat \$spare/again.txt >> texts.txt"
show 'cat .npk/x.npy/shape .npk/x.npy/dtype'
show "python3 -c 'import numpy as np; print(\"np.load:\", np.load(\"x.npy\").shape, \"texts:\", sum(1 for _ in open(\"texts.txt\")))'"

step "6. Out again: every file is a plain .npy, in the mount and below it"
show "cp x.npy \$spare/copy.npy && cmp x.npy \$spare/copy.npy && cmp x.npy \$store/x.npy && echo the same bytes"

step "7. How fast: the mount against the file below it, in turns"
show 'grep -a "^mode" .npk/health'
cat >"$spare/speed.py" <<'PYTHON'
import os
import statistics
import time

import numpy as np


def times(work, repeats, *paths):
    took = {path: [] for path in paths}
    for _ in range(repeats):
        for path in paths:
            began = time.perf_counter()
            work(path)
            took[path].append(time.perf_counter() - began)
    return [statistics.median(took[path]) for path in paths]


def mapped_sum(path):
    np.load(path, mmap_mode="r").sum()


def first_page(path):
    with open(path, "rb") as file:
        file.read(4096)


below, mount = os.path.join(os.environ["store"], "x.npy"), os.path.join(os.environ["mnt"], "x.npy")
print(f"{os.path.getsize(mount) / 1e6:.1f} MB{'below':>21}{'mount':>12}{'ratio':>8}")
for name, work, repeats in (("np.load", np.load, 25), ("np.load(mmap) and sum", mapped_sum, 25),
                            ("open, read 4 KiB, close", first_page, 500)):
    native, ours = times(work, repeats, below, mount)
    print(f"{name:24}{native * 1e3:9.3f} ms{ours * 1e3:9.3f} ms{ours / native:8.2f}")
PYTHON
show "python3 \$spare/speed.py"

step "8. Rows deleted, shown again, and their space given back"
show 'cp x.npy part.npy && cd .npk/part.npy && seq 0 3 21499 >drop && cat shape deleted'
show "python3 -c 'import numpy as np; print(\"np.load:\", np.load(\"part.npy\").shape)'"
word=1
if grep -q '^leases.no' .npk/health; then
    # Overlayfs (containers) does not tell of programs that write through a mapping; here we know that there is none.
    word=force
fi
show "cd .npk/part.npy && echo all >restore && cat shape && echo 1000: >drop && echo $word >compact && cat shape deleted"
show 'ls -l part.npy && cmp -n 1024000 -i 128 part.npy x.npy && rm part.npy'

step "9. Search: write a question as a file, read the nearest paragraphs as text"
export embed="$tree/tools/quickstart_embed.py" PATH="$tree/build/bin:$PATH"
show "python3 \$embed --query 'provided as is, without any warranty' >.npk/x.npy/search/q.npy"
show 'cat .npk/x.npy/search/q.cosine.3.tsv'
show 'cut -f 1 .npk/x.npy/search/q.cosine.3.tsv | while read -r row; do sed -n "$((row + 1))p" texts.txt | cut -c 1-100; done'
show "python3 \$embed --query 'how to compile and install it' >.npk/x.npy/search/q.npy"
show 'npk search x.npy .npk/x.npy/search/q.npy -k 3 --tsv | while read -r row score; do
    printf "%.3f  %s\n" "$score" "$(sed -n "$((row + 1))p" texts.txt | cut -c 1-90)"; done'

# ---- where to go from here ----------------------------------------------------------------------------------------

step "The mount stays up."
umount=$(printf '%s%sumount %s' "${mounter[*]}" "${mounter:+ }" "$mnt")
[ "${#mounter[@]}" -gt 0 ] || [ "$(id -u)" = 0 ] || umount="fusermount3 -u $mnt"
cat <<EOT
look around   cd $mnt; ls . .npk .npk/x.npy; cat .npk/health .npk/x.npy/rows
the tool      $tree/build/bin/npk info $mnt/x.npy; $tree/build/bin/npk help
change it     echo 1000,256 > $mnt/.npk/x.npy/shape    (keeps the first 1000 rows)
unmount       $umount    (the files stay in $store)
undo all      $tree/tools/quickstart.sh --clean
EOT
