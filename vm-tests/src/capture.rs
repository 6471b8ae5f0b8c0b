//! What crosses a namespace, packet for packet: an AF_PACKET socket that counts by kind and can write what it
//! sees for tshark.
//!
//! Every packet is counted once, where it arrives, so before any translation on this node.

mod classify;
mod ike_stream;
mod pcap;

use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recvmsg,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use crate::netns::Namespace;
use crate::wait::Event;
use classify::{Kind, Prefixes, classify};
use ike_stream::IkeStreams;
use pcap::PcapWriter;

/// Packets by kind. Addresses decide first: a packet to or from an inner address is clear text whatever it
/// carries.
#[derive(Clone, Default, Debug)]
pub struct Counts {
    /// IP protocol 50.
    pub esp_ip: u64,
    /// UDP 4500 without a non-ESP marker (RFC 3948 section 2.1).
    pub esp_udp: u64,
    /// Frames without a non-ESP marker on TCP 4500 streams (RFC 9329 section 3).
    pub esp_tcp: u64,
    /// UDP 4500 with a non-ESP marker.
    pub ike_udp_4500: Kinded,
    /// UDP 500.
    pub ike_udp_500: Kinded,
    /// Frames with a non-ESP marker on TCP 4500 streams; octets are those of the messages.
    pub ike_tcp: Kinded,
    /// TCP streams on port 4500, each direction one.
    pub tcp_streams: u64,
    /// Octets on TCP 4500 that could not be read as frames: nobody knows what they were.
    pub tcp_unreadable: u64,
    /// NAT keepalives (RFC 3948 section 2.3).
    pub nat_keepalives: u64,
    /// Inner packets in clear.
    pub inner_clear: u64,
    /// The first few of them, described.
    pub inner_clear_samples: Vec<String>,
    /// Everything else: ARP, neighbour discovery, ICMP errors.
    pub other: u64,
    /// Packets the kernel could not hand to the capture. Anything but 0 makes the counts worthless.
    pub missed: u64,
}

/// Packets and their octets.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Kinded {
    /// Packets, or messages.
    pub packets: u64,
    /// Octets of IP, or of messages.
    pub bytes: u64,
}

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    stop: Arc<AtomicBool>,
    counts: Arc<Event<Counts>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Counts {
    /// ESP packets on direct carriers.
    pub fn esp_direct(&self) -> u64 {
        self.esp_ip + self.esp_udp
    }
}

impl Capture {
    /// Starts to count what arrives on any interface of `namespace`; packets of `inner` prefixes are clear
    /// text.
    ///
    /// # Errors
    /// Without the right to open a packet socket.
    pub fn start(namespace: &Namespace, inner: Vec<(IpAddr, u8)>) -> Result<Self> {
        Self::with_writer(namespace, inner, None)
    }

    /// Like [`Capture::start`], and writes every packet to a pcap file.
    ///
    /// # Errors
    /// Also if the file cannot be made.
    pub fn start_with_file(namespace: &Namespace, inner: Vec<(IpAddr, u8)>, file: &Path) -> Result<Self> {
        Self::with_writer(namespace, inner, Some(PcapWriter::create(file)?))
    }

    fn with_writer(
        namespace: &Namespace,
        inner: Vec<(IpAddr, u8)>,
        writer: Option<PcapWriter>,
    ) -> Result<Self> {
        let socket = namespace.enter(open_socket)?;
        let stop = Arc::new(AtomicBool::new(false));
        let counts = Arc::new(Event::new(Counts::default()));
        let thread = std::thread::spawn({
            let (stop, counts) = (stop.clone(), counts.clone());
            move || {
                Reader { socket, inner: Prefixes(inner), streams: IkeStreams::default(), writer }
                    .run(&stop, &counts)
            }
        });
        Ok(Self { stop, counts, thread: Some(thread) })
    }

    /// Counts so far.
    pub fn counts(&self) -> Counts {
        self.counts.read(Clone::clone)
    }

    /// Waits until `reached` holds, at most `limit`; `None` when the limit passed.
    pub fn wait(&self, limit: Duration, reached: impl Fn(&Counts) -> bool) -> Option<Counts> {
        self.counts.wait(limit, |counts| reached(counts).then(|| counts.clone()))
    }

    /// Counts what has arrived until now and ends.
    ///
    /// # Errors
    /// If packets were missed, or the file could not be written.
    pub fn finish(mut self) -> Result<Counts> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("a capture ends once")?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let counts = self.counts();
        anyhow::ensure!(counts.missed == 0, "the capture missed {} packets", counts.missed);
        Ok(counts)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Reader {
    socket: OwnedFd,
    inner: Prefixes,
    streams: IkeStreams,
    writer: Option<PcapWriter>,
}

impl Reader {
    fn run(mut self, stop: &AtomicBool, counts: &Event<Counts>) -> Result<()> {
        /// A packet that arrives at its own host and leaves again is seen twice; the second time it is this.
        const PACKET_OUTGOING: u8 = 4;
        // Segmentation offload on a veth makes TCP packets of up to 64 KiB.
        let mut frame = vec![0; 65_536 + 18];
        let mut control = nix::cmsg_space!(u32);
        loop {
            // Read before the socket is: what came before the request to stop is still counted.
            let last_round = stop.load(Ordering::Relaxed);
            let (length, outgoing, missed) = {
                let mut slices = [std::io::IoSliceMut::new(&mut frame)];
                let flags = if last_round { MsgFlags::MSG_DONTWAIT } else { MsgFlags::empty() };
                match recvmsg::<LinkAddr>(self.socket.as_raw_fd(), &mut slices, Some(&mut control), flags) {
                    Ok(message) => {
                        let outgoing = message.address.is_some_and(|a| a.pkttype() == PACKET_OUTGOING);
                        let missed = message.cmsgs()?.find_map(|c| match c {
                            ControlMessageOwned::RxqOvfl(missed) => Some(missed),
                            _ => None,
                        });
                        (message.bytes, outgoing, missed)
                    }
                    Err(Errno::EAGAIN) if last_round => {
                        return self.writer.map_or(Ok(()), PcapWriter::finish);
                    }
                    Err(Errno::EAGAIN | Errno::EINTR) => continue,
                    Err(e) => return Err(e).context("capturing"),
                }
            };
            if let Some(missed) = missed {
                counts.update(|c| c.missed = missed.into());
            }
            if outgoing {
                continue;
            }
            let frame = &frame[..length];
            if let Some(writer) = &mut self.writer {
                writer.write(frame)?;
            }
            let kind = classify(frame, &self.inner);
            counts.update(|counts| self.count(kind, frame, counts));
        }
    }

    fn count(&mut self, kind: Kind<'_>, frame: &[u8], counts: &mut Counts) {
        const SAMPLES: usize = 5;
        match kind {
            Kind::EspIp => counts.esp_ip += 1,
            Kind::EspUdp => counts.esp_udp += 1,
            Kind::IkeUdp4500 => counts.ike_udp_4500.add(frame.len()),
            Kind::IkeUdp500 => counts.ike_udp_500.add(frame.len()),
            Kind::NatKeepalive => counts.nat_keepalives += 1,
            Kind::Tcp4500(segment) => self.streams.segment(&segment, counts),
            Kind::InnerClear(description) => {
                counts.inner_clear += 1;
                if counts.inner_clear_samples.len() < SAMPLES {
                    counts.inner_clear_samples.push(description);
                }
            }
            Kind::Other => counts.other += 1,
        }
    }
}

impl Kinded {
    fn add(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }
}

fn open_socket() -> Result<OwnedFd> {
    const LOOK_AT_STOP: TimeVal = TimeVal::new(0, 20_000);
    /// Several seconds of traffic while the thread does not run.
    const BUFFER_BYTES: usize = 512 << 20;
    let socket =
        socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, Some(SockProtocol::EthAll))
            .context("opening a packet socket")?;
    setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES)?;
    setsockopt(&socket, sockopt::RxqOvfl, &1)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &LOOK_AT_STOP)?;
    Ok(socket)
}
