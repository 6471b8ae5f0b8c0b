//! What a path takes beyond the first hop, as far as ESP echo has shown (transport policy rule 3).

use std::sync::atomic::{AtomicU16, Ordering};

use crate::packet::IpVersion;

/// Sizes to try one after the other, in bytes of IP: the plateaus of RFC 1191 section 7.1, and those that tunnels and access
/// networks have made common since.
const PLATEAUS: [u16; 14] =
    [32_000, 17_914, 9000, 8166, 4352, 2002, 1492, 1472, 1450, 1420, 1400, 1280, 1006, 576];

/// The largest packet that a path takes. It is learned by the silence that echoes of full length meet where small ones are
/// answered, not from ICMP, which anybody can send; it holds until the path takes another way.
#[derive(Debug, Default)]
pub struct PathMtu {
    /// 0 is no limit.
    limit: AtomicU16,
}

impl PathMtu {
    /// The MTU of the path where its first hop takes `mtu` bytes of IP.
    pub fn of(&self, mtu: usize) -> usize {
        match self.limit.load(Ordering::Relaxed) {
            0 => mtu,
            limit => mtu.min(limit.into()),
        }
    }

    /// Packets of `current` bytes of IP do not arrive: the next smaller size from now on, if there is one that the IP version
    /// allows (RFC 791, RFC 8200 section 5).
    pub fn lower(&self, current: usize, version: IpVersion) -> Option<u16> {
        let least = match version {
            IpVersion::V4 => 576,
            IpVersion::V6 => 1280,
        };
        let next = PLATEAUS.into_iter().find(|size| usize::from(*size) < current && *size >= least)?;
        self.limit.store(next, Ordering::Relaxed);
        Some(next)
    }

    /// The path takes another way, of which nothing is known.
    pub fn reset(&self) {
        self.limit.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_takes_the_next_smaller_size_down_to_what_ip_promises() {
        let path = PathMtu::default();
        assert_eq!(path.of(1500), 1500);
        let mut sizes = Vec::new();
        while let Some(size) = path.lower(path.of(1500), IpVersion::V4) {
            sizes.push(size);
            assert_eq!(path.of(1500), usize::from(size));
        }
        assert_eq!(sizes, [1492, 1472, 1450, 1420, 1400, 1280, 1006, 576]);
        assert_eq!(path.of(500), 500, "the first hop may take less");
        path.reset();
        assert_eq!(path.of(1500), 1500);
    }

    #[test]
    fn ipv6_paths_take_1280_always() {
        let path = PathMtu::default();
        assert_eq!(path.lower(1281, IpVersion::V6), Some(1280));
        assert_eq!(path.lower(1280, IpVersion::V6), None);
        assert_eq!(path.of(1500), 1280);
    }
}
