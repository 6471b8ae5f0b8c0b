//! Who holds the XDP hook of an interface, asked by `rtnetlink`.

use std::io;

use aya::programs::loaded_programs;

use super::BpfError;
use crate::netlink::raw::NetlinkSocket;

/// How a program is attached.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AttachMode {
    /// In the driver, before the kernel builds a packet.
    Native,
    /// In the kernel's network stack: slower, works with every driver.
    Generic,
}

impl AttachMode {
    /// The name in status and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// An interface as XDP sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Hook {
    /// Its index.
    pub index: u32,
    /// The program on it and how it is attached.
    pub program: Option<(u32, AttachMode)>,
}

/// Asks the kernel about an interface by its name.
pub(super) fn query(interface: &std::sync::Arc<str>) -> Result<Hook, BpfError> {
    let found = dump(interface).map_err(|source| BpfError::Query { interface: interface.clone(), source })?;
    found.ok_or_else(|| BpfError::NoInterface { interface: interface.clone() })
}

/// The name of a loaded program; empty if it is gone or has none.
pub(super) fn program_name(id: u32) -> String {
    loaded_programs()
        .filter_map(Result::ok)
        .find(|program| program.id() == id)
        .and_then(|program| program.name_as_str().map(str::to_owned))
        .unwrap_or_default()
}

fn dump(interface: &str) -> io::Result<Option<Hook>> {
    const HEADER_LEN: usize = size_of::<IfInfo>();
    loop {
        let mut found = None;
        let outcome =
            NetlinkSocket::open(libc::NETLINK_ROUTE)?.dump(libc::RTM_GETLINK, &[0; HEADER_LEN], |_, body| {
                if let Some((header, attributes)) = body.split_at_checked(HEADER_LEN)
                    && name_is(attributes, interface)
                {
                    found = Some(Hook { index: index_in(header), program: program_in(attributes) });
                }
            });
        match outcome {
            // The list changed under the dump.
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            Err(error) => return Err(error),
            Ok(()) => return Ok(found),
        }
    }
}

/// `struct ifinfomsg`: family, padding, type, index, flags, change.
type IfInfo = [u8; 16];

fn index_in(header: &[u8]) -> u32 {
    header.get(4..).and_then(<[u8]>::first_chunk).copied().map_or(0, u32::from_ne_bytes)
}

fn name_is(attributes: &[u8], interface: &str) -> bool {
    find(attributes, libc::IFLA_IFNAME)
        .and_then(<[u8]>::split_last)
        .is_some_and(|(_, n)| n == interface.as_bytes())
}

fn program_in(attributes: &[u8]) -> Option<(u32, AttachMode)> {
    // linux/if_link.h.
    const IFLA_XDP: u16 = 43;
    const IFLA_XDP_ATTACHED: u16 = 2;
    const IFLA_XDP_PROG_ID: u16 = 4;
    const IFLA_XDP_DRV_PROG_ID: u16 = 5;
    const IFLA_XDP_SKB_PROG_ID: u16 = 6;
    const IFLA_XDP_HW_PROG_ID: u16 = 7;
    const XDP_ATTACHED_SKB: u8 = 2;
    let xdp = find(attributes, IFLA_XDP)?;
    let mode = match find(xdp, IFLA_XDP_ATTACHED)?.first()? {
        &XDP_ATTACHED_SKB => AttachMode::Generic,
        _ => AttachMode::Native,
    };
    [IFLA_XDP_PROG_ID, IFLA_XDP_DRV_PROG_ID, IFLA_XDP_SKB_PROG_ID, IFLA_XDP_HW_PROG_ID]
        .iter()
        .find_map(|kind| find(xdp, *kind)?.first_chunk().copied())
        .map(|id| (u32::from_ne_bytes(id), mode))
}

/// The value of the first attribute of a kind (`struct rtattr`).
fn find(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    const NESTED: u16 = 1 << 15;
    loop {
        let [a, b, c, d] = *attributes.first_chunk()?;
        let len = usize::from(u16::from_ne_bytes([a, b]));
        let value = attributes.get(4..len)?;
        if u16::from_ne_bytes([c, d]) & !NESTED == kind {
            return Some(value);
        }
        attributes = attributes.get(len.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_has_a_free_hook() {
        let hook = query(&"lo".into()).unwrap();
        assert_eq!((hook.index, hook.program), (1, None));
        let missing = query(&"no-such-if".into()).unwrap_err().to_string();
        assert!(missing.contains("no-such-if"), "{missing}");
    }

    #[test]
    fn attributes_are_found_behind_padded_ones() {
        let bytes = [[5, 0, 3, 0, b'x', 0, 0, 0], [8, 0, 4, 0, 7, 0, 0, 0]].concat();
        assert_eq!(find(&bytes, 3), Some(&b"x"[..]));
        assert_eq!(find(&bytes, 4), Some(&[7, 0, 0, 0][..]));
        assert_eq!(find(&bytes, 5), None);
        assert_eq!(find(&[3, 0, 9, 0], 9), None);
    }
}
