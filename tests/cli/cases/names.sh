# SPDX-License-Identifier: Apache-2.0
# Names that would break a line, a table, a terminal or JSON.
for name in "$(printf 'tab\there')" "$(printf 'new\nline')" 'quo"te' 'back\slash' "$(printf 'esc\033[1m')" "$(printf 'raw\377byte')" \
    'späße' 'with blank' "$(printf 'c1\302\205x')"; do
    npy "$name.npy" '|u1' 1 7
    touch -d '2024-02-29T12:00:00Z' "$name.npy"
done
t ls
t ls --text
t ls --json
say 'JSON is valid, and Python gets every name back'
sh_t 'npk ls --json | "$PYTHON" -c "
import json, os, sys
names = [entry[\"name\"] for entry in json.load(sys.stdin)]
print(sorted(names) == sorted(f[:-4] for f in os.listdir(\".\") if f.endswith(\".npy\")), len(names))"'
say 'and printf %b of bash gives the names of TSV back'
sh_t 'npk ls | cut -f 1 | bash -c "while IFS= read -r name; do [ -e \"\$(printf %b.npy \"\$name\")\" ] && echo there; done" | wc -l'
say 'errors are escaped as well'
t get "$(printf 'no\nsuch\033.npy')"
t get 'quo"te.npy' 5
