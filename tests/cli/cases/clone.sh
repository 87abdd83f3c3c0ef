# SPDX-License-Identifier: Apache-2.0
npy x.npy '<i4' 4,2 0 1 2 3 4 5 6 7
t clone x.npy y.npy --json
t get y.npy
t drop x.npy 1
t clone x.npy group/z.npy
t get group/z.npy
sh_t 'npk info group/z.npy | grep -E "^(rows|deleted)"'
t clone x.npy y.npy
t clone missing.npy q.npy
t clone x.npy
t get x.npy
say 'what is in it'
t summary x.npy
t summary x.npy y.npy --header
npy f.npy '<f8' 5 1 nan 0 -2 4
t summary f.npy --json
npy big.npy '<i8' 2 -9223372036854775808 9223372036854775807
t summary big.npy --json
npy u.npy '<u8' 2 18446744073709551615 1
t summary u.npy --json
npy none.npy '<f4' 0
t summary none.npy --json
npy s.npy '|S2' 1 ab
t summary s.npy
t summary missing.npy
t summary
