# SPDX-License-Identifier: Apache-2.0
npy x.npy '<i4' 1,2 0 1
npy two.npy '<i4' 2,2 2 3 4 5
npy row.npy '<i4' 2 6 7
npy none.npy '<i4' 0,2
npy floats.npy '<f4' 1,2 0
npy wide.npy '<i4' 1,3 0
npy big.npy '>i4' 1,2 0
npy --fortran f.npy '<i4' 2,2 0
printf '\010\000\000\000\011\000\000\000' >raw
t append x.npy two.npy row.npy raw none.npy
t get x.npy
t append x.npy two.npy --text
t append x.npy two.npy --json
t append x.npy two.npy --header
sh_t 'cat two.npy | npk append x.npy -'
sh_t 'npk append x.npy - <two.npy'
sh_t 'printf "%b" "\0001\0000\0000\0000\0002\0000\0000\0000" | npk append x.npy - row.npy'
t get x.npy -2:
say 'to itself: what was there when it began'
t append x.npy x.npy
say 'nothing is appended when one of several does not fit'
sh_t "npk info x.npy | grep '^rows'"
t append x.npy two.npy floats.npy
t append x.npy two.npy wide.npy
t append x.npy two.npy big.npy
t append x.npy two.npy f.npy
t append x.npy missing.npy
t append x.npy .
sh_t 'head -c 140 two.npy | npk append x.npy -'
sh_t 'head -c 20 two.npy | npk append x.npy -'
sh_t 'cat two.npy two.npy | npk append x.npy -'
sh_t 'printf 12345 | npk append x.npy -'
sh_t ': | npk append x.npy -'
sh_t "npk info x.npy | grep '^rows'"
say 'a .npy taken for bytes'
sh_t "npk append x.npy row.npy --raw && npk info x.npy | grep '^rows'"
say 'arrays that cannot grow'
npy scalar.npy '<i4' '' 1
t append scalar.npy raw
t append f.npy raw
t append missing.npy raw
t append . raw
t append x.npy
say 'rows of one dimension: a number is a row'
npy line.npy '<i4' 2 0 1
t append line.npy scalar.npy line.npy
t get line.npy
