# SPDX-License-Identifier: Apache-2.0
npy x.npy '<i4' 10,3 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29
npy one.npy '<f8' 5 0.5 1 nan -inf 1e300
npy cube.npy '|u1' 2,2,2 1 2 3 4 5 6 7 8
npy words.npy '<U5' 3 one 'two	2' drei
npy big.npy '<u8' 2 18446744073709551615 9007199254740992
npy mask.npy '|b1' 10 1 0 0 0 0 0 0 0 0 1
npy short.npy '|b1' 3 1
npy rows.npy '<i2' 3 2 -1 2
npy floats.npy '<f4' 2 1 2
t get x.npy 5
t get x.npy -1
t get x.npy 0,3,-1
t get x.npy 8:
t get x.npy 8:100
t get x.npy ::-4
t get x.npy 0:2,9
t get x.npy 100:200
t get x.npy mask.npy
t get x.npy rows.npy
sh_t 'printf "1\n-1\n2:4\n" | npk get x.npy -'
sh_t 'cat rows.npy | npk get x.npy -'
sh_t 'npk get x.npy - <mask.npy'
t get one.npy
t get words.npy
t get x.npy 1 --header --index
t get one.npy 0 --header
t get cube.npy 1 --header
t get x.npy 0,1 --json
t get x.npy 0,1 --json --index
t get cube.npy --json
t get one.npy --json
t get words.npy --json
t get big.npy --json
t get x.npy 5:5 --json
t get x.npy 5:5
say 'text, also with the middle left out'
t get x.npy 0,5 --text
t get cube.npy --text
npy wide.npy '<i4' 2,300 1234
t get wide.npy --text
t get words.npy --text
t get x.npy 5:5 --text
tty get x.npy 0:2
say 'more rows than decide the widths'
npy long.npy '<i8' 200 1
sh_t 'npk get long.npy --text | sed -n "1,2p;\$p"'
sh_t 'npk get long.npy --text | wc -l'
