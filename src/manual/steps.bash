
# The steps of the manifest that the command line names, each on a line.
_glovo_bootstrap_steps() {
    local i manifest=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        [[ ${COMP_WORDS[i]} == --steps ]] || continue
        # `--steps=PATH` is three words to bash.
        [[ ${COMP_WORDS[i + 1]} != = ]] || ((i++))
        manifest=(--steps "${COMP_WORDS[i + 1]}")
    done
    "$1" steps list "${manifest[@]}" < /dev/null 2> /dev/null
}

_glovo_bootstrap_with_steps() {
    _glovo__bootstrap "$@"
    local name rest
    [[ $2 != -* ]] || return 0
    case ${COMP_WORDS[1]},$3 in
        run,--from | plan,--from | bake,--from | run,--skip | plan,--skip | bake,--skip) COMPREPLY=() ;;
        *,--*) return 0 ;;
        run,* | plan,* | bake,*) ;;
        steps,*) [[ ${COMP_WORDS[2]} == show ]] || return 0 ;;
        *) return 0 ;;
    esac
    # Not by compgen -W, which would expand what a name holds.
    while read -r name rest; do
        [[ $name != "$2"* || ! $name =~ ^[A-Za-z0-9._-]+$ ]] || COMPREPLY+=("$name")
    done < <(_glovo_bootstrap_steps "$1")
}
complete -F _glovo_bootstrap_with_steps -o bashdefault -o default glovo-bootstrap
