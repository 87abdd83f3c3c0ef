# SPDX-License-Identifier: Apache-2.0
npy x.npy '<i4' 6,2 0 1 2 3 4 5 6 7 8 9 10 11
t drop x.npy 1,-2 --json
t get x.npy
sh_t 'npk info x.npy --tsv | grep -E "^(rows|deleted)"'
t restore x.npy
say 'by a slice, by lines, by a mask, by nothing'
t drop x.npy ::3
t get x.npy
sh_t "printf '0\\n' | npk drop x.npy -"
t get x.npy
npy mask.npy '|b1' 1 1
t drop x.npy mask.npy --tsv
t get x.npy
t drop x.npy : --tsv
say 'shown again'
t restore x.npy 4 --tsv
t get x.npy
t restore x.npy 0:2,5
t get x.npy
t restore x.npy all --json
t get x.npy
say 'refused, and nothing is deleted'
t drop x.npy 0,6
t drop x.npy x
npy short.npy '|b1' 3 1 0 1
t drop x.npy short.npy
npy zero.npy '<f8' '' 1
t drop zero.npy 0
t drop missing.npy 0
t drop .
t restore x.npy 6
t restore x.npy some
t restore
sh_t 'npk info x.npy --tsv | grep -E "^(rows|deleted)"'
say 'named ranges follow their rows'
t names x.npy head=:2 'tail=-2:'
t names x.npy --header
t drop x.npy 1,3
t names x.npy
t names x.npy head=
t names x.npy
t names x.npy 5=0:1
t names x.npy a
t names x.npy a=0,2
t names x.npy a=9
say 'the space given back'
t compact x.npy --json
t names x.npy
t restore x.npy
t compact x.npy
t drop x.npy 0
t compact . --header
t get x.npy
t compact x.npy --auto 30
t compact x.npy --auto 101
t compact . --auto 30
t compact missing.npy
say 'the array itself'
t drop x.npy
sh_t 'npk ls --tsv | cut -f 1'
