#!/usr/bin/env python3
"""Delays what the world sends to its machine, as a long way would: for kernels without netem.

    delay.py MILLISECONDS    in the world's network namespace, as root; ends when its standard input does

The world's packets to the machine are routed into a TUN device; they come back out of it that much later and are
forwarded. They stay as large as the kernel makes them (GSO), so that this is no bottleneck.
"""
import collections, fcntl, os, select, struct, subprocess, sys, time

MACHINE, DEVICE = "172.31.0.10", "delay"
TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
TUN_F_CSUM, TUN_F_TSO4 = 0x01, 0x02

delay = float(sys.argv[1]) / 1000
tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), IFF_TUN | IFF_NO_PI | IFF_VNET_HDR))
fcntl.ioctl(tun, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4)
# The queue holds all packets in flight, so that none is lost. All its packets are the bench's own.
for name, value in [("ip_forward", 1), ("conf/all/rp_filter", 0), (f"conf/{DEVICE}/rp_filter", 0), (f"conf/{DEVICE}/accept_local", 1)]:
    with open(f"/proc/sys/net/ipv4/{name}", "w") as file:
        file.write(str(value))
for arguments in [
    f"link set {DEVICE} up txqueuelen 100000",
    f"route add {MACHINE} dev vpc table 100",
    f"rule add iif {DEVICE} lookup 100",
    f"route add {MACHINE} dev {DEVICE}",
]:
    subprocess.run(["ip", *arguments.split()], check=True)
print("ready", flush=True)

under_way = collections.deque()
while True:
    patience = max(0, under_way[0][0] - time.monotonic()) if under_way else None
    ready = select.select([tun, sys.stdin], [], [], patience)[0]
    if sys.stdin in ready:
        break
    if tun in ready:
        try:
            while True:
                packet = os.read(tun, 1 << 17)
                under_way.append((time.monotonic() + delay, packet))
        except BlockingIOError:
            pass
    while under_way and under_way[0][0] <= time.monotonic():
        os.write(tun, under_way.popleft()[1])
