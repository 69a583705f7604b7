
# The steps of the manifest that the command line names.
function __fish_glovo_bootstrap_steps
    set -l words (commandline -opc)
    set -l manifest
    set -l at (contains -i -- --steps $words); and set manifest --steps $words[(math $at + 1)]
    glovo-bootstrap steps list $manifest </dev/null 2>/dev/null | string replace -r ' .*' ''
end
for verb in run plan bake
    complete -c glovo-bootstrap -n "__fish_glovo_bootstrap_using_subcommand $verb" -f -a "(__fish_glovo_bootstrap_steps)"
    complete -c glovo-bootstrap -n "__fish_glovo_bootstrap_using_subcommand $verb" -l from -r -f -a "(__fish_glovo_bootstrap_steps)"
    complete -c glovo-bootstrap -n "__fish_glovo_bootstrap_using_subcommand $verb" -l skip -r -f -a "(__fish_glovo_bootstrap_steps)"
end
complete -c glovo-bootstrap -n "__fish_glovo_bootstrap_using_subcommand steps; and __fish_seen_subcommand_from show" -f -a "(__fish_glovo_bootstrap_steps)"
