#!/bin/bash
# The kernel's side of one machine: its mounts, cgroup, loop devices and swap.
#
#   container.sh hold DIR LOWER UPPER FILESYSTEM…   set up, print "ready", and clean up when standard input ends
#   container.sh boot DIR                           switch the machine on; ends when it is off, with code 133 if it asked to reboot
#   container.sh sweep DIR                          clean up after a holder that was killed
#
# `hold` is process 1 of a pid and mount namespace (src/machine.rs enters them for `boot`), so no process and no mount
# outlives it. Its standard input is a pipe of its harness, so it ends also if the harness is killed.
set -euo pipefail
shopt -s nullglob

hold() {
  local dir=$1 lower=$2 upper=$3 filesystem; shift 3
  mkdir "$dir/root" "$dir/upper" "$dir/mnt"
  exec 9< "$dir"; flock 9
  trap "release '$dir'" EXIT
  # With a read-only /sys nspawn does not wait for udev. It needs cgroup2 and a /run of its own.
  mount -t sysfs -o ro sysfs /sys
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
  mount -t tmpfs tmpfs /run
  echo "/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)/glovo-machine-${dir##*/}" > "$dir/cgroup"
  mkdir -p "$(< "$dir/cgroup")"

  case $upper in
    tmpfs) mount -t tmpfs -o size=6G tmpfs "$dir/upper" ;;
    image) truncate -s 2G "$dir/upper.raw"; mkfs.ext4 -q "$dir/upper.raw"; mount -o loop "$dir/upper.raw" "$dir/upper" ;;
  esac
  mkdir "$dir/upper/changes" "$dir/upper/work"
  mount -t overlay overlay -o "lowerdir=$lower,upperdir=$dir/upper/changes,workdir=$dir/upper/work" "$dir/root"
  for filesystem; do
    # A converged tree includes the disk with its swap file.
    [ -e "$dir/$filesystem.img" ] || make_disk "$dir/$filesystem.img" "$filesystem"
    mkdir -p "$dir/mnt/$filesystem" "$dir/root/mnt/$filesystem"
    mount -o loop "$dir/$filesystem.img" "$dir/mnt/$filesystem"
  done
  echo ready
  # Only this process has the lock, so that it ends with this process and not with its children.
  cat > /dev/null 9<&-
}

make_disk() {
  truncate -s 512M "$1"
  "mkfs.$2" -q "$1" > /dev/null
}

release() {
  kill_all "$1"
  swap_off "$1"
  awk -v inside="$1/" 'index($2, inside) == 1 { print $2 }' /proc/self/mounts | tac | xargs --no-run-if-empty umount
  clear "$1"
}

boot() {
  local dir=$1 filesystem binds=()
  swap_off "$dir"
  for filesystem in "$dir"/mnt/*; do binds+=("--bind=$filesystem:/mnt/${filesystem##*/}"); done
  ip link delete vpc 2> /dev/null || true
  ip -batch - <<IP
link add vpc type veth peer name eth0 address 02:00:ac:1f:00:0a
address add 172.31.0.1/20 dev vpc
link set vpc up
IP
  echo 0 > "$(< "$dir/cgroup")/cgroup.procs"
  exec systemd-nspawn --quiet --directory="$dir/root" --machine=machine --register=no --keep-unit --network-interface=eth0 \
    --system-call-filter=@swap --resolv-conf=off --timezone=off --link-journal=no --console=read-only "${binds[@]}" --boot
}

# Swap is on for all namespaces, and stays on after the end of a container and of its mounts.
swap_off() {
  find "$1/mnt" -type f -exec swapoff {} \; 2> /dev/null || true
}

kill_all() {
  local cgroup; cgroup=$(cat "$1/cgroup" 2> /dev/null) && [ -d "$cgroup" ] || return 0
  echo 1 > "$cgroup/cgroup.kill"
  until grep -q 'populated 0' "$cgroup/cgroup.events"; do sleep 0.02; done
}

clear() {
  local cgroup; cgroup=$(cat "$1/cgroup" 2> /dev/null) && [ -d "$cgroup" ] && find "$cgroup" -depth -type d -exec rmdir {} +
  rm -rf --one-file-system "$1"
}

sweep() {
  local dir=$1 image mount
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
  kill_all "$dir"
  # An active swap file keeps its file system in use. Mounted again, it is the same file system.
  for image in "$dir"/*.img; do
    mount=$dir/mnt/$(basename "$image" .img)
    [ -d "$mount" ] && [ -n "$(losetup --associated "$image")" ] || continue
    mount -o loop "$image" "$mount"; swap_off "$dir"; umount "$mount"
  done
  clear "$dir"
}

"$@"
