//! What the kernel dropped on its way out of an interface.

use std::io;

use super::raw::NetlinkSocket;

const GET_STATS: u16 = 94;
/// Length of `struct if_stats_msg`.
const HEADER_LEN: usize = 12;
/// `IFLA_STATS_LINK_64`: the attribute, and its bit in the filter.
const LINK_64: u16 = 1;
/// Where `struct rtnl_link_stats64` has `tx_dropped`.
const TX_DROPPED_OFFSET: usize = 7 * 8;

/// Asks the kernel for the statistics of single interfaces.
#[derive(Debug)]
pub struct LinkDrops {
    socket: NetlinkSocket,
}

impl LinkDrops {
    /// In the network namespace of the calling thread.
    ///
    /// # Errors
    /// When the kernel refuses the socket.
    pub fn open() -> io::Result<Self> {
        Ok(Self { socket: NetlinkSocket::open(libc::NETLINK_ROUTE)? })
    }

    /// Packets that were to leave by the interface and were dropped. Of a TUN device: those that found its queue
    /// full.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn outbound(&mut self, ifindex: u32) -> io::Result<u64> {
        let mut request = [0; HEADER_LEN];
        request[4..8].copy_from_slice(&ifindex.to_ne_bytes());
        request[8..].copy_from_slice(&(1_u32 << (LINK_64 - 1)).to_ne_bytes());
        self.socket.ask(GET_STATS, &request, tx_dropped)
    }
}

fn tx_dropped(body: &[u8]) -> Option<u64> {
    let mut attributes = body.get(HEADER_LEN..)?;
    loop {
        let (&[len_0, len_1, kind_0, kind_1], _) = attributes.split_first_chunk::<4>()?;
        let len = usize::from(u16::from_ne_bytes([len_0, len_1]));
        let value = attributes.get(4..len)?;
        if u16::from_ne_bytes([kind_0, kind_1]) == LINK_64 {
            let dropped = value.get(TX_DROPPED_OFFSET..)?.first_chunk()?;
            return Some(u64::from_ne_bytes(*dropped));
        }
        attributes = attributes.get(len.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_found_behind_other_attributes() {
        let mut body = vec![0; HEADER_LEN];
        let mut attribute = |kind: u16, value: &[u8]| {
            body.extend_from_slice(&((4 + value.len()) as u16).to_ne_bytes());
            body.extend_from_slice(&kind.to_ne_bytes());
            body.extend_from_slice(value);
            body.resize(body.len().next_multiple_of(4), 0);
        };
        attribute(7, b"odd");
        let stats: Vec<u8> = (0..25_u64).flat_map(u64::to_ne_bytes).collect();
        attribute(LINK_64, &stats);
        assert_eq!(tx_dropped(&body), Some(7));
        assert_eq!(tx_dropped(&body[..body.len() - 150]), None);
    }

    #[test]
    fn the_kernel_answers_for_an_interface_and_refuses_what_is_none() {
        let mut drops = LinkDrops::open().unwrap();
        // SAFETY: a NUL-terminated string that outlives the call.
        let loopback = unsafe { libc::if_nametoindex(c"lo".as_ptr()) };
        drops.outbound(loopback).unwrap();
        assert_eq!(drops.outbound(0x7fff_fff0).unwrap_err().raw_os_error(), Some(libc::ENODEV));
    }
}
