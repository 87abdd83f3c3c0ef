#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Programs that know nothing of npkfs, on a mount: tar, rsync, cp, dd, truncate, sed -i, vim, git, sqlite, flock.
#
#   realtools.sh passthrough|daemon
set -euo pipefail
mode=$1
here=$(cd "$(dirname "$0")" && pwd)
npkfs=${NPKFS_BIN:-$here/../../build/bin/npkfs} npk=${NPK_BIN:-$here/../../build/bin/npk}
python=${NPK_PYTHON:-python3}
for tool in rsync git sqlite3 flock; do
    command -v "$tool" >/dev/null || { echo "skipped: no $tool"; exit 77; }
done
"$python" -c 'import numpy' 2>/dev/null || { echo "skipped: no numpy"; exit 77; }
[ -r /dev/fuse ] && [ -w /dev/fuse ] || { echo "skipped: /dev/fuse is not for this user"; exit 77; }

top=$(mktemp -d "${TMPDIR:-/tmp}/npkfs-tools.XXXXXX")
store=$top/store mnt=$top/mnt
mkdir "$store" "$mnt"
leave() {
    cd /
    umount "$mnt" 2>/dev/null || fusermount3 -u "$mnt" 2>/dev/null || true
    [ -z "${daemon-}" ] || timeout 20 tail --pid="$daemon" -f /dev/null || true # it tidies the store after the unmount
    rm -rf --one-file-system "$top"
}
trap leave EXIT
options=passthrough=on
[ "$mode" = passthrough ] || options=passthrough=off
"$npkfs" "$store" "$mnt" -o "$options" || { [ "$mode" = passthrough ] && echo "skipped: no passthrough here" && exit 77; exit 1; }

daemon=$(sed -n 's#^fd\t/proc/\([0-9]*\)/.*#\1#p' "$mnt/.npk/store")
step() { printf 'ok    %s\n' "$*"; }
fail() { printf 'FAIL  %s\n' "$*"; exit 1; }
is() { [ "$1" = "$2" ] || fail "$3: \"$1\" instead of \"$2\""; } # GOT WANT WHAT
trap 'echo "FAIL  line $LINENO: $BASH_COMMAND"' ERR
cd "$mnt"

"$python" - <<'PYTHON'
import numpy as np
np.save("a.npy", np.arange(100000, dtype="f4").reshape(1000, 100))
np.save("b.npy", np.zeros((5, 5)))
PYTHON
tar cf "$top/x.tar" . && mkdir out && tar xf "$top/x.tar" -C out && cmp a.npy out/a.npy
step tar
rsync -a out/ out2/ && cmp a.npy out2/a.npy
"$python" -c 'import numpy as np; np.save("b.npy", np.ones((9, 5)))'
rsync -a --inplace b.npy out2/b.npy && cmp b.npy out2/b.npy
head -c $((128 + 400 * 250)) a.npy >part.npy && rsync --append a.npy part.npy && cmp a.npy part.npy
step rsync, --inplace, --append
cp --sparse=always a.npy sparse.npy && cmp a.npy sparse.npy
cp a.npy c.npy && cp b.npy c.npy && cmp b.npy c.npy && cp -a out out3 && diff -r out out3
step cp
head -c 400 /dev/zero | dd of=c2.npy bs=1 status=none
cp a.npy d.npy && printf x | dd of=d.npy bs=1 seek=200 conv=notrunc status=none
is "$(stat -c %s d.npy)" "$(stat -c %s a.npy)" "dd conv=notrunc"
dd if=/dev/zero of=a.npy bs=400 count=3 oflag=append conv=notrunc status=none
is "$(cat .npk/a.npy/shape)" 1003,100 "dd oflag=append"
truncate -s $((128 + 400 * 1002)) a.npy
is "$(cat .npk/a.npy/shape)" 1002,100 truncate
truncate -s $((128 + 400 * 1002 + 7)) a.npy
is "$(cat .npk/a.npy/shape)" 1002,100 "truncate inside a row"
truncate -s $((128 + 400 * 1003)) a.npy
step dd, truncate
echo hello >t.txt && sed -i s/hello/bye/ t.txt && grep -q bye t.txt
if command -v vim.tiny >/dev/null; then
    vim.tiny -u NONE -es -c '%s/bye/vi/' -c wq t.txt </dev/null && grep -q vi t.txt
else
    echo "note: no vim.tiny, its way of saving was not tried"
fi
step sed -i, vim
git init -q g && (cd g && git config user.email a@b.example && git config user.name n && cp ../a.npy . && git add . &&
    git commit -qm one && git fsck >/dev/null 2>&1 && [ -z "$(git status --porcelain)" ])
step git
is "$(sqlite3 db 'pragma journal_mode=wal; create table t(a); insert into t values(1),(2);')" wal "sqlite in WAL mode"
sqlite3 db 'insert into t select a+2 from t;'
is "$(sqlite3 db 'select sum(a) from t')" 10 sqlite
is "$(sqlite3 "$store/db" 'select sum(a) from t')" 10 "sqlite below the mount"
step sqlite
rows=$(cat .npk/a.npy/rows)
for _ in 1 2 3 4; do
    (for _ in $(seq 20); do flock t.txt head -c 400 /dev/zero >>a.npy; done) &
done
wait
is "$(cat .npk/a.npy/rows)" $((rows + 80)) "four appenders"
is "$("$python" -c 'import numpy as np; print(len(np.load("a.npy")))')" $((rows + 80)) "np.load after them"
mv a.npy z.npy && is "$(cat .npk/z.npy/rows)" $((rows + 80)) mv
step appenders, flock, mv
cd /
"$npk" check "$store" >"$top/check" || fail "npk check: $(cat "$top/check")"
! grep -q ^damage "$top/check" || fail "npk check: $(cat "$top/check")"
step npk check
