# SPDX-License-Identifier: Apache-2.0
npy x.npy '<f4' 3,3 0 1.5 -2.5 300 -300 nan 1e10 7.9 -0.5
t cast x.npy float64
t get x.npy
t cast x.npy float64
t cast x.npy int8 --json
t get x.npy
t cast x.npy uint16 --text
t get x.npy
t cast x.npy bool
t get x.npy
say 'deleted rows go, names stay'
npy y.npy '<i4' 6 0 10 20 30 40 50
t names y.npy tail=3:6
t drop y.npy 1
t cast y.npy complex64
t get y.npy
t names y.npy
sh_t 'npk info y.npy | grep -E "^(dtype|rows|deleted)"'
say 'the other byte order'
npy b.npy '>i4' 3 1 256 -1
t cast b.npy int32
sh_t 'npk get b.npy; npk info b.npy | grep ^dtype'
say 'refused'
t cast x.npy floaty
t cast x.npy S10
t cast x.npy '>f4'
npy s.npy '|S2' 2 ab cd
t cast s.npy int8
t cast missing.npy int8
t cast x.npy
t cast . int8
head -c 133 y.npy >cut.npy
t cast cut.npy int8
cp b.npy tail.npy
printf abcde >>tail.npy
t cast tail.npy int8
