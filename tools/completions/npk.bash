# SPDX-License-Identifier: Apache-2.0
# Completion of npk in bash. Verbs and options come from `npk help --table`, so they are always those of the program.

_npk() {
    local word=${COMP_WORDS[COMP_CWORD]} verb=${COMP_WORDS[1]} table options
    table=$("${COMP_WORDS[0]}" help --table 2>/dev/null) || return
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ] || { [ "$COMP_CWORD" -eq 2 ] && [ "$verb" = help ]; }; then
        mapfile -t COMPREPLY < <(compgen -W "$(cut -f 1 <<<"$table")" -- "$word")
        return
    fi
    if [[ $word == -* ]]; then
        options=$(awk -F '\t' -v verb="$verb" '$1 == verb { gsub("=", "", $2); print $2 }' <<<"$table")
        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$word")
        return
    fi
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen -f -- "$word")
}
complete -F _npk npk
