//! The kernel's own way for packets: TUN devices and sockets, shared by the workers for sending.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;

use crate::sockets::{IpSender, RawEsp, Udp4500};
use crate::tun::{Tun, TunOffloads};

/// The worker that reads the sockets.
pub const SOCKET_READER: u8 = 0;

/// TUN devices and sockets.
pub struct KernelPath {
    /// TUN devices by number; a number is never used again.
    tuns: ArcSwap<Vec<Arc<TunPort>>>,
    /// Port 4500, IPv4 and IPv6.
    pub udp: Vec<Udp4500>,
    /// Protocol 50, IPv4 and IPv6.
    pub raw: Vec<RawEsp>,
    /// For packets that bring their outer header.
    pub ip_v4: Option<IpSender>,
    /// As `ip_v4`, for IPv6.
    pub ip_v6: Option<IpSender>,
}

/// A TUN device and whom it serves.
pub struct TunPort {
    /// The device.
    pub tun: Tun,
    /// The name of a route-based connection's device; `None`: it serves all others.
    pub route_based: Option<Arc<str>>,
    /// The device was removed: its descriptor says so for ever, and must not be waited for.
    is_gone: AtomicBool,
}

impl TunPort {
    /// A device and whom it serves.
    pub fn new(tun: Tun, route_based: Option<Arc<str>>) -> Self {
        Self { tun, route_based, is_gone: AtomicBool::new(false) }
    }

    /// Nothing comes from it any more.
    pub fn give_up(&self) {
        self.is_gone.store(true, Ordering::Relaxed);
    }
}

impl KernelPath {
    /// The devices and sockets that workers share; the first TUN device serves all policy-based connections.
    pub fn new(
        tuns: Vec<Arc<TunPort>>,
        udp: Vec<Udp4500>,
        raw: Vec<RawEsp>,
        ip_v4: Option<IpSender>,
        ip_v6: Option<IpSender>,
    ) -> Self {
        Self { tuns: ArcSwap::from_pointee(tuns), udp, raw, ip_v4, ip_v6 }
    }

    /// The TUN devices now.
    pub fn tuns(&self) -> arc_swap::Guard<Arc<Vec<Arc<TunPort>>>> {
        self.tuns.load()
    }

    /// Adds a route-based connection's device and returns its number.
    pub fn add_tun(&self, tun: Tun, name: Arc<str>) -> usize {
        let port = Arc::new(TunPort::new(tun, Some(name)));
        let before = self.tuns.rcu(|tuns| {
            let mut tuns = Vec::clone(tuns);
            tuns.push(port.clone());
            tuns
        });
        before.len()
    }

    /// Puts another device in the place of one that was removed.
    pub fn replace_tun(&self, number: usize, tun: Tun) {
        let before = self.tuns.load_full();
        let Some(old) = before.get(number) else { return };
        let port = Arc::new(TunPort::new(tun, old.route_based.clone()));
        self.tuns.rcu(|tuns| {
            let mut tuns = Vec::clone(tuns);
            if let Some(place) = tuns.get_mut(number) {
                *place = port.clone();
            }
            tuns
        });
    }

    /// The number of a route-based connection's device.
    pub fn tun_named(&self, name: &str) -> Option<usize> {
        self.tuns.load().iter().position(|t| t.route_based.as_deref() == Some(name))
    }

    /// Gives an IP packet to the kernel through a TUN device.
    pub fn write_tun(&self, tun: usize, queue: usize, packet: &[u8]) -> io::Result<()> {
        self.tuns.load().get(tun).ok_or(io::ErrorKind::NotFound)?.tun.write(queue, packet)
    }

    /// Gives packets of a flow to the kernel as one: an [`crate::packet::offload::Offload`], their headers, their data.
    pub fn write_tun_parts(&self, tun: usize, queue: usize, parts: &[IoSlice<'_>]) -> io::Result<()> {
        self.tuns.load().get(tun).ok_or(io::ErrorKind::NotFound)?.tun.write_parts(queue, parts)
    }

    /// True if the kernel takes packets of a TCP flow as one.
    pub fn takes_joined(&self, tun: usize) -> bool {
        self.tuns.load().get(tun).is_some_and(|port| port.tun.offloads() >= TunOffloads::Tcp)
    }

    /// The socket that cuts what is sent from this address of ours, if the kernel can.
    pub fn segmenting(&self, local: SocketAddr) -> Option<&Udp4500> {
        self.udp.iter().find(|socket| socket.segments_from(local))
    }

    /// Sends an IP packet with the outer header that it brings.
    pub fn send_ip(&self, packet: &[u8], destination: IpAddr) -> io::Result<()> {
        let sender = if destination.is_ipv4() { &self.ip_v4 } else { &self.ip_v6 };
        sender.as_ref().ok_or(io::ErrorKind::NotFound)?.send(packet, destination)
    }

    /// How many sockets this worker reads: UDP 4500, then protocol 50.
    pub fn sockets(&self, worker: u8) -> usize {
        if worker == SOCKET_READER { self.udp.len() + self.raw.len() } else { 0 }
    }

    /// Everything that a worker waits for: its queue of each device; sockets, if it is the one that reads them.
    pub fn fds(&self, worker: u8) -> Vec<RawFd> {
        let tuns = self.tuns.load();
        let there = tuns.iter().filter(|t| !t.is_gone.load(Ordering::Relaxed));
        let queues = there.filter_map(|t| t.tun.queue(usize::from(worker)));
        let mut fds: Vec<_> = queues.map(|queue| queue.as_raw_fd()).collect();
        if worker == SOCKET_READER {
            fds.extend(self.udp.iter().map(|s| s.as_fd().as_raw_fd()));
            fds.extend(self.raw.iter().map(|s| s.as_fd().as_raw_fd()));
        }
        fds
    }
}
