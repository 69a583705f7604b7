#!/bin/bash
# The bench's network and memory: process 1 of the pid, mount and network namespaces of the servers. When its standard
# input ends, all of them end, and their files in DIR are removed.
#
#   world.sh DIR SIZE     DIR/ram becomes a tmpfs of this size
#
#   the server's namespace  10.77.0.1, 10.77.0.2  ── veth ──  10.77.0.10  the client's, /run/netns/client
#
# Packets that reach the client from 10.77.0.2 wait in netfilter queue 0, for `bench-fetch delay`: a delay on
# kernels without netem.
set -euo pipefail
clear_away() {
  # All processes of this pid namespace except this one.
  kill -KILL -1 || true
  umount --lazy "$1/ram"
  rm -rf --one-file-system "$1"
}
trap 'clear_away "$1"' EXIT

mkdir -p "$1/ram"
mount -t tmpfs -o "size=$2" tmpfs "$1/ram"
mount -t tmpfs tmpfs /run
mkdir /run/netns
ip netns add client
ip -batch - <<'IP'
link set lo up
link add server type veth peer name client netns client
address add 10.77.0.1/24 dev server
address add 10.77.0.2/24 dev server
link set server up
IP
ip -netns client -batch - <<'IP'
link set lo up
address add 10.77.0.10/24 dev client
link set client up
IP
# The defaults of Debian's kernel, on every host. Only the first namespace can set the default of congestion control, so
# the route sets it. No connection uses the metrics of earlier connections.
for namespace in server client; do
  inside=(ip netns exec client)
  [ $namespace = client ] || inside=()
  "${inside[@]}" sysctl --quiet --write net.core.somaxconn=4096 net.ipv4.tcp_no_metrics_save=1 \
    net.ipv4.tcp_rmem='4096 131072 6291456' net.ipv4.tcp_wmem='4096 16384 4194304'
  "${inside[@]}" ip route replace 10.77.0.0/24 dev $namespace scope link congctl cubic
done
ip netns exec client iptables-legacy --table mangle --append PREROUTING --source 10.77.0.2 --jump NFQUEUE --queue-num 0
echo ready
cat > /dev/null
