//! Binding the ports of IKE, with errors that say who holds them.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;

use portcullis_data_plane::sockets::{allow_in_clear, constant_flow_label};
use socket2::{Domain, Protocol, Socket, Type};

use super::holder::{Transport, holder};
use crate::config::IkeConfig;

/// Connections that wait for accept(2).
const BACKLOG: i32 = 1024;

/// Every bound socket.
#[derive(Debug)]
pub struct Listeners {
    /// UDP 500.
    pub udp_500: Vec<UdpSocket>,
    /// UDP 4500: the data plane reads it.
    pub udp_4500: Vec<UdpSocket>,
    /// TCP 4500.
    pub tcp: Vec<TcpListener>,
}

/// A port that could not be bound.
#[derive(Debug)]
pub struct BindError {
    transport: Transport,
    address: SocketAddr,
    source: io::Error,
}

/// Binds everything that IKE listens on. An address family that this host lacks is left out if it is the
/// wildcard of the default configuration.
///
/// # Errors
/// The first port that is taken or forbidden.
pub fn bind(config: &IkeConfig) -> Result<Listeners, BindError> {
    let mut listeners = Listeners { udp_500: Vec::new(), udp_4500: Vec::new(), tcp: Vec::new() };
    for &address in config.listen.iter().filter(|address| is_there(**address)) {
        let port_500 = SocketAddr::new(address, config.port);
        let port_4500 = SocketAddr::new(address, config.endpoint.nat_port);
        listeners.udp_500.push(udp(port_500).map_err(error(Transport::Udp, port_500))?);
        listeners.udp_4500.push(udp(port_4500).map_err(error(Transport::Udp, port_4500))?);
        if config.tcp {
            listeners.tcp.push(tcp(port_4500).map_err(error(Transport::Tcp, port_4500))?);
        }
    }
    Ok(listeners)
}

fn is_there(address: IpAddr) -> bool {
    let lacks_ipv6 = || Socket::new(Domain::IPV6, Type::DGRAM, None).is_err();
    !(address.is_ipv6() && address.is_unspecified() && lacks_ipv6())
}

fn error(transport: Transport, address: SocketAddr) -> impl FnOnce(io::Error) -> BindError {
    move |source| BindError { transport, address, source }
}

fn udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A restart finds connections of its predecessor in TIME_WAIT.
    socket.set_reuse_address(true)?;
    stream_options(&socket, address.is_ipv6())?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// What a stream has from its first packet on; accepted ones inherit it.
///
/// # Errors
/// What the kernel refuses, such as missing privilege.
pub(super) fn stream_options(socket: &impl AsFd, is_ipv6: bool) -> io::Result<()> {
    if is_ipv6 {
        constant_flow_label(socket.as_fd())?;
    }
    past_guard(socket, is_ipv6)
}

/// IKE passes the guard; a kernel without XFRM has no guard of that kind.
///
/// # Errors
/// What the kernel refuses, such as missing privilege.
pub(super) fn past_guard(socket: &impl AsFd, is_ipv6: bool) -> io::Result<()> {
    match allow_in_clear(socket.as_fd(), is_ipv6) {
        Err(error) if error.raw_os_error() != Some(nix::libc::ENOPROTOOPT) => Err(error),
        _ => Ok(()),
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { transport, address, source } = self;
        match source.kind() {
            io::ErrorKind::AddrInUse => {
                write!(f, "{transport} {} on {} is in use", address.port(), address.ip())?;
                match holder(*transport, address.port()) {
                    Some(holder) => write!(f, " by {holder}: stop it, or set ike.listen to other addresses"),
                    None => f.write_str(" by another process: stop it, or set ike.listen to other addresses"),
                }
            }
            io::ErrorKind::PermissionDenied => write!(
                f,
                "{transport} {}: no privilege to bind it or to let it past the guard: run as root or with CAP_NET_BIND_SERVICE and CAP_NET_ADMIN",
                address.port()
            ),
            io::ErrorKind::AddrNotAvailable => {
                write!(
                    f,
                    "{} is no address of this host: correct ike.listen, or add the address",
                    address.ip()
                )
            }
            _ => write!(f, "{transport} {address}: {source}"),
        }
    }
}

impl std::error::Error for BindError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn a_taken_port_names_the_process_that_holds_it() {
        let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = taken.local_addr().unwrap();
        let error = udp(address).map_err(error(Transport::Udp, address)).unwrap_err().to_string();
        assert!(error.starts_with(&format!("UDP {} on 127.0.0.1 is in use by ", address.port())), "{error}");
        assert!(error.contains(&format!("process {} ", std::process::id())), "{error}");
    }

    #[test]
    fn a_foreign_address_is_told_from_a_taken_port() {
        let address = SocketAddr::from(([192, 0, 2, 77], 0));
        let error = udp(address).map_err(error(Transport::Udp, address)).unwrap_err().to_string();
        assert!(error.contains("192.0.2.77 is no address of this host"), "{error}");
    }
}
