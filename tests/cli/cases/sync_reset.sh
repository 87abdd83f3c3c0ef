# SPDX-License-Identifier: Apache-2.0
mkdir -p s/g
npy s/x.npy '<i4' 3,2 0
npy s/g/y.npy '<i4' 3,2 0
echo hello >s/notes.txt
t sync s
t sync s/x.npy
t sync s --json
t sync s/none.npy
t sync nowhere
t sync
say 'reset asks'
t reset s
t reset s/x.npy --yes
t reset nowhere --yes
TTY_INPUT='n
'
export TTY_INPUT
tty reset s
sh_t 'npk ls s | cut -f 1'
TTY_INPUT='y
'
tty reset s
sh_t 'find s | sort'
npy s/x.npy '<i4' 3,2 0
t reset s --yes --json
t reset s --yes
sh_t 'find s | sort'
