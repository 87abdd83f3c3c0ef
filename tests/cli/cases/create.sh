# SPDX-License-Identifier: Apache-2.0
t create x.npy --shape 3,2 --dtype float32
t get x.npy
t create x.npy --shape 3,2 --dtype float32
t create new/group/y.npy --shape '(2,)' --dtype '>i2' --json
t create big.npy --shape 1000000,1000 --dtype f8
sh_t 'du -k big.npy | cut -f 1 | awk "{ print (\$1 < 1000) }"; rm big.npy'
t create zero.npy --shape 0,4 --dtype int64
t create point.npy --shape '()' --dtype bool
t get point.npy
t create when.npy --shape 1 --dtype 'datetime64[ns]'
t get when.npy
say 'from raw bytes'
printf '\001\000\002\000\003\000\004\000' >raw
t create raw1.npy --shape 2,2 --dtype int16 --from raw
t get raw1.npy
sh_t 'cat raw | npk create raw2.npy --shape=-1 --dtype=int16 --from=-'
t get raw2.npy
t create raw3.npy --shape 3 --dtype int16 --from raw
t create raw3.npy --shape -1,3 --dtype int16 --from raw
t create raw3.npy --shape -1 --dtype int64 --from raw1.npy --raw --text
t create raw3.npy --shape -1 --dtype S5 --from raw
say 'from .npy'
t create copy.npy --from raw1.npy --json
t get copy.npy
t create flat.npy --from raw1.npy --shape -1
t get flat.npy
t create wrong.npy --from raw1.npy --dtype float32
npy --fortran f.npy '<i4' 2,3 0
npy people.npy "[('name', '|S4')]" 1 41620000
t create wrong.npy --from f.npy
t create wrong.npy --from people.npy
t create wrong.npy --from missing.npy
say 'bad words'
t create wrong.npy
t create wrong.npy --shape 3
t create wrong.npy --dtype int8
t create wrong.npy --shape 3 --dtype int7
t create wrong.npy --shape x --dtype int8
t create wrong.npy --shape -1 --dtype int8
t create wrong.npy --shape 9223372036854775807,9 --dtype int8
t create wrong.npy --shape 3 --dtype O
t create wrong.npy --shape 3 --dtype int8 --raw
t create wrong --shape 3 --dtype int8
t create .npy --shape 3 --dtype int8
t create raw/wrong.npy --shape 3 --dtype int8
t create .npkfs/wrong.npy --shape 3 --dtype int8
t create .npk/wrong.npy --shape 3 --dtype int8
t create new/.npkfs/wrong.npy --shape 3 --dtype int8
t ls .npkfs
sh_t 'ls'
