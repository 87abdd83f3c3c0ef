#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Each check of this folder is shown one tree that breaks its rule and has to turn red, and the same tree mended and has
# to turn green: a check that cannot fail proves nothing. Usage: red.sh HERE CC
set -eu
here=$1
cc=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

expect() { # STATUS NAME COMMAND...
    wanted=$1 name=$2
    shift 2
    status=0
    "$@" >"$work/out" 2>&1 || status=1
    if [ "$status" = "$wanted" ]; then
        printf 'ok   %s\n' "$name"
    else
        failures=$((failures + 1))
        printf 'FAIL %s: exit %s where %s was due\n' "$name" "$status" "$wanted"
        sed 's/^/     /' "$work/out"
    fi
}

# ---- includes_one_way.py -----------------------------------------------------------------------------------------
tree=$work/tree
fresh() {
    rm -rf "$tree"
    mkdir -p "$tree/kernels" "$tree/store" "$tree/fs" "$tree/tools" "$tree/tests"
    echo '#include <string.h>' >"$tree/kernels/copy.h"
    echo '#include "copy.h"' >"$tree/store/io.h"
    echo '#include <stdint.h>' >"$tree/store/npk.h"
    printf '#include <fuse_lowlevel.h>\n#include "npk.h"\n' >"$tree/fs/node.h"
    echo '#include "npk.h"' >"$tree/tools/command.h"
}
breaks() { # NAME FILE LINE
    fresh
    echo "$3" >>"$tree/$2"
    expect 1 "includes: $1 is red" python3 "$here/includes_one_way.py" "$tree"
}
fresh
expect 0 'includes: a good tree is green' python3 "$here/includes_one_way.py" "$tree"
breaks 'kernels including store' kernels/copy.h '#include "io.h"'
breaks 'kernels doing I/O' kernels/copy.h '#include <unistd.h>'
breaks 'store including fs' store/io.h '  #  include "node.h"'
breaks 'store including fuse' store/io.h '#include <fuse_lowlevel.h>'
breaks 'fs including the inside of store' fs/node.h '#include "io.h"'
breaks 'fs including tools' fs/node.h '#include "command.h"'
breaks 'tools including fs' tools/command.h '#include "node.h"'
breaks 'tools including the inside of store' tools/command.h '#include "../store/io.h"'

# ---- symbols.sh, header_names.py ---------------------------------------------------------------------------------
library() { # C_TEXT
    printf '%s\n' "$1" >"$work/x.c"
    "$cc" -w -fPIC -c "$work/x.c" -o "$work/x.o" && "$cc" -shared "$work/x.o" -o "$work/x.so" && rm -f "$work/x.a" &&
        ar rcs "$work/x.a" "$work/x.o"
}
library 'int npk_open(void) { return 0; } int kn_add(void) { return 0; }'
expect 0 'symbols: good names are green' sh "$here/symbols.sh" "$work/x.so" "$work/x.a"
library 'int npk_open(void) { return 0; } int helper(void) { return 0; }'
expect 1 'symbols: a name without prefix is red' sh "$here/symbols.sh" "$work/x.so" "$work/x.a"
library 'int npk_open(void) { return 0; } int npk__inside(void) { return 0; }'
expect 1 'symbols: an internal name exported is red' sh "$here/symbols.sh" "$work/x.so" "$work/x.a"
library 'int npk_open(void) { return 0; }'
echo '/* int npk_not(void); */ int npk_open(void); typedef int npk_visit(void *ctx);' >"$work/npk.h"
expect 0 'header: the same names are green' python3 "$here/header_names.py" "$work/npk.h" "$work/x.so"
echo 'int npk_open(void); int npk_close(int a,' >"$work/npk.h"
echo '              int b);' >>"$work/npk.h"
expect 1 'header: a function nobody wrote is red' python3 "$here/header_names.py" "$work/npk.h" "$work/x.so"

# ---- top_level.sh ------------------------------------------------------------------------------------------------
fresh
touch "$tree/CMakeLists.txt" "$tree/CMakePresets.json" "$tree/LICENSE" "$tree/README.md" "$tree/.gitignore"
for folder in kernels store fs tools tests; do touch "$tree/$folder/README.md"; done
expect 0 'top level: the plan is green' sh "$here/top_level.sh" "$tree"
mkdir "$tree/utils"
expect 1 'top level: one folder more is red' sh "$here/top_level.sh" "$tree"
rmdir "$tree/utils"
rm "$tree/store/README.md"
expect 1 'top level: a folder without README is red' sh "$here/top_level.sh" "$tree"

# ---- words.sh, docs.py -------------------------------------------------------------------------------------------
expect 0 'words: a clean tree is green' sh "$here/words.sh" "$tree"
printf 'see /%s/main\n' work >"$tree/store/notes.txt"
expect 1 'words: a path of one machine is red' sh "$here/words.sh" "$tree"
expect 0 'docs: agreeing texts are green' python3 "$here/docs.py" --self-test green
for fault in readme man help stale; do
    expect 1 "docs: an option that differs ($fault) is red" python3 "$here/docs.py" --self-test "$fault"
done

[ "$failures" = 0 ]
