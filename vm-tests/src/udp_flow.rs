//! A numbered UDP flow: what was sent, lost, doubled and out of order, packet for packet.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};

use crate::netns::Namespace;
use crate::wait::Event;

/// How fast and how large.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Packets per second; a sender that was held up catches up in bursts of at most [`Rate::BURST`].
    pub packets_per_second: u32,
    /// Octets of UDP payload, at least 16.
    pub payload_bytes: usize,
}

/// A flow that runs until [`UdpFlow::finish`].
#[derive(Debug)]
pub struct UdpFlow {
    stop: Arc<AtomicBool>,
    progress: Arc<Event<Progress>>,
    sender: Option<JoinHandle<Result<Sent>>>,
    receiver: Option<JoinHandle<Result<Received>>>,
}

/// What became of a flow.
#[derive(Clone, PartialEq, Debug)]
pub struct FlowReport {
    /// Packets given to the kernel.
    pub sent: u64,
    /// Packets the kernel refused to send, as a guard does; they have no number and are no loss.
    pub refused: u64,
    /// The kernel's words for the latest refusal.
    pub refusal: Option<String>,
    /// Different packets that arrived.
    pub received: u64,
    /// Sent and never arrived.
    pub lost: u64,
    /// Arrived again.
    pub duplicated: u64,
    /// Arrived after a packet with a higher number.
    pub reordered: u64,
    /// From the first packet to the last.
    pub duration: Duration,
}

/// Counts that change while the flow runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Packets sent so far.
    pub sent: u64,
    /// Packets received so far.
    pub received: u64,
    /// The number of the latest packet that arrived.
    pub latest: Option<u64>,
}

const MAGIC: u32 = 0x706f_7274;
const DATA: u32 = 0;
const END: u32 = 1;
/// magic, kind, number
const HEADER_BYTES: usize = 16;

impl Rate {
    /// The longest burst, in packets: well below every ring on the way.
    pub const BURST: u64 = 64;

    /// This many small packets (200 octets) per second.
    pub fn per_second(packets_per_second: u32) -> Self {
        Self { packets_per_second, payload_bytes: 200 }
    }
}

impl UdpFlow {
    /// Starts sending from `from` in its namespace to `to` in its own.
    ///
    /// # Errors
    /// If an address is not there.
    pub fn start(from: (&Namespace, IpAddr), to: (&Namespace, IpAddr), rate: Rate) -> Result<Self> {
        let receiver = bind(to.0, to.1)?;
        let sender = bind(from.0, from.1)?;
        // Room for a second of traffic while the receiving thread does not run.
        setsockopt(&receiver, RcvBufForce, &(256 << 20)).context("enlarging the receive buffer")?;
        sender.connect(receiver.local_addr()?)?;
        let stop = Arc::new(AtomicBool::new(false));
        let progress = Arc::new(Event::new(Progress::default()));
        let source = sender.local_addr()?;
        Ok(Self {
            receiver: Some(std::thread::spawn({
                let progress = progress.clone();
                move || receive(&receiver, source, &progress)
            })),
            sender: Some(std::thread::spawn({
                let (stop, progress) = (stop.clone(), progress.clone());
                move || send(&sender, rate, &stop, &progress)
            })),
            stop,
            progress,
        })
    }

    /// Counts so far.
    pub fn progress(&self) -> Progress {
        self.progress.read(|p| *p)
    }

    /// Waits until `reached` holds, at most `limit`; `None` when the limit passed.
    pub fn wait(&self, limit: Duration, reached: impl Fn(&Progress) -> bool) -> Option<Progress> {
        self.progress.wait(limit, |p| reached(p).then_some(*p))
    }

    /// Stops sending, waits until what is on the way has arrived, and reports.
    ///
    /// # Errors
    /// If the end marker did not arrive: the path is broken, and every figure would be a guess.
    pub fn finish(mut self) -> Result<FlowReport> {
        self.stop.store(true, Ordering::Relaxed);
        let sent = join(self.sender.take())?;
        let received = join(self.receiver.take())?;
        let distinct = received.seen.count;
        Ok(FlowReport {
            sent: sent.packets,
            refused: sent.refused,
            refusal: sent.refusal,
            received: distinct,
            lost: sent.packets.saturating_sub(distinct),
            duplicated: received.duplicated,
            reordered: received.reordered,
            duration: sent.duration,
        })
    }
}

impl FlowReport {
    /// Packets per second as sent.
    pub fn packets_per_second(&self) -> f64 {
        self.sent as f64 / self.duration.as_secs_f64()
    }

    /// True if every packet could be sent and arrived once and in order.
    pub fn is_perfect(&self) -> bool {
        (self.lost, self.duplicated, self.reordered, self.refused) == (0, 0, 0, 0) && self.sent > 0
    }
}

impl std::fmt::Display for FlowReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} packets at {:.0}/s: lost {}, doubled {}, reordered {}",
            self.sent,
            self.packets_per_second(),
            self.lost,
            self.duplicated,
            self.reordered
        )?;
        match &self.refusal {
            Some(refusal) => write!(f, ", refused to send {} ({refusal})", self.refused),
            None => Ok(()),
        }
    }
}

impl Drop for UdpFlow {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Sent {
    packets: u64,
    refused: u64,
    refusal: Option<String>,
    duration: Duration,
}

struct Received {
    seen: Numbers,
    duplicated: u64,
    reordered: u64,
}

/// Which numbers were seen, one bit each.
#[derive(Default)]
struct Numbers {
    bits: Vec<u64>,
    count: u64,
}

impl Numbers {
    /// False if the number was there already.
    fn insert(&mut self, number: u64) -> bool {
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if word >= self.bits.len() {
            self.bits.resize(word + 1024, 0);
        }
        let new = self.bits[word] & bit == 0;
        self.bits[word] |= bit;
        self.count += u64::from(new);
        new
    }
}

fn send(socket: &UdpSocket, rate: Rate, stop: &AtomicBool, progress: &Event<Progress>) -> Result<Sent> {
    const TICK: Duration = Duration::from_millis(1);
    let mut packet = vec![0; rate.payload_bytes.max(HEADER_BYTES)];
    let (mut packets, mut refused, mut refusal) = (0, 0, None);
    let start = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let due = (start.elapsed().as_secs_f64() * f64::from(rate.packets_per_second)) as u64 + 1;
        for _ in 0..due.saturating_sub(packets + refused).min(Rate::BURST) {
            write_header(&mut packet, DATA, packets);
            match socket.send(&packet) {
                Ok(_) => packets += 1,
                Err(error) => {
                    refused += 1;
                    refusal = Some(error);
                }
            }
        }
        progress.update(|p| p.sent = packets);
        std::thread::sleep(TICK);
    }
    let duration = start.elapsed();
    mark_end(socket, packets, &mut packet, progress)?;
    Ok(Sent { packets, refused, refusal: refusal.map(|error| error.to_string()), duration })
}

/// Repeats the end marker until everything has arrived, or the path had ample time to deliver the rest.
fn mark_end(socket: &UdpSocket, packets: u64, packet: &mut [u8], progress: &Event<Progress>) -> Result<()> {
    /// Markers at most; what has not overtaken 50 markers, a second, is lost.
    const MARKERS: u32 = 50;
    const BETWEEN: Duration = Duration::from_millis(20);
    for _ in 0..MARKERS {
        write_header(packet, END, packets);
        // A refusal is no news here: the receiver tells when no marker comes.
        let _ = socket.send(packet);
        if progress.wait(BETWEEN, |p| (p.received == packets).then_some(())).is_some() {
            // One more after the last packet, for a receiver that saw the earlier ones too soon.
            write_header(packet, END, packets);
            socket.send(packet)?;
            break;
        }
    }
    Ok(())
}

fn receive(socket: &UdpSocket, source: SocketAddr, progress: &Event<Progress>) -> Result<Received> {
    /// Without any packet for so long after an end marker, or at all, the flow is over.
    const QUIET: Duration = Duration::from_millis(500);
    const DEAD: Duration = Duration::from_secs(30);
    let mut received = Received { seen: Numbers::default(), duplicated: 0, reordered: 0 };
    let mut highest = None;
    let mut total = None;
    let mut buffer = [0; 65_536];
    socket.set_read_timeout(Some(QUIET))?;
    let mut last_arrival = Instant::now();
    while total != Some(received.seen.count) {
        let length = match socket.recv_from(&mut buffer) {
            Ok((length, from)) if from == source => length,
            Ok(_) => continue,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) if e.kind() == ErrorKind::WouldBlock => match total {
                Some(_) => break,
                None if last_arrival.elapsed() > DEAD => bail!("no packet and no end marker for {DEAD:?}"),
                None => continue,
            },
            Err(e) => return Err(e.into()),
        };
        last_arrival = Instant::now();
        let Some((kind, number)) = read_header(&buffer[..length]) else { continue };
        if kind == END {
            total = Some(number);
            continue;
        }
        if received.seen.insert(number) {
            received.reordered += u64::from(highest.is_some_and(|h| number < h));
            highest = highest.max(Some(number));
        } else {
            received.duplicated += 1;
        }
        progress.update(|p| {
            p.received = received.seen.count;
            p.latest = Some(number);
        });
    }
    Ok(received)
}

fn bind(namespace: &Namespace, address: IpAddr) -> Result<UdpSocket> {
    namespace
        .enter(|| UdpSocket::bind((address, 0)))
        .with_context(|| format!("binding {address} in {}", namespace.name()))
}

fn join<T>(thread: Option<JoinHandle<Result<T>>>) -> Result<T> {
    let thread = thread.context("a flow ends once")?;
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn write_header(packet: &mut [u8], kind: u32, number: u64) {
    packet[..4].copy_from_slice(&MAGIC.to_be_bytes());
    packet[4..8].copy_from_slice(&kind.to_be_bytes());
    packet[8..16].copy_from_slice(&number.to_be_bytes());
}

fn read_header(packet: &[u8]) -> Option<(u32, u64)> {
    let (magic, rest) = packet.split_first_chunk()?;
    let (kind, rest) = rest.split_first_chunk()?;
    let (number, _) = rest.split_first_chunk()?;
    (u32::from_be_bytes(*magic) == MAGIC).then(|| (u32::from_be_bytes(*kind), u64::from_be_bytes(*number)))
}
