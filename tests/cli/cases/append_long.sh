# SPDX-License-Identifier: Apache-2.0
# A pipe that is longer than what is kept in memory: still whole or absent, and nothing is left behind.
npk create x.npy --shape 0,1024 --dtype uint8
npk create exact.npy --shape 0,1024 --dtype uint8
sh_t 'head -c 41943040 /dev/zero | tr "\0" a | npk append x.npy -'
sh_t 'head -c 33554432 /dev/zero | npk append exact.npy -'
sh_t 'head -c 41943041 /dev/zero | npk append x.npy -'
sh_t "npk info x.npy | grep -E '^(rows|tail_bytes)'"
sh_t "npk get x.npy ::10000 --raw | tr -d a | wc -c"
sh_t 'ls -A; ls -A .npkfs | grep tmp || :'
say 'memory stays bounded'
# (A sanitized build reserves more than any limit to begin with.)
limit=600000
sh -c '(ulimit -v 600000; npk --version); exit $?' >/dev/null 2>&1 || limit=unlimited
export limit
sh_t '(ulimit -v "$limit"; head -c 268435456 /dev/zero | npk append x.npy -)'
rm x.npy exact.npy
say 'a bar on a terminal, for work above a second'
npk create x.npy --shape 0,4 --dtype uint8
sh_t '"$PYTHON" "$CLI/on_tty.py" sh -c "(printf aaaa; sleep 1.6; printf bbbb) | npk append x.npy - --tsv" | grep -c "reading 4 B, . B/s"'
sh_t '"$PYTHON" "$CLI/on_tty.py" sh -c "(printf aaaa; printf bbbb) | npk append x.npy - --tsv" | cat -A'
