//! What hosts send and receive.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use portcullis_vm_tests::{Lab, Side};

/// Before anything is counted: windows are open by then.
const WARM_UP: Duration = Duration::from_millis(500);
const MEASURED: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(10);
const BUFFER: usize = 1 << 17;
const DATAGRAM: usize = 1300;

/// What TCP flows carried.
pub struct Carried {
    /// Octets that arrived while they were counted.
    counted: u64,
    counted_for: Duration,
    /// All that arrived.
    octets: u64,
}

impl Carried {
    pub fn mbit_per_second(&self) -> f64 {
        self.counted as f64 * 8.0 / 1e6 / self.counted_for.as_secs_f64()
    }

    /// All of it.
    pub fn mbit(&self) -> f64 {
        self.octets as f64 * 8.0 / 1e6
    }
}

/// `count` TCP flows from host-a to host-b.
///
/// # Errors
/// If no connection comes about.
pub fn tcp(lab: &Lab, count: usize) -> Result<Carried> {
    let listener = lab.host_b.enter(|| TcpListener::bind((Side::B.host().0, 0)))?;
    let destination = listener.local_addr()?;
    let mut ends = Vec::new();
    for _ in 0..count {
        let sender = lab.host_a.enter(|| TcpStream::connect_timeout(&destination, PATIENCE));
        ends.push((sender.context("connecting through the tunnel")?, listener.accept()?.0));
    }
    let (done, received) = (AtomicBool::new(false), AtomicU64::new(0));
    let (counted, counted_for) = thread::scope(|scope| {
        for (sender, receiver) in ends {
            scope.spawn(|| send(sender, &done));
            scope.spawn(|| receive(receiver, &received));
        }
        counted(&done, &received)
    });
    Ok(Carried { counted, counted_for, octets: received.into_inner() })
}

/// Mbit/s of UDP that arrive at host-b while host-a sends as fast as it can.
///
/// # Errors
/// If a socket cannot be had.
pub fn udp(lab: &Lab) -> Result<f64> {
    let bind = |side: Side| UdpSocket::bind((side.host().0, 0));
    let sender = lab.host_a.enter(|| bind(Side::A))?;
    let receiver = lab.host_b.enter(|| bind(Side::B))?;
    let destination: SocketAddr = receiver.local_addr()?;
    receiver.set_read_timeout(Some(Duration::from_millis(100)))?;
    let (done, received) = (AtomicBool::new(false), AtomicU64::new(0));
    let (octets, time) = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                // A full queue of the host's own is part of the game.
                let _ = sender.send_to(&[0x5a; DATAGRAM], destination);
            }
        });
        scope.spawn(|| {
            let mut buffer = [0; 2 * DATAGRAM];
            while !done.load(Ordering::Relaxed) {
                if let Ok(len) = receiver.recv(&mut buffer) {
                    received.fetch_add(len as u64, Ordering::Relaxed);
                }
            }
        });
        counted(&done, &received)
    });
    Ok(octets as f64 * 8.0 / 1e6 / time.as_secs_f64())
}

fn counted(done: &AtomicBool, received: &AtomicU64) -> (u64, Duration) {
    thread::sleep(WARM_UP);
    let (start, before) = (Instant::now(), received.load(Ordering::Relaxed));
    thread::sleep(MEASURED);
    let counted = received.load(Ordering::Relaxed) - before;
    let time = start.elapsed();
    done.store(true, Ordering::Relaxed);
    (counted, time)
}

fn send(mut tcp: TcpStream, done: &AtomicBool) {
    let octets = vec![0x5a; BUFFER];
    let _ = tcp.set_write_timeout(Some(Duration::from_millis(100)));
    while !done.load(Ordering::Relaxed) {
        match tcp.write(&octets) {
            Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return,
            _ => {}
        }
    }
}

/// Reads until the sender ends.
fn receive(mut tcp: TcpStream, received: &AtomicU64) {
    let mut buffer = vec![0; BUFFER];
    while let Ok(len) = tcp.read(&mut buffer)
        && len > 0
    {
        received.fetch_add(len as u64, Ordering::Relaxed);
    }
}
