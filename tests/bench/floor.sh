#!/bin/sh
# The floor of a cold bootstrap: the fastest plain apt-get for the agent's packages, without recommended
# packages, translations, documentation and starts of services.
set -eu
export DEBIAN_FRONTEND=noninteractive
printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
apt-get -qq -oAcquire::Languages=none update
apt-get -qq -y -oAPT::Install-Recommends=false -oDpkg::Use-Pty=false \
  '-oDpkg::Options::=--path-exclude=/usr/share/man/*' '-oDpkg::Options::=--path-exclude=/usr/share/info/*' \
  '-oDpkg::Options::=--path-exclude=/usr/share/doc/*' '-oDpkg::Options::=--path-include=/usr/share/doc/*/copyright' \
  install nginx default-jre-headless > /dev/null
rm /usr/sbin/policy-rc.d
