# SPDX-License-Identifier: Apache-2.0
mkdir -p s/train s/none
npy s/x.npy '<f4' 10,4 0
npy s/train/y.npy '<i8' 6 1 2 3 4 5 6
echo hello >s/notes.txt
ln -s train/y.npy s/link
find s -exec touch -h -d '2024-02-29T12:00:00Z' {} +
t pack s p.npkg
t pack s p.npkg
t pack s p.npkg --force
t pack s q.npkg --exclude '*.txt' --raw x.npy --level 3 --frame 64K --threads 1
t pack s q2.npkg --exclude '*.txt' --raw x.npy --raw=y.npy --exclude none --exclude link
sh_t 'npk info q2.npkg | cut -f 1,4; npk unpack q2.npkg q2 && find q2 | sort'
t ls p.npkg
t get p.npkg/train/y.npy 2:5
sh_t 'npk info p.npkg/x.npy | grep -E "^(name|dtype|shape|rows)"'
sh_t 'npk info q.npkg | cut -f 1-6'
sh_t 'npk info p.npkg --json | "$PYTHON" -c "import json, sys; print([e[\"path\"] for e in json.load(sys.stdin)])"'
t check p.npkg
say 'back'
t unpack p.npkg out
sh_t 'diff -r --no-dereference s out && echo same'
sh_t 'npk pack s - | npk unpack - piped && diff -r --no-dereference s piped && echo same'
sh_t 'npk pack s - --threads 2 | cmp - p.npkg && echo same'
t unpack p.npkg out
t unpack p.npkg some train x
sh_t 'find some | sort'
t unpack p.npkg rows train/y --rows 1:5:2
t get rows/train/y.npy
t unpack p.npkg never nothing
t search p.npkg/train/y.npy 3 -k 2 -m l2
t search s/train/y.npy p.npkg/train/y.npy@:3 3 -k 4 -m l2
t unpack p.npkg never --rows 0:2
sh_t 'ls never'
say 'a package is never changed'
t append p.npkg/x.npy s/x.npy
t replace p.npkg/x.npy 0 s/x.npy
t mv p.npkg/x.npy p.npkg/z.npy
t mv p.npkg/x s/z.npy
t mv s/x.npy p.npkg/z.npy
t clone s/x.npy p.npkg/train/z.npy
t clone p.npkg/x.npy s/z.npy
t create p.npkg/new/z.npy --shape 3 --dtype f4
t drop p.npkg/x.npy
t drop ./p.npkg/x.npy 0
t restore p.npkg/x.npy all
t compact p.npkg/x.npy
t reshape p.npkg/x.npy 40
t cast p.npkg/x.npy f8
t names p.npkg/x.npy few=0:2
t batch begin p.npkg
t bench p.npkg
t names p.npkg/x.npy
t summary p.npkg/x.npy --tsv
t check p.npkg --repair
t reset p.npkg --yes
say 'what is no package'
sh_t 'printf NPKG0000000000000000 >numpack.npkg; npk unpack numpack.npkg never'
sh_t 'npk unpack s/x.npy never'
sh_t 'head -c 300 p.npkg >cut.npkg; npk unpack cut.npkg never'
sh_t 'npk check cut.npkg; npk ls cut.npkg'
sh_t 'head -c 300 p.npkg | npk unpack - never'
sh_t 'ls -A | sort'
say 'what cannot be packed'
sh_t 'ln -s /etc s/out; npk pack s z.npkg; rm s/out'
sh_t 'mkfifo s/fifo; npk pack s z.npkg; rm s/fifo'
t pack s none/z.npkg
t pack s z.npkg --level 20
t pack s z.npkg --frame 1
t pack none z.npkg
