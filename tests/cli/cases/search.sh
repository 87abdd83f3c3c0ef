# SPDX-License-Identifier: Apache-2.0
# The nearest rows, and everything that is refused.
npy x.npy '<f4' 6,2 1 0 0 1 2 0 0 0 -1 0 2 0
npy q.npy '<f4' 2 1 0
npy many.npy '<f8' 2,2 1 0 0 1
npy bits.npy '|u1' 4,2 0 0 255 0 1 1 255 255
t search x.npy q.npy
t search x.npy 1,0 -k 3 -m dot
t search x.npy 1,0 -k3 -m euclidean
t search x.npy many.npy -k 2 -m l2sq
t search x.npy @4 -m l2 -k 2
t search x.npy @-1 -m cosine -k 2
t search x.npy @0:2 -m inner -k 1
sh_t 'npk search x.npy - -k 1 -m l2 <q.npy'
t search x.npy 0.1,0.2 -m l2 -k 1 --json
t search x.npy many.npy -m l2 -k 1 --json
t search x.npy 1,0 -m kl -k 6
t search x.npy 1,0 -m kl -k 2 --epsilon 1e-7
t search x.npy 0.5,0.5 -m js -k 6 --json
t search x.npy 1,0 -m hamming_elements -k 3 --header
t search x.npy q.npy -k 3 -m dot --text
t search bits.npy 255,1 -k 4
t search bits.npy 255,1 -k 4 -m jaccard
say 'ranges, threads, every instruction set'
t search x.npy 1,0 -m dot --rows 1:4
t search x.npy 1,0 -m dot --rows -2: --threads 2
t search x.npy 1,0 -m dot --rows 3:3
t search x.npy 1,0 -m dot --rows 0:2,5
t search x.npy 1,0 -m dot --exclude 2,-1
npy mask.npy '|b1' 6 1 0 1 0 0 0
npy few.npy '<i2' 3 5 4 3
t search x.npy 1,0 -m dot --exclude mask.npy
t search x.npy 1,0 -m dot --rows few.npy --exclude 4
t search x.npy 1,0 -m dot --rows few.npy --exclude :
sh_t 'seq 0 4 | npk search x.npy 1,0 -m dot --exclude -'
t search x.npy 1,0 -k 0
sh_t 'NPK_CPU=scalar npk search x.npy 1,0 -m dot -k 2'
sh_t 'NPK_CPU=sse9 npk search x.npy 1,0 -m dot -k 2'
sh_t 'npk info --cpu | cut -f 1'
sh_t 'NPK_CPU=scalar npk info --cpu | grep scalar'
t info --cpu x.npy
say 'several arrays as one'
mkdir -p more
npy more/y.npy '<f4' 3,2 3 0 1 0 0 5
t search x.npy more/y.npy 1,0 -k 4 -m dot
t search x.npy more/y.npy@1: x.npy@5 many.npy -k 3 -m dot
t search more/y.npy x.npy @0 -k 2 -m l2 --json
t search x.npy@0,2 more/y.npy@few.npy 1,0 -m dot
t search x.npy@0:2 more/y.npy 1,0 -k 2 -m dot --header
t names more/y.npy good=0:2
t search more/y.npy@good 1,0 -m dot
t search x.npy more/y.npy@good 1,0 -k 2 -m dot --text
t search x.npy more/y.npy 1,0 -k 2 -m dot -o hits.npy
t get hits.npy
sh_t '"$PYTHON" -c "import ast; print(ast.literal_eval(open(\"hits.npy\", \"rb\").read()[10:128].decode())[\"descr\"])"'
cp x.npy x.npy@1.npy
t search x.npy@1.npy 1,0 -m dot -k 1
say 'all scores'
t search x.npy q.npy --all -m dot
t search x.npy@4: more/y.npy many.npy --all -m l2sq
t search x.npy q.npy --all -m dot --json --rows :2
t search x.npy many.npy --all -m dot -o all.npy
t get all.npy
t search x.npy q.npy --all -m dot -o all.npy --threads 2
t get all.npy
t search x.npy many.npy --all -m dot -o all.npy --rows 0:0
sh_t 'npk info all.npy | grep shape'
say 'to a file'
t search x.npy many.npy -k 2 -m dot -o hits.npy
t get hits.npy
t search x.npy q.npy -k 2 -m dot -o hits.npy
t get hits.npy
sh_t 'npk search x.npy q.npy -k 2 -m dot -o - | wc -c'
t search x.npy q.npy -o hits.npy --json
say 'not a number, infinities'
npy odd.npy '<f4' 5,1 nan inf 1 -inf 2
t search odd.npy 1 -m dot
t search odd.npy 1 -m l2
t search odd.npy nan -m dot -k 2
say 'other kinds of rows'
npy flat.npy '<i4' 4 3 1 2 2147483647
t search flat.npy 2 -m l2
npy big.npy '>i2' 3,2 1 2 3 4 -300 5
t search big.npy 3,4 -m dot -k 2
npy cube.npy '|i1' 2,2,2 1 2 3 4 -128 -128 127 127
t search cube.npy 1,1,1,1 -m dot
npk create none.npy --shape 0,2 --dtype float32
t search none.npy 1,0
say 'refused'
t search x.npy 1,0,0
t search x.npy 1,two
t search x.npy 1,0 -m nearest
t search x.npy 1,0 -m hamming
t search bits.npy 300,0
npy c.npy '<c8' 2,1 1 2
npy b.npy '|b1' 2,2 0 1
npy wide.npy '<f4' 1,3 1 2 3
npy scalar.npy '<f4' '' 1
npk create thin.npy --shape 3,0 --dtype float32
t search c.npy 1 -m dot
t search b.npy 1,0 -m l2
t search x.npy c.npy
t search x.npy wide.npy
t search x.npy scalar.npy
t search scalar.npy 1
t search thin.npy 1
t search x.npy gone.npy
t search gone.npy q.npy
t search . q.npy
t search x.npy @9
t search x.npy 1,0 -k ten
t search x.npy 1,0 -k
t search x.npy 1,0 -z 3
t search x.npy 1,0 --rows 0:2,x
t search x.npy 1,0 --rows 6
t search x.npy 1,0 --exclude 6
t search x.npy 1,0 --exclude few
t search x.npy 1,0 --all -k 3
t search x.npy 1,0 --all --exclude 1
t search x.npy x.npy 1,0 --rows 0:2
t search x.npy x.npy 1,0 --exclude 0
t search x.npy@0:2 1,0 --rows 0:2
t search x.npy@nobody 1,0
t search x.npy wide.npy 1,0
t search x.npy many.npy 1,0
t search x.npy gone.npy 1,0
t search x.npy 1,0 --epsilon -1
t search x.npy 1,0 --threads 0
t search x.npy
