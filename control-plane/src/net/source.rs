//! Our address on the way to a peer.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use super::bind::past_guard;

/// The address that packets to `peer` leave from, if there is a route. Nothing is sent.
///
/// # Errors
/// What keeps the kernel from telling.
pub fn source_towards(peer: IpAddr) -> io::Result<Option<IpAddr>> {
    use io::ErrorKind::{AddrNotAvailable, HostUnreachable, NetworkDown, NetworkUnreachable};
    match route(peer) {
        Ok(source) => Ok(Some(source).filter(|source| !source.is_unspecified())),
        Err(error)
            if matches!(
                error.kind(),
                AddrNotAvailable | HostUnreachable | NetworkDown | NetworkUnreachable
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn route(peer: IpAddr) -> io::Result<IpAddr> {
    const ANY_PORT: u16 = 4500;
    let unspecified =
        if peer.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(unspecified, 0))?;
    past_guard(&socket, peer.is_ipv6())?;
    socket.connect(SocketAddr::new(peer, ANY_PORT))?;
    socket.local_addr().map(|address| address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_follows_the_route() {
        let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
        // Setting a socket policy needs CAP_NET_ADMIN.
        if past_guard(&UdpSocket::bind((loopback, 0)).unwrap(), false).is_ok() {
            assert_eq!(source_towards(loopback).unwrap(), Some(loopback));
        }
    }
}
