//! What may begin an IKE SA: the packets that cost a responder most before it knows who sent them.

use crate::bytes::Bytes;

const HEADER_LEN: usize = 28;
const IKE_SA_INIT: u8 = 34;
const RESPONSE: u8 = 0x20;
const NOTIFY_PAYLOAD: u8 = 41;
const COOKIE: u16 = 16390;
/// Offset of the octet with the flags (RFC 9293 section 3.1).
const TCP_FLAGS: usize = 13;
const TCP_SYN: u8 = 0x02;
const TCP_ACK: u8 = 0x10;

/// A packet that asks for an IKE SA, or for a TCP connection to ask on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Opening {
    /// An IKE_SA_INIT request (RFC 7296 section 1.2) without COOKIE.
    Init = 0,
    /// An IKE_SA_INIT request that begins with a COOKIE notification (RFC 7296 section 2.6): whoever sends it says that the
    /// address is his own. That it is ours, the IKE endpoint finds out.
    InitWithCookie = 1,
    /// The first segment of a TCP connection to the port of IKE (RFC 9293 section 3.1: SYN without ACK).
    Syn = 2,
}

impl Opening {
    /// Every kind, in the order of the numbers.
    pub const ALL: [Self; 3] = [Self::Init, Self::InitWithCookie, Self::Syn];
}

/// Where IKE listens, beside UDP 4500.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IkePorts {
    /// UDP without non-ESP marker: 500 (RFC 7296 section 2).
    pub udp: u16,
    /// TCP: 4500 (RFC 9329 section 2). 0: none.
    pub tcp: u16,
}

impl IkePorts {
    /// The assigned ones.
    pub const ASSIGNED: Self = Self { udp: 500, tcp: 4500 };
}

/// Whether the IKE message from `start` to `end` asks for an IKE SA: an IKE_SA_INIT request whose responder's SPI is zero
/// (RFC 7296 section 3.1).
#[inline(always)]
pub fn of_ike<B: Bytes + ?Sized>(frame: &B, start: usize, end: usize) -> Option<Opening> {
    if end < start + HEADER_LEN {
        return None;
    }
    let [next_payload, _version, exchange, flags]: [u8; 4] = frame.read(start + 16)?;
    if exchange != IKE_SA_INIT || flags & RESPONSE != 0 || frame.read(start + 8) != Some([0; 8]) {
        return None;
    }
    if next_payload == NOTIFY_PAYLOAD
        && end >= start + HEADER_LEN + 8
        && frame.read(start + HEADER_LEN + 6).map(u16::from_be_bytes) == Some(COOKIE)
    {
        return Some(Opening::InitWithCookie);
    }
    Some(Opening::Init)
}

/// Whether the TCP segment at `offset` is an [`Opening::Syn`] to `port`; nothing is if that is 0.
#[inline(always)]
pub fn of_tcp<B: Bytes + ?Sized>(frame: &B, offset: usize, port: u16) -> bool {
    let Some(header): Option<[u8; TCP_FLAGS + 1]> = frame.read(offset) else { return false };
    let destination = u16::from_be_bytes([header[2], header[3]]);
    port != 0 && destination == port && header[TCP_FLAGS] & (TCP_SYN | TCP_ACK) == TCP_SYN
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7296 section 3.1: the R flag, the exchange type and the responder's SPI tell a first request from all else.
    #[test]
    fn only_a_first_request_opens() {
        let opening = |message: &[u8]| of_ike(message, 0, message.len());
        let request = message(IKE_SA_INIT, 0x08, 0, 33);
        assert_eq!(opening(&request), Some(Opening::Init));
        assert_eq!(opening(&request[..HEADER_LEN]), Some(Opening::Init), "no payload at all");
        assert_eq!(opening(&request[..HEADER_LEN - 1]), None, "no IKE message");
        assert_eq!(opening(&message(IKE_SA_INIT, 0x20, 0, 41)), None, "a response that asks for a cookie");
        assert_eq!(opening(&message(IKE_SA_INIT, 0x08, 7, 33)), None, "a responder's SPI");
        for exchange in [35, 36, 37, 38, 43] {
            assert_eq!(opening(&message(exchange, 0x08, 0, 33)), None, "exchange {exchange}");
        }
    }

    /// RFC 7296 section 2.6: the cookie is the first payload.
    #[test]
    fn a_cookie_is_the_first_payload() {
        let opening = |message: &[u8]| of_ike(message, 0, message.len());
        let with = |kind: u16| {
            let mut message = message(IKE_SA_INIT, 0x08, 0, NOTIFY_PAYLOAD);
            message[HEADER_LEN + 6..HEADER_LEN + 8].copy_from_slice(&kind.to_be_bytes());
            message
        };
        assert_eq!(opening(&with(COOKIE)), Some(Opening::InitWithCookie));
        assert_eq!(opening(&with(16388)), Some(Opening::Init), "NAT_DETECTION_SOURCE_IP");
        assert_eq!(opening(&with(COOKIE)[..HEADER_LEN + 7]), Some(Opening::Init), "cut short");
    }

    /// RFC 9293 section 3.5.
    #[test]
    fn only_the_first_segment_of_a_connection_to_the_port_opens() {
        let segment = |port: u16, flags: u8| {
            let mut segment = vec![0; 20];
            segment[2..4].copy_from_slice(&port.to_be_bytes());
            segment[13] = flags;
            segment
        };
        assert!(of_tcp(&segment(4500, 0x02)[..], 0, 4500));
        assert!(of_tcp(&segment(4500, 0xc2)[..], 0, 4500), "with ECN");
        for flags in [0x12, 0x10, 0x11, 0x04, 0x18] {
            assert!(!of_tcp(&segment(4500, flags)[..], 0, 4500), "{flags:02x}");
        }
        assert!(!of_tcp(&segment(0, 0x02)[..], 0, 0), "no port");
        assert!(!of_tcp(&segment(443, 0x02)[..], 0, 4500));
        assert!(!of_tcp(&segment(4500, 0x02)[..13], 0, 4500), "cut short");
    }

    fn message(exchange: u8, flags: u8, responder_spi: u8, next_payload: u8) -> Vec<u8> {
        let mut message = vec![0; HEADER_LEN + 12];
        message[..8].fill(0x11);
        message[15] = responder_spi;
        message[16..20].copy_from_slice(&[next_payload, 0x20, exchange, flags]);
        message
    }
}
