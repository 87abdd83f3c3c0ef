# SPDX-License-Identifier: Apache-2.0
# get --npy and --raw.
npy x.npy '>i2' 4,2 0 1 2 3 4 5 6 7
npy scalar.npy '<f8' '' 2.5
npy people.npy "[('name', '|S4'), ('age', '<i4')]" 2 41620000070000004263000008000000
t get x.npy 1: --npy out.npy
t get out.npy
sh_t "npk info out.npy | grep -E '^(dtype|shape)'"
t get x.npy :0 --npy out.npy
sh_t "npk info out.npy | grep shape"
sh_t 'npk get x.npy 1,2 --npy - | npk append x.npy -'
t get x.npy 3:
sh_t 'npk get x.npy 0:2 --raw | od -An -tx1'
t get people.npy ::-1 --npy back.npy
t get back.npy
t get scalar.npy
t get scalar.npy --json
t get scalar.npy --npy scalar2.npy
sh_t 'npk get scalar2.npy'
t get scalar.npy 0
t get x.npy --npy none/out.npy
t get x.npy 99 --npy kept.npy
t get x.npy --npy a.npy --raw
t get x.npy --raw --json
say 'a write that fails leaves the old file and nothing else'
npk create long.npy --shape 100000 --dtype int64
sh_t "(trap '' XFSZ; ulimit -f 1; npk get long.npy --npy out.npy)"
sh_t 'npk get out.npy | wc -l'
say 'nothing but the results is left'
sh_t 'ls'
say 'a full disk is a failure'
sh_t 'npk get x.npy >/dev/full'
sh_t 'npk get x.npy --npy /dev/full'
sh_t 'npk get x.npy --npy /dev/stdout | wc -c'
tty get x.npy --raw
