//! One way to packet bytes: the XDP programs and user space run the same parser over it.

/// Bytes of a frame or packet, read with a bounds check.
pub trait Bytes {
    /// The `N` octets at `offset`, or `None` if the frame ends before.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// True if the frame has at least `len` octets.
    fn holds(&self, len: usize) -> bool;
}

impl Bytes for [u8] {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk().copied()
    }

    fn holds(&self, len: usize) -> bool {
        self.len() >= len
    }
}

/// A header that is cut short or contradicts itself: which one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Malformed {
    /// The frame ends inside the Ethernet header or a VLAN tag.
    Ethernet,
    /// IPv4: cut short, wrong version, header or total length impossible (RFC 791 section 3.1).
    Ipv4,
    /// IPv6: cut short, wrong version, payload length impossible (RFC 8200 section 3).
    Ipv6,
    /// An IPv6 extension header reaches past the end of the packet (RFC 8200 section 4).
    ExtensionHeader,
    /// UDP to port 4500: length impossible, or nothing that RFC 3948 section 2 knows in it.
    Udp,
    /// ESP without room for SPI and sequence number (RFC 4303 section 2).
    Esp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_read_reaches_past_the_end() {
        let bytes: &[u8] = &[1, 2, 3];
        assert_eq!(bytes.read::<2>(1), Some([2, 3]));
        assert_eq!(bytes.read::<2>(2), None);
        assert_eq!(bytes.read::<1>(usize::MAX), None);
        assert!(bytes.holds(3) && !bytes.holds(4));
    }
}
