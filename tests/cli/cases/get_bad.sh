# SPDX-License-Identifier: Apache-2.0
npy x.npy '<i4' 10,3 0
npy none.npy '<i4' 0,3
npy floats.npy '<f4' 2 1 2
npy short.npy '|b1' 3 1
npy flat.npy '<i8' 2,2 0
npy --fortran f.npy '<i4' 2,3 0
npy empty.npy '<i4' 3,0
echo nonsense >bad.npy
head -c 150 x.npy >cut.npy
mkdir dir
t get
t get x.npy 0 0
t get x.npy abc
t get x.npy ''
t get x.npy 1,
t get x.npy ::0
t get x.npy 10
t get x.npy 0,-11
t get x.npy 99999999999999999999
t get none.npy 0
t get none.npy
t get x.npy floats.npy
t get x.npy short.npy
t get x.npy flat.npy
t get x.npy bad.npy
t get x.npy missing.npy
t get x.npy dir
t get x.npy cut.npy
sh_t 'printf "1\n2\nthree\n" | npk get x.npy -'
sh_t 'printf "1\n77\n" | npk get x.npy -'
sh_t 'head -c 100 x.npy | npk get x.npy -'
t get f.npy
t get empty.npy
t get bad.npy
t get cut.npy
t get missing.npy
t get dir
t get x.npy --frobnicate
t get x.npy -x
t get x.npy --npy
t get x.npy --raw=1
t get x.npy --npy a --npy b
