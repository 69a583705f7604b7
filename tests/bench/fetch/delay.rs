//! Delays the packets of netfilter queue 0, in order and without reading them: they wait in the kernel, as whole as
//! they were sent (GSO), and a verdict lets all go that have waited long enough. What netem does, for kernels without it.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
    sockopt::RcvBufForce,
};

/// How exact the delay is. Rarer wake-ups take less of the CPU that client and servers need.
const TICK: Duration = Duration::from_micros(250);

// linux/netfilter/nfnetlink.h and nfnetlink_queue.h
const SUBSYSTEM: u16 = 3 << 8;
const PACKET: u16 = SUBSYSTEM;
const CONFIG: u16 = SUBSYSTEM | 2;
const VERDICT_BATCH: u16 = SUBSYSTEM | 3;
const PACKET_HEADER: u16 = 1;
const VERDICT_HEADER: u16 = 2;
const CONFIG_COMMAND: u16 = 1;
const CONFIG_PARAMETERS: u16 = 2;
const CONFIG_LENGTH: u16 = 3;
const CONFIG_MASK: u16 = 4;
const CONFIG_FLAGS: u16 = 5;
const BIND: u8 = 1;
const COPY_METADATA: u8 = 1;
const GSO: u32 = 4;
const ACCEPT: u32 = 1;
const ERROR: u16 = 2;
/// More than is ever under way: netem would drop above its limit, as this does.
const LENGTH: u32 = 1_000_000;

/// Runs until it is killed.
pub fn run(delay: Duration) -> Result<()> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let queue = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkNetFilter)?;
    bind(queue.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    setsockopt(&queue, RcvBufForce, &(64 << 20))?;
    tell(&queue, CONFIG, &[(CONFIG_COMMAND, &[BIND, 0, 0, 0])])?;
    tell(&queue, CONFIG, &[(CONFIG_PARAMETERS, &[0, 0, 0, 0, COPY_METADATA])])?;
    tell(&queue, CONFIG, &[(CONFIG_LENGTH, &LENGTH.to_be_bytes())])?;
    tell(&queue, CONFIG, &[(CONFIG_FLAGS, &GSO.to_be_bytes()), (CONFIG_MASK, &GSO.to_be_bytes())])?;

    let mut buffer = vec![0; 1 << 16];
    // The newest packet of each tick, and its time of release. All earlier packets are released with it.
    let mut waiting: VecDeque<(Instant, u32)> = VecDeque::new();
    loop {
        if waiting.is_empty() {
            _ = poll(&mut [PollFd::new(queue.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)?;
        } else {
            std::thread::sleep(TICK);
        }
        let now = Instant::now();
        if let Some(newest) = newest(&queue, &mut buffer)? {
            waiting.push_back((now + delay, newest));
        }
        let mut due = None;
        while let Some((_, id)) = waiting.pop_front_if(|(due, _)| *due <= now) {
            due = Some(id);
        }
        if let Some(id) = due {
            let verdict = (u64::from(ACCEPT) << 32) | u64::from(id);
            tell(&queue, VERDICT_BATCH, &[(VERDICT_HEADER, &verdict.to_be_bytes())])?;
        }
    }
}

/// The number of the newest packet that the kernel has told of since the last call.
fn newest(queue: &OwnedFd, buffer: &mut [u8]) -> Result<Option<u32>> {
    let mut newest = None;
    loop {
        let length = match recv(queue.as_raw_fd(), buffer, MsgFlags::empty()) {
            Ok(length) => length,
            Err(Errno::EAGAIN) => return Ok(newest),
            Err(error) => return Err(error).context("the queue of delayed packets"),
        };
        let mut messages = buffer.get(..length).unwrap_or_default();
        while let Some(size) = u32_at(messages, 0).map(|size| size as usize).filter(|size| *size >= 20) {
            let (message, rest) = messages.split_at_checked(size).context("a short message")?;
            match u16::from_ne_bytes([message[4], message[5]]) {
                PACKET => newest = Some(packet(message).context("a packet without a number")?),
                ERROR => bail!("netfilter queue: error {}", u32_at(message, 16).unwrap_or(0).cast_signed()),
                _ => {}
            }
            messages = rest.get(size.next_multiple_of(4) - size..).unwrap_or_default();
        }
    }
}

/// The number in a packet's message: netlink's header is 16 bytes long, netfilter's 4; attributes follow.
fn packet(message: &[u8]) -> Option<u32> {
    let mut attributes = message.get(20..)?;
    loop {
        let head = attributes.get(..4)?;
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        if u16::from_ne_bytes([head[2], head[3]]) == PACKET_HEADER {
            return Some(u32_at(attributes, 4)?.swap_bytes());
        }
        attributes = attributes.get(length.max(4).next_multiple_of(4)..)?;
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn tell(queue: &OwnedFd, kind: u16, attributes: &[(u16, &[u8])]) -> Result<()> {
    // Binds queue 0, for all address families.
    let mut body = vec![0; 4];
    for (name, value) in attributes {
        body.extend((4 + value.len() as u16).to_ne_bytes());
        body.extend(name.to_ne_bytes());
        body.extend(*value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    let mut message = Vec::new();
    message.extend((16 + body.len() as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(1u16.to_ne_bytes()); // a request
    message.extend([0; 8]);
    message.extend(body);
    _ = send(queue.as_raw_fd(), &message, MsgFlags::empty())?;
    Ok(())
}
