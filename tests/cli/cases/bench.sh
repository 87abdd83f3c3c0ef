# SPDX-License-Identifier: Apache-2.0
# Figures differ; what is measured and what stays behind do not.
mkdir s
npy s/x.npy '<i4' 3,2 0
sh_t 'npk bench s --size 8 --repeats 1 | cut -f 1'
sh_t 'npk bench s --size 8 --repeats 1 --json | "$PYTHON" -c "
import json, sys
lines = json.load(sys.stdin)
print(len(lines), all(line[\"store_us\"] > 0 and line[\"plain_us\"] > 0 and line[\"ratio\"] > 0 for line in lines))"'
sh_t 'npk bench s --size 8 --repeats 1 --text | head -n 1 | tr -s " "'
sh_t 'find s | sort'
sh_t 'npk bench s --size 8 --repeats 1 --search | cut -f 1'
t bench s --size 7
t bench s --size x
t bench s --repeats 0
t bench s --repeats 100
t bench s/x.npy
t bench nowhere
t bench
say 'an interrupted run cleans up'
sh_t '"$PYTHON" -c "
import os, signal, subprocess, time
p = subprocess.Popen([\"npk\", \"bench\", \"s\", \"--size\", \"64\", \"--repeats\", \"99\"], stdout=subprocess.DEVNULL)
while not any(n.startswith(\"npk-bench.\") and os.path.exists(\"s/\" + n + \"/grows.bin\") for n in os.listdir(\"s\")):
    time.sleep(0.01)
p.send_signal(signal.SIGINT)
print(p.wait())"'
sh_t 'find s | sort'
