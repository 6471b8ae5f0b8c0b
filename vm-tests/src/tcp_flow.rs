//! TCP between two namespaces, every octet checked.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::netns::Namespace;

/// What one TCP connection carried.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct TcpReport {
    /// Octets the receiver read, all of them as they were sent.
    pub bytes: u64,
    /// From the first octet to the end of the stream, at the receiver.
    pub duration: Duration,
}

impl TcpReport {
    /// Throughput in Mbit/s.
    pub fn mbit_per_second(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.duration.as_secs_f64() / 1e6
    }
}

/// Sends on one connection from `from` to `to` for `duration` and checks every octet on arrival.
///
/// # Errors
/// If no connection comes about, it breaks, stalls for 10 s, or delivers other octets than were sent.
pub fn tcp_throughput(
    from: (&Namespace, IpAddr),
    to: (&Namespace, IpAddr),
    duration: Duration,
) -> Result<TcpReport> {
    let start = Instant::now();
    transfer(from, to, |_| start.elapsed() < duration)
}

/// As [`tcp_throughput`], until at least `bytes` are sent.
///
/// # Errors
/// As those of [`tcp_throughput`].
pub fn tcp_transfer(from: (&Namespace, IpAddr), to: (&Namespace, IpAddr), bytes: u64) -> Result<TcpReport> {
    transfer(from, to, |sent| sent < bytes)
}

fn transfer(
    from: (&Namespace, IpAddr),
    to: (&Namespace, IpAddr),
    more: impl Fn(u64) -> bool,
) -> Result<TcpReport> {
    const PATIENCE: Duration = Duration::from_secs(10);
    let listener = to.0.enter(|| TcpListener::bind((to.1, 0))).context("listening")?;
    let address = listener.local_addr()?;
    std::thread::scope(|scope| {
        let receiver = scope.spawn(move || {
            let (stream, _) = listener.accept()?;
            stream.set_read_timeout(Some(PATIENCE))?;
            receive(stream)
        });
        let stream = from.0.enter(|| TcpStream::connect_timeout(&address, PATIENCE));
        let sent = match stream.context("connecting") {
            Ok(stream) => {
                stream.set_write_timeout(Some(PATIENCE)).map_err(Into::into).and_then(|()| send(stream, more))
            }
            Err(e) => {
                // The receiver waits in accept: this releases it.
                drop(to.0.enter(|| TcpStream::connect_timeout(&address, PATIENCE)));
                Err(e)
            }
        };
        let report = receiver.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let sent = sent?;
        let report = report.context("receiving")?;
        anyhow::ensure!(report.bytes == sent, "{sent} octets sent, {} received", report.bytes);
        Ok(report)
    })
}

/// A prime length: every segment boundary falls on another place of the pattern.
const PATTERN_BYTES: usize = 65_521;

fn pattern() -> Vec<u8> {
    (0..PATTERN_BYTES).map(|i| ((i * 31) >> 3) as u8).collect()
}

fn send(mut stream: TcpStream, more: impl Fn(u64) -> bool) -> Result<u64> {
    let pattern = pattern();
    let mut sent = 0;
    while more(sent) {
        stream.write_all(&pattern).context("sending")?;
        sent += pattern.len() as u64;
    }
    Ok(sent)
}

fn receive(mut stream: TcpStream) -> Result<TcpReport> {
    let pattern = pattern();
    // The pattern twice: what is expected at any position is one slice.
    let expected = [pattern.as_slice(), pattern.as_slice()].concat();
    let mut buffer = vec![0; PATTERN_BYTES];
    let mut bytes = 0u64;
    let mut start = None;
    loop {
        let length = match stream.read(&mut buffer) {
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            length => length?,
        };
        let start = *start.get_or_insert_with(Instant::now);
        if length == 0 {
            return Ok(TcpReport { bytes, duration: start.elapsed() });
        }
        let position = (bytes % PATTERN_BYTES as u64) as usize;
        anyhow::ensure!(
            buffer[..length] == expected[position..position + length],
            "octets differ from what was sent, after {bytes}"
        );
        bytes += length as u64;
    }
}
