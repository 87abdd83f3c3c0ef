# SPDX-License-Identifier: Apache-2.0
npy x.npy '<i4' 4,3 0 1 2 3 4 5 6 7 8 9 10 11
t reshape x.npy 6,2
t get x.npy
t reshape x.npy -1,4 --json
t reshape x.npy 12
t reshape x.npy '(3, 4)' --text
say 'fewer and more rows'
t reshape x.npy 2,4
t reshape x.npy 4,4
t get x.npy
say 'refused'
t reshape x.npy 5,5
t reshape x.npy -1,7
t reshape x.npy x
t reshape x.npy -1,-1
t reshape x.npy
t reshape missing.npy 1
t reshape . 1
t get x.npy :1
