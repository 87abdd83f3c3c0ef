# SPDX-License-Identifier: Apache-2.0
npy x.npy '<i4' 5,2 0 0
npy two.npy '<i4' 2,2 1 2 3 4
npy row.npy '<i4' 2 6 7
npy mask.npy '|b1' 5 0 1 0 0 1
npy floats.npy '<f4' 2,2 0
t replace x.npy 1:3 two.npy
t get x.npy
t replace x.npy -1 row.npy
t replace x.npy 0,0 two.npy --json
t get x.npy
t replace x.npy mask.npy two.npy
t replace x.npy 3:1:-1 two.npy
sh_t 'cat two.npy | npk replace x.npy 0,1 -'
sh_t 'printf "4\n3\n" | npk replace x.npy - two.npy'
t get x.npy
t replace x.npy 5:5 - </dev/null
t replace x.npy 0:3 two.npy
t replace x.npy 5 row.npy
t replace x.npy zero row.npy
t replace x.npy 0:2 floats.npy
t replace x.npy - -
t replace x.npy 0
t replace missing.npy 0 row.npy
sh_t 'printf 123 | npk replace x.npy 0 -'
t get x.npy
