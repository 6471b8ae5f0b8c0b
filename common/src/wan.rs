//! What a frame from outside is to us.

use crate::Spi;
use crate::bytes::{Bytes, Malformed};
use crate::ethernet;
use crate::ip::{self, Address, Upper, protocol};

/// The port of IKE and ESP behind NAT (RFC 3948).
pub const UDP_ENCAPSULATION_PORT: u16 = 4500;

const UDP_HEADER_LEN: usize = 8;
const NAT_KEEPALIVE: u8 = 0xff;

/// A frame from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wan {
    /// ESP to one of our addresses, in IP or in UDP.
    Esp(Spi),
    /// ESP, or UDP to port 4500, to somebody else.
    Transit,
    /// A NAT keepalive (RFC 3948 section 2.3): no one waits for it.
    NatKeepalive,
    /// IKE on port 4500: behind the non-ESP marker (RFC 3948 section 2.2).
    Ike,
    /// A fragment: the kernel reassembles it and our socket gets the packet.
    Fragment,
    /// Nothing of ours.
    Other,
}

/// Which addresses are ours.
pub trait LocalAddresses {
    /// True for an address of this machine.
    fn contains(&self, address: &Address) -> bool;
}

/// Classifies a frame from outside.
///
/// # Errors
/// Which header is malformed.
#[inline(always)]
pub fn classify<B, L>(frame: &B, local: &L) -> Result<Wan, Malformed>
where
    B: Bytes + ?Sized,
    L: LocalAddresses,
{
    let ethernet = ethernet::parse(frame)?;
    let Some(ip) = ip::parse(frame, ethernet.network)? else { return Ok(Wan::Other) };
    let (protocol, offset) = match ip.upper(frame)? {
        Upper::Whole(protocol, offset) => (protocol, offset),
        Upper::Fragment => return Ok(Wan::Fragment),
        Upper::Deep => return Ok(Wan::Other),
    };
    match protocol {
        protocol::ESP if !local.contains(&ip.destination) => Ok(Wan::Transit),
        protocol::ESP => esp(frame, offset, ip.end),
        protocol::UDP => {
            let header: [u8; UDP_HEADER_LEN] = frame.read(offset).ok_or(Malformed::Udp)?;
            if u16::from_be_bytes([header[2], header[3]]) != UDP_ENCAPSULATION_PORT {
                return Ok(Wan::Other);
            }
            if !local.contains(&ip.destination) {
                return Ok(Wan::Transit);
            }
            let end = offset + usize::from(u16::from_be_bytes([header[4], header[5]]));
            if end > ip.end {
                return Err(Malformed::Udp);
            }
            udp_4500(frame, offset + UDP_HEADER_LEN, end)
        }
        _ => Ok(Wan::Other),
    }
}

#[inline(always)]
fn udp_4500<B: Bytes + ?Sized>(frame: &B, start: usize, end: usize) -> Result<Wan, Malformed> {
    if end == start + 1 && frame.read(start) == Some([NAT_KEEPALIVE]) {
        return Ok(Wan::NatKeepalive);
    }
    if end < start + 4 {
        return Err(Malformed::Udp);
    }
    match frame.read(start) {
        Some([0, 0, 0, 0]) => Ok(Wan::Ike),
        Some(_) => esp(frame, start, end),
        None => Err(Malformed::Udp),
    }
}

#[inline(always)]
fn esp<B: Bytes + ?Sized>(frame: &B, start: usize, end: usize) -> Result<Wan, Malformed> {
    if end < start + 8 {
        return Err(Malformed::Esp);
    }
    let spi = frame.read(start).ok_or(Malformed::Esp)?;
    Ok(Wan::Esp(Spi::from_be_bytes(spi)))
}
