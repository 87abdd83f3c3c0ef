# SPDX-License-Identifier: Apache-2.0
mkdir -p s/g
npy s/x.npy '<f4' 10,4 0
npy s/g/people.npy "[('name', '|S4'), ('age', '<i4')]" 2 41620000070000004162000007000000
npy --fortran s/f.npy '<i2' 2,3 1
echo nonsense >s/bad.npy
find s -type f -exec touch -d '2024-02-29T12:00:00Z' {} +
sh_t "npk info s/x.npy | grep -v '^inode'"
sh_t "npk info s/x.npy --text | grep -v '^inode'"
sh_t "npk info s/x.npy --json | sed 's/\"inode\":[0-9]*/\"inode\":0/'"
sh_t "npk info s/x.npy --header | head -n 2"
sh_t "npk info s/g/people.npy | grep -E '^(name|dtype|shape)'"
sh_t "npk info s/f.npy | grep -E '^(order|shape)'"
sh_t "npk info s/bad.npy | grep -v '^inode'"
sh_t "npk info s | grep -v '^leases'"
sh_t "npk info s --json | \"\$PYTHON\" -c 'import json, sys; print(sorted(json.load(sys.stdin)))'"
sh_t "cd s && npk info | grep -E '^(store|arrays)'"
t info s/none.npy
t info s x
say 'bytes beyond the rows'
printf abc >>s/x.npy
sh_t "npk info s/x.npy | grep -E '^(rows|tail_bytes)'"
