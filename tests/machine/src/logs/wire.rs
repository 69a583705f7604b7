//! A wire between two worlds, and its faults.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{sleep, spawn};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};

use crate::world::{ROUTER, World};

/// The address of a machine in its world.
const MACHINE: &str = "172.31.0.10";

/// How a wire passes on what the sender sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// At once.
    Full,
    /// One byte each second.
    Slow,
}

/// A wire: what connects to a port of one world's router reaches that port of the machine in another world.
pub struct Wire {
    stopped: Arc<AtomicBool>,
    is_slow: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Wire {
    /// Lays a wire between two worlds.
    pub fn new(from: &World, to: &World, port: u16) -> Result<Wire> {
        let (from, to) = (File::open(from.network().path())?, File::open(to.network().path())?);
        let wire = Wire { stopped: Arc::default(), is_slow: Arc::default(), streams: Arc::default() };
        let (stopped, is_slow) = (Arc::clone(&wire.stopped), Arc::clone(&wire.is_slow));
        let streams = Arc::clone(&wire.streams);
        let (ready, is_ready) = std::sync::mpsc::channel();
        spawn(move || {
            // A socket stays in the network in which it was made.
            let listener = setns(&from, CloneFlags::CLONE_NEWNET)
                .map_err(anyhow::Error::from)
                .and_then(|()| Ok(TcpListener::bind((ROUTER, port))?))
                .and_then(|listener| Ok((listener.set_nonblocking(true)?, listener).1));
            let moved = setns(&to, CloneFlags::CLONE_NEWNET);
            let listener = match (listener, moved) {
                (Ok(listener), Ok(())) => listener,
                (listener, moved) => {
                    let _ = ready.send(listener.map(drop).and(moved.map_err(Into::into)));
                    return;
                }
            };
            let _ = ready.send(Ok(()));
            while !stopped.load(Ordering::Relaxed) {
                let Ok((near, _)) = listener.accept() else {
                    sleep(Duration::from_millis(20));
                    continue;
                };
                // No program listens at the other end: the connection is closed.
                let Ok(far) = TcpStream::connect((MACHINE, port)) else { continue };
                let _ = near.set_nonblocking(false);
                for (source, sink, is_slow) in
                    [(&near, &far, Arc::clone(&is_slow)), (&far, &near, Arc::new(AtomicBool::new(false)))]
                {
                    if let (Ok(source), Ok(sink)) = (source.try_clone(), sink.try_clone()) {
                        let _ = sink.set_nodelay(true);
                        spawn(move || copy(source, sink, &is_slow));
                    }
                }
                streams.lock().expect("no panic").extend([near, far]);
            }
        });
        is_ready.recv().context("the wire's thread")??;
        Ok(wire)
    }

    /// Sets how it passes on what the sender sends.
    pub fn set_pace(&self, pace: Pace) {
        self.is_slow.store(pace == Pace::Slow, Ordering::Relaxed);
    }

    /// Ends all connections. New ones can be made.
    pub fn cut(&self) {
        for stream in self.streams.lock().expect("no panic").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.cut();
    }
}

/// Copies until one side has ended, then ends the other one.
fn copy(mut source: TcpStream, mut sink: TcpStream, is_slow: &AtomicBool) {
    let mut buffer = [0; 16 << 10];
    loop {
        let is_slow = is_slow.load(Ordering::Relaxed);
        let room = if is_slow { 1 } else { buffer.len() };
        let Ok(count @ 1..) = source.read(&mut buffer[..room]) else { break };
        if is_slow {
            sleep(Duration::from_secs(1));
        }
        if sink.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = source.shutdown(Shutdown::Both);
    let _ = sink.shutdown(Shutdown::Both);
}
