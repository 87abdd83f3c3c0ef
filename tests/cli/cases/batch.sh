# SPDX-License-Identifier: Apache-2.0
npy x.npy '<i4' 3,2 0 1 2 3 4 5
npy two.npy '<i4' 2,2 20 21 30 31
npy one.npy '<i4' 2 6 7
mkdir train
npy train/y.npy '<i4' 2,2 0 1 2 3
t batch begin . night
t batch begin . night
t append x.npy two.npy --batch night
t replace x.npy -1 one.npy --batch night
t replace x.npy 0,1 two.npy --batch night
t append train/y.npy two.npy --batch night
t create new/z.npy --shape 2 --dtype int8 --batch night
t append new/z.npy one.npy --batch night
t create new/z.npy --shape 2 --dtype int8 --batch night
say 'nobody sees it'
t get x.npy
sh_t "npk ls | cut -f 1-3"
sh_t "npk batch list . | cut -f 1,2,4"
sh_t "npk batch list . --json | tr -d ' \n' | sed 's/:[0-9]*,\"state/:T,\"state/'"
t batch commit . night
t get x.npy
t get train/y.npy
sh_t "npk ls | cut -f 1-3"
sh_t "npk batch list ."
t batch commit . night
say 'rows and arrays that go'
t batch begin . less
t drop x.npy 0,-1 --batch less
t drop one.npy --batch less
t drop x.npy 7 --batch less
t drop none.npy --batch less
t get x.npy
t batch commit . less
t get x.npy
sh_t "npk ls | cut -f 1-3"
say 'rows were deleted before'
t drop x.npy 0
t batch begin . view
t append x.npy two.npy --batch view
t replace x.npy 0 two.npy --batch view
t replace x.npy 0,1 two.npy --batch view
t get x.npy
t batch commit . view
t get x.npy
sh_t "npk check . | grep -v F10"
npy one.npy '<i4' 2 6 7
say 'somebody else was first'
t batch begin . late
t append x.npy two.npy --batch late
t append train/y.npy two.npy --batch late
t append x.npy one.npy
t batch commit . late
sh_t "npk info train/y.npy | grep '^rows'"
t batch abort . late
t batch abort . late
say 'a name is made up'
sh_t "npk batch begin . >id && wc -c <id | tr -d ' ' && npk batch abort . \$(cat id)"
sh_t "ls .npkfs"
say 'what makes no sense'
t batch frob .
t batch begin . ../x
t batch begin . a/b
t batch commit .
t batch abort .
t batch list . x
t batch begin x.npy
t append x.npy two.npy --batch none
t append none.npy two.npy --batch none
