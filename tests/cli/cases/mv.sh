# SPDX-License-Identifier: Apache-2.0
mkdir -p s/train s/test elsewhere
npy s/x.npy '|u1' 1 7
npy s/y.npy '|u1' 1 8
t mv s/x.npy s/z.npy
t mv s/z.npy s/train
t mv s/train/z.npy s/new/group/z.npy --json
t mv s/new/group/z.npy s/z.npy
t mv s/z.npy s/y.npy
t get s/y.npy
say 'between two groups: the store above both is known by its sidecar folder, or by --store'
t mv s/z.npy s/train/z.npy
t mv s/train/z.npy s/test/z.npy
t get s/test/z.npy
mkdir -p p/a p/b
npy p/a/x.npy '|u1' 1 9
t mv p/a/x.npy p/b/x.npy
t mv p/a/x.npy p/b/x.npy --store elsewhere
t mv p/a/x.npy p/b/x.npy --store nowhere
t mv p/a/x.npy p/b/x.npy --store p
t get p/b/x.npy
say 'refused'
t mv s/y.npy s/y
t mv s/missing.npy s/q.npy
t mv s s2
t mv s/y.npy
t mv s/y.npy s/.npk/y.npy
sh_t 'find s p -name "*.npy" | sort'
