#!/bin/bash
# The script that the agent is compared with: the seven old steps in bash, with guards, so that a second run does little. Takes the same variables as the built-in steps, from the environment.
set -euo pipefail
app=/var/www/glovo-app
jar=$app/systems-engineer-interview-$app_version.jar

install_dependencies() {
  dpkg --status nginx default-jre-headless awscli > /dev/null 2>&1 && return
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq update
  apt-get -qq -y --no-install-recommends install nginx default-jre-headless awscli > /var/log/apt-install.log
}

enable_swap() {
  if [ ! -e "$swap_path" ]; then
    fallocate -l "$swap_size" "$swap_path"
    chmod 600 "$swap_path"
    mkswap "$swap_path" > /dev/null
  fi
  grep -q "^$swap_path " /proc/swaps || swapon "$swap_path"
  grep -q "^$swap_path " /etc/fstab || echo "$swap_path none swap sw 0 0" >> /etc/fstab
}

provision_app_directory() {
  install -d -o root -g root -m 755 "$app"
}

copy_http_resources() {
  if ! echo "$jar_sha256  $jar" | sha256sum --check --quiet 2> /dev/null; then
    curl -fsS --retry 3 -o "$jar.new" "$jar_url"
    echo "$jar_sha256  $jar.new" | sha256sum --check --quiet
    mv "$jar.new" "$jar"
  fi
  ln -sfn "${jar##*/}" "$app/systems-engineer-interview.jar"
}

# The bucket is private, so only the aws-cli can compare its objects.
copy_s3_resources() {
  changed=
  while read -r key path; do
    aws s3 cp --only-show-errors "s3://$config_bucket/$key" "$path.new"
    if cmp --silent "$path.new" "$path"; then rm "$path.new"; else mv "$path.new" "$path"; changed=1; fi
  done <<OBJECTS
nginx/default /etc/nginx/sites-available/default
systemd/glovo-app.service /etc/systemd/system/glovo-app.service
OBJECTS
}

create_glovo_app_user() {
  id glovo-app > /dev/null 2>&1 || useradd --system --home-dir "$app" --shell /usr/sbin/nologin glovo-app
}

start_servers() {
  if [ "$changed" ]; then
    systemctl daemon-reload
    nginx -t -q
    systemctl enable --quiet glovo-app nginx
    systemctl restart glovo-app nginx
  fi
}

verify() {
  for _ in $(seq 600); do
    curl -fsS -o /dev/null -D - http://127.0.0.1/ 2> /dev/null | grep -qi '^X-Glovo-Systems-Engineer-Candidate: 1' && return
    sleep 0.1
  done
  return 1
}

install_dependencies
enable_swap
provision_app_directory
copy_http_resources
copy_s3_resources
create_glovo_app_user
start_servers
verify
