# SPDX-License-Identifier: Apache-2.0
# Verbs, help, usage.
t
t frobnicate
t --frobnicate
t --version
t help
t --help
t help get
t get --help
t ls -h
t help frobnicate
t help ls get
t help --table
t ls --help=1
npy x.npy '|u1' 1 7
t get x.npy -- -1
t get -- x.npy
t get x.npy -1
t get x.npy 0 --json --tsv
t get x.npy 0 --json --npy y.npy
sh_t 'npk help >/dev/full'
