# SPDX-License-Identifier: Apache-2.0
mkdir -p s/train s/empty
npy s/x.npy '<f4' 10,4 0
npy s/train/y.npy '>i8' 3 1
npy s/b.npy '|b1' 2 1 0
npy s/scalar.npy '<f8' '' 2.5
npy s/people.npy "[('name', '|S4'), ('age', '<i4')]" 1 4162000007000000
echo hello >s/notes.txt
echo nonsense >s/bad.npy
find s -type f -exec touch -d '2024-02-29T12:00:00Z' {} +
t ls s
t ls s --header
t ls s --text
t ls s --json
t ls s --all
t ls s --all --text
t ls s --flat
t ls s/x.npy s/train
t ls s/empty
t ls s/empty --json
t ls s/bad.npy
t ls s/none.npy
t ls nowhere
t ls s/notes.txt
say 'without a path: the current directory'
sh_t 'cd s/train && npk ls'
tty ls s
