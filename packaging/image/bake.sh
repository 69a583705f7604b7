#!/bin/sh
# Installs the agent on this machine, which becomes an image; runs all steps that need no instance, and seals the image.
#
#   bake.sh AGENT SHA256 [ARGUMENT…]     as root; the arguments are those of `glovo-bootstrap bake`; AGENT is moved
set -eu
agent=$1 sha256=$2
shift 2

to=/usr/local/bin/glovo-bootstrap
# The check reads a copy that only root can write to.
install -m 600 "$agent" $to.new
trap 'rm -f $to.new' EXIT
echo "$sha256  $to.new" | sha256sum -c
chmod 755 $to.new
mv $to.new $to
rm "$agent"

$to bake --seal "$@"
