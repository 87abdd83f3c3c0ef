# SPDX-License-Identifier: Apache-2.0
mkdir s
npy s/x.npy '<i4' 3,2 0
t check s
t check s --text
t check s --json
t check s/x.npy
t check s/none.npy
t check nowhere
t check s extra
say 'whole rows that nobody saw being appended'
printf '12345678' >>s/x.npy
sh_t 'npk check s | cut -f 1,3,4'
sh_t 'npk check s --json | "$PYTHON" -c "import json, sys; print([sorted(f) for f in json.load(sys.stdin)])"'
sh_t "npk check s --adopt >/dev/null && npk info s/x.npy | grep -E '^(rows|tail_bytes)'"
t check s
say 'a save that was cut short'
npy s/cut.npy '<i4' 100,2 0
truncate -s 200 s/cut.npy
sh_t 'npk check s | cut -f 1,3,4'
sh_t 'npk check s >/dev/null'
sh_t '(cd s && npk check >/dev/null)'
