//! What a frame from outside is to us.

use crate::Spi;
use crate::bytes::{Bytes, Malformed};
use crate::ethernet;
use crate::ip::{self, Address, Ip, Source, Upper, protocol};
use crate::opening::{self, IkePorts, Opening};

/// The port of IKE and ESP behind NAT (RFC 3948).
pub const UDP_ENCAPSULATION_PORT: u16 = 4500;

const UDP_HEADER_LEN: usize = 8;
const NAT_KEEPALIVE: u8 = 0xff;
const NON_ESP_MARKER: [u8; 4] = [0; 4];

/// A frame from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wan {
    /// ESP to one of our addresses, in IP or in UDP.
    Esp(Spi),
    /// ESP, or UDP to port 4500, to somebody else.
    Transit,
    /// A NAT keepalive (RFC 3948 section 2.3): no one waits for it.
    NatKeepalive,
    /// IKE to one of our addresses: on its own port, on port 4500 behind the non-ESP marker (RFC 3948 section 2.2), or the first
    /// segment of a TCP connection.
    Ike,
    /// An opening to one of our addresses, one too many.
    Excess(Opening),
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

/// Which openings are let in.
pub trait Gate {
    /// Where IKE listens.
    fn ports(&self) -> IkePorts;

    /// False if this is one too many from there.
    fn admits(&self, opening: Opening, source: &Source) -> bool;
}

/// Classifies a frame from outside.
///
/// # Errors
/// Which header is malformed.
#[inline(always)]
pub fn classify<B, L, G>(frame: &B, local: &L, gate: &G) -> Result<Wan, Malformed>
where
    B: Bytes + ?Sized,
    L: LocalAddresses,
    G: Gate,
{
    let ports = gate.ports();
    let ethernet = ethernet::parse(frame)?;
    let Some(ip) = ip::parse(frame, ethernet.network)? else { return Ok(Wan::Other) };
    let (protocol, offset) = match ip.upper(frame)? {
        Upper::Whole(protocol, offset) => (protocol, offset),
        Upper::Fragment => return Ok(Wan::Fragment),
        Upper::Deep => return Ok(Wan::Other),
    };
    let inside = match protocol {
        protocol::ESP => Inside::Esp,
        protocol::UDP => {
            let header: [u8; UDP_HEADER_LEN] = frame.read(offset).ok_or(Malformed::Udp)?;
            let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
            match u16::from_be_bytes([header[2], header[3]]) {
                UDP_ENCAPSULATION_PORT => Inside::Udp4500(length),
                port if port == ports.udp => Inside::Ike(length),
                _ => return Ok(Wan::Other),
            }
        }
        protocol::TCP if opening::of_tcp(frame, offset, ports.tcp) => Inside::Syn,
        _ => return Ok(Wan::Other),
    };
    if !local.contains(&ip.destination) {
        return Ok(match inside {
            Inside::Esp | Inside::Udp4500(_) => Wan::Transit,
            Inside::Ike(_) | Inside::Syn => Wan::Other,
        });
    }
    let udp = |length: usize| {
        let (start, end) = (offset + UDP_HEADER_LEN, offset + length);
        if start <= end && end <= ip.end { Ok((start, end)) } else { Err(Malformed::Udp) }
    };
    match inside {
        Inside::Esp => esp(frame, offset, ip.end),
        Inside::Udp4500(length) => {
            let (start, end) = udp(length)?;
            udp_4500(frame, start, end).map(|wan| match wan {
                Wan::Ike => ike(frame, &ip, start + NON_ESP_MARKER.len(), end, gate),
                other => other,
            })
        }
        Inside::Ike(length) => {
            let (start, end) = udp(length)?;
            Ok(ike(frame, &ip, start, end, gate))
        }
        Inside::Syn => Ok(open(frame, &ip, Opening::Syn, gate)),
    }
}

/// What is inside a packet that may be for us; with the UDP Length.
enum Inside {
    Esp,
    Udp4500(usize),
    Ike(usize),
    Syn,
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
        Some(NON_ESP_MARKER) => Ok(Wan::Ike),
        Some(_) => esp(frame, start, end),
        None => Err(Malformed::Udp),
    }
}

#[inline(always)]
fn ike<B: Bytes + ?Sized, G: Gate>(frame: &B, ip: &Ip, start: usize, end: usize, gate: &G) -> Wan {
    match opening::of_ike(frame, start, end) {
        Some(opening) => open(frame, ip, opening, gate),
        None => Wan::Ike,
    }
}

#[inline(always)]
fn open<B: Bytes + ?Sized, G: Gate>(frame: &B, ip: &Ip, opening: Opening, gate: &G) -> Wan {
    match ip.source(frame) {
        Some(source) if !gate.admits(opening, &source) => Wan::Excess(opening),
        _ => Wan::Ike,
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
