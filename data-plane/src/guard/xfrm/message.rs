//! XFRM policy messages as `linux/xfrm.h` lays them out, in host byte order where that header says so.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::super::model::{Action, Direction, PolicySelector, PolicyValue};
use super::super::range::{PortMask, Prefix};
use crate::netlink::raw::MessageHeader;

/// Length of `struct xfrm_selector`.
const SELECTOR_LEN: usize = 56;
/// Length of `struct xfrm_userpolicy_info`.
const POLICY_LEN: usize = 168;
/// Length of `struct xfrm_userpolicy_id`.
const POLICY_ID_LEN: usize = 64;
/// Where `xfrm_userpolicy_info` holds the priority: behind selector and lifetimes.
const PRIORITY_OFFSET: usize = SELECTOR_LEN + 64 + 32;

/// Type of a message that asks for policies.
pub const GET_POLICY: u16 = 0x15;
/// Type of a message that carries a policy.
pub const NEW_POLICY: u16 = 0x13;
/// Type of a message that inserts or replaces a policy.
pub const UPDATE_POLICY: u16 = 0x19;
/// Type of a message that removes a policy.
pub const DELETE_POLICY: u16 = 0x14;
/// Type of the notification that a policy has expired.
pub const POLICY_EXPIRED: u16 = 0x1b;
/// Type of a message that removes every policy.
pub const FLUSH_POLICY: u16 = 0x1d;

/// Number of the multicast group for policy changes.
pub const POLICY_GROUP: u32 = 4;

/// A policy of the kernel, as far as the guard can have made it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KernelPolicy {
    /// The `user` field of the selector, where the guard writes its owner's tag.
    pub owner: u32,
    /// Which packets it covers.
    pub selector: PolicySelector,
    /// Action and rank.
    pub value: PolicyValue,
}

impl KernelPolicy {
    /// The body of a message that inserts or replaces this policy.
    pub fn encode(&self) -> [u8; POLICY_LEN] {
        let mut body = [0; POLICY_LEN];
        let (head, tail) = body.split_at_mut(PRIORITY_OFFSET);
        head[..SELECTOR_LEN].copy_from_slice(&encode_selector(&self.selector, self.owner));
        // Soft and hard limits of bytes and packets: none.
        head[SELECTOR_LEN..SELECTOR_LEN + 32].fill(0xff);
        tail[..4].copy_from_slice(&self.value.priority.to_ne_bytes());
        tail[8] = direction_code(self.selector.direction);
        tail[9] = match self.value.action {
            Action::Allow => 0,
            Action::Block => 1,
        };
        body
    }

    /// The body of a message that removes this policy: by its selector, or by the kernel's index of it.
    pub fn encode_id(&self, index: Option<u32>) -> [u8; POLICY_ID_LEN] {
        let mut body = [0; POLICY_ID_LEN];
        body[..SELECTOR_LEN].copy_from_slice(&encode_selector(&self.selector, self.owner));
        body[SELECTOR_LEN..SELECTOR_LEN + 4].copy_from_slice(&index.unwrap_or(0).to_ne_bytes());
        body[SELECTOR_LEN + 4] = direction_code(self.selector.direction);
        body
    }

    /// From a dump. `None` for what the guard never makes: socket policies, templates' directions, odd families.
    pub fn decode(header: &MessageHeader, body: &[u8]) -> Option<Self> {
        let body: &[u8; POLICY_LEN] = body.get(..POLICY_LEN)?.try_into().ok()?;
        let tail = &body[PRIORITY_OFFSET..];
        let direction = match tail[8] {
            0 => Direction::In,
            1 => Direction::Out,
            2 => Direction::Forward,
            _ => return None,
        };
        let action = if tail[9] == 0 { Action::Allow } else { Action::Block };
        let (selector, owner) = decode_selector(body[..SELECTOR_LEN].try_into().ok()?, direction)?;
        let value = PolicyValue { priority: u32::from_ne_bytes(tail[..4].try_into().ok()?), action };
        (header.kind == NEW_POLICY).then_some(Self { owner, selector, value })
    }
}

/// The kernel's index of a policy from a dump that [`KernelPolicy::decode`] takes.
pub fn index(body: &[u8]) -> Option<u32> {
    let index = body.get(PRIORITY_OFFSET + 4..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*index)).filter(|index| *index != 0)
}

fn encode_selector(selector: &PolicySelector, owner: u32) -> [u8; SELECTOR_LEN] {
    let mut out = [0; SELECTOR_LEN];
    out[..16].copy_from_slice(&encode_address(selector.destination.address));
    out[16..32].copy_from_slice(&encode_address(selector.source.address));
    out[32..36].copy_from_slice(&encode_ports(selector.destination_ports));
    out[36..40].copy_from_slice(&encode_ports(selector.source_ports));
    let family = match selector.destination.address {
        IpAddr::V4(_) => libc::AF_INET,
        IpAddr::V6(_) => libc::AF_INET6,
    };
    out[40..42].copy_from_slice(&(family as u16).to_ne_bytes());
    out[42] = selector.destination.length;
    out[43] = selector.source.length;
    out[44] = selector.protocol.unwrap_or(0);
    out[48..52].copy_from_slice(&selector.interface.unwrap_or(0).to_ne_bytes());
    out[52..].copy_from_slice(&owner.to_ne_bytes());
    out
}

fn decode_selector(body: &[u8; SELECTOR_LEN], direction: Direction) -> Option<(PolicySelector, u32)> {
    let family = i32::from(u16::from_ne_bytes([body[40], body[41]]));
    let selector = PolicySelector {
        direction,
        source: Prefix { address: decode_address(family, &body[16..32])?, length: body[43] },
        destination: Prefix { address: decode_address(family, &body[..16])?, length: body[42] },
        protocol: Some(body[44]).filter(|&p| p != 0),
        source_ports: decode_ports(&body[36..40]),
        destination_ports: decode_ports(&body[32..36]),
        interface: Some(u32::from_ne_bytes(body[48..52].try_into().ok()?)).filter(|&i| i != 0),
    };
    Some((selector, u32::from_ne_bytes(body[52..].try_into().ok()?)))
}

fn encode_address(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(a) => {
            let mut out = [0; 16];
            out[..4].copy_from_slice(&a.octets());
            out
        }
        IpAddr::V6(a) => a.octets(),
    }
}

fn decode_address(family: i32, bytes: &[u8]) -> Option<IpAddr> {
    match family {
        libc::AF_INET => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(..4)?).ok()?).into()),
        libc::AF_INET6 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        _ => None,
    }
}

fn encode_ports(ports: PortMask) -> [u8; 4] {
    let ([a, b], [c, d]) = (ports.value.to_be_bytes(), ports.mask.to_be_bytes());
    [a, b, c, d]
}

fn decode_ports(bytes: &[u8]) -> PortMask {
    PortMask {
        value: u16::from_be_bytes([bytes[0], bytes[1]]),
        mask: u16::from_be_bytes([bytes[2], bytes[3]]),
    }
}

const fn direction_code(direction: Direction) -> u8 {
    match direction {
        Direction::In => 0,
        Direction::Out => 1,
        Direction::Forward => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::range::{AddressRange, PortRange};

    #[test]
    fn a_policy_reads_back_as_it_was_written() {
        for (source, destination) in [("10.1.0.0/16", "192.0.2.7/32"), ("2001:db8::/32", "::/0")] {
            let policy = KernelPolicy {
                owner: 0x5012_3456,
                selector: PolicySelector {
                    direction: Direction::Forward,
                    source: prefix(source),
                    destination: prefix(destination),
                    protocol: Some(17),
                    source_ports: PortRange::single(4500).masks()[0],
                    destination_ports: PortRange::ANY.masks()[0],
                    interface: Some(7),
                },
                value: PolicyValue { priority: 2003, action: Action::Block },
            };
            let header = MessageHeader { kind: NEW_POLICY, ..MessageHeader::default() };
            assert_eq!(KernelPolicy::decode(&header, &policy.encode()), Some(policy));
        }
    }

    #[test]
    fn a_body_of_another_length_or_a_socket_policy_is_none() {
        let header = MessageHeader { kind: NEW_POLICY, ..MessageHeader::default() };
        assert_eq!(KernelPolicy::decode(&header, &[0; POLICY_LEN - 1]), None);
        let mut socket_policy = [0; POLICY_LEN];
        socket_policy[PRIORITY_OFFSET + 8] = 3;
        assert_eq!(KernelPolicy::decode(&header, &socket_policy), None);
    }

    fn prefix(text: &str) -> Prefix {
        let (address, length) = text.split_once('/').unwrap();
        AddressRange::prefix(address.parse().unwrap(), length.parse().unwrap()).prefixes()[0]
    }
}
