# The steps of the manifest that the command line names.
_glovo_bootstrap_steps() {
    local at=${words[(I)--steps]}
    local -a manifest steps
    (( at == 0 )) || manifest=(--steps "${(Q)words[at + 1]}")
    steps=("${(@f)$(glovo-bootstrap steps list $manifest < /dev/null 2> /dev/null)}")
    steps=(${steps%% *})
    compadd -a steps
}
