# SPDX-License-Identifier: Apache-2.0
# What a case can call. Read by run.py before the case, in an empty directory, with `sh -eu`.

# Run npk and show: the command, standard output as it is, standard error with "! ", an exit status but 0 with "? ".
t() {
    show '$ npk' "$@"
    if npk "$@" 2>../stderr; then status=0; else status=$?; fi
    told
}

# The same, on a terminal of 80 columns; both outputs are one there.
tty() {
    show '$ npk' "$@"
    if "$PYTHON" "$CLI/on_tty.py" npk "$@" 2>../stderr; then status=0; else status=$?; fi
    told
}

# The same for a whole command line of the shell, e.g. a pipe.
sh_t() {
    printf '$ %s\n' "$1"
    if sh -c "$1" 2>../stderr; then status=0; else status=$?; fi
    told
}

show() {
    printf '%s' "$1"
    shift
    for word; do
        case $word in
        *[!A-Za-z0-9_./:,=+@-]* | '') printf " '%s'" "$word" ;;
        *) printf ' %s' "$word" ;;
        esac
    done
    echo
}

told() {
    sed 's/^/! /' ../stderr
    rm -f ../stderr
    [ "$status" -eq 0 ] || echo "? $status"
}

# npy FILE DTYPE SHAPE VALUE...: make a .npy file, e.g. npy x.npy '<f4' 2,3 0 1 2 3 4 5.
npy() {
    "$PYTHON" "$CLI/npy.py" "$@"
}

say() {
    echo "# $*"
}
