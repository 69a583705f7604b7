# The checks of the built-in steps, as a bash script with guards makes them.
set -euo pipefail
app=/var/www/glovo-app

[ "$(dpkg-query -W -f '${db:Status-Abbrev};' nginx default-jre-headless)" = 'ii ;ii ;' ]

swapon --show=NAME --noheadings | grep -qxF SWAP_FILE
[ "$(stat -c '%U:%G %a' SWAP_FILE)" = 'root:root 600' ]
grep -q '^SWAP_FILE ' /etc/fstab

[ "$(stat -c '%U:%G %a' $app)" = 'root:root 755' ]
sha256sum --check --status /root/sums
[ "$(stat -c '%U:%G %a' $app/systems-engineer-interview-1.0.0.jar /etc/nginx/sites-enabled/default \
  /etc/systemd/system/glovo-app.service | uniq)" = 'root:root 644' ]
[ "$(readlink $app/systems-engineer-interview.jar)" = systems-engineer-interview-1.0.0.jar ]

[ "$(getent passwd glovo-app | cut -d: -f6-)" = $app:/usr/sbin/nologin ]

systemctl is-enabled --quiet glovo-app nginx
systemctl is-active --quiet glovo-app nginx
curl -sfi http://127.0.0.1/ | grep -qi '^X-Glovo-Systems-Engineer-Candidate: 1'
