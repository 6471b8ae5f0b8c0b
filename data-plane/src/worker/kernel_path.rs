//! The kernel's own way for packets: TUN devices and sockets, shared by the workers for sending.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;

use crate::sockets::{IpSender, RawEsp, Udp4500};
use crate::tun::Tun;

/// TUN devices and sockets.
pub struct KernelPath {
    /// The first serves all policy-based connections, each other one a route-based connection.
    pub tuns: Vec<Tun>,
    /// Port 4500, IPv4 and IPv6.
    pub udp: Vec<Udp4500>,
    /// Protocol 50, IPv4 and IPv6.
    pub raw: Vec<RawEsp>,
    /// For packets that bring their outer header.
    pub ip_v4: Option<IpSender>,
    /// As `ip_v4`, for IPv6.
    pub ip_v6: Option<IpSender>,
    /// Interface names of the route-based TUN devices, by number; the first has none.
    pub route_based: Vec<Option<Arc<str>>>,
}

impl KernelPath {
    /// The interface of a route-based connection; `None` for the TUN device of all others.
    pub fn route_based(&self, tun: usize) -> Option<&str> {
        self.route_based.get(tun)?.as_deref()
    }

    /// Gives an IP packet to the kernel through a TUN device.
    pub fn write_tun(&self, tun: usize, packet: &[u8]) -> io::Result<()> {
        let tun = self.tuns.get(tun).ok_or(io::ErrorKind::NotFound)?;
        tun.write(packet)
    }

    /// Sends an IP packet with the outer header that it brings.
    pub fn send_ip(&self, packet: &[u8], destination: IpAddr) -> io::Result<()> {
        let sender = if destination.is_ipv4() { &self.ip_v4 } else { &self.ip_v6 };
        sender.as_ref().ok_or(io::ErrorKind::NotFound)?.send(packet, destination)
    }

    /// Everything to wait for.
    pub fn fds(&self) -> impl Iterator<Item = RawFd> {
        let tuns = self.tuns.iter().map(|t| t.as_fd().as_raw_fd());
        let udp = self.udp.iter().map(|s| s.as_fd().as_raw_fd());
        tuns.chain(udp).chain(self.raw.iter().map(|s| s.as_fd().as_raw_fd()))
    }
}
