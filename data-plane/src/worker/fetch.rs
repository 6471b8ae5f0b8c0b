//! The SAs of a batch, asked for before the first packet is opened: with very many of them no cache holds their keys, and one
//! packet's wait would follow the other's.

use portcullis_common::Spi;

use super::sas::WorkerSas;
use crate::packet::protocol;
use crate::xsk::{Received, Umem};

/// SAs below which a cache close to the core holds them all, and asking costs more than it saves.
const MANY: usize = 512;
const ETHERNET: usize = 14;
const IPV4: usize = ETHERNET + 20;
const IPV6: usize = ETHERNET + 40;
const UDP: usize = 8;

/// Asks the cache for the inbound SAs of a batch, step by step: each step finds what the last one asked for.
pub fn inbound(sas: &WorkerSas, umem: &Umem, received: &[Received]) {
    if sas.inbound_places() < MANY {
        return;
    }
    let packets = || {
        received.iter().filter_map(|packet| {
            let frame = umem.bytes(&packet.frame);
            esp(frame.get(packet.start..packet.start + packet.len)?)
        })
    };
    packets().for_each(|(spi, _)| sas.prefetch_inbound_place(spi));
    packets().for_each(|(spi, _)| sas.prefetch_inbound(spi));
    packets().for_each(|(spi, sequence)| sas.prefetch_inbound_rest(spi, sequence));
}

/// SPI and Sequence Number of ESP in a frame without tags, options and extension headers; what is read elsewhere is only a bad
/// guess.
fn esp(frame: &[u8]) -> Option<(Spi, u32)> {
    let (protocol, behind) = match frame.get(12..15)? {
        [0x08, 0x00, 0x45] => (*frame.get(ETHERNET + 9)?, IPV4),
        [0x86, 0xdd, _] => (*frame.get(ETHERNET + 6)?, IPV6),
        _ => return None,
    };
    let at = match protocol {
        protocol::ESP => behind,
        protocol::UDP => behind + UDP,
        _ => return None,
    };
    let [a, b, c, d, sequence @ ..] = frame.get(at..)?.first_chunk::<8>()?;
    Some((Spi::from_be_bytes([*a, *b, *c, *d]), u32::from_be_bytes(*sequence)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spi_and_number_are_found_in_either_family_and_carrier() {
        const HEAD: [u8; 8] = [0x0b, 0xad, 0xca, 0xfe, 0, 0, 1, 2];
        for (ethertype, first, protocol_at, behind) in [([0x08, 0], 0x45, 9, 20), ([0x86, 0xdd], 0x60, 6, 40)]
        {
            for (protocol, len) in [(protocol::ESP, 0), (protocol::UDP, 8)] {
                let mut frame = vec![0; ETHERNET + behind + len];
                frame[12..14].copy_from_slice(&ethertype);
                frame[ETHERNET] = first;
                frame[ETHERNET + protocol_at] = protocol;
                frame.extend(HEAD);
                assert_eq!(esp(&frame), Some((Spi(0x0bad_cafe), 258)));
                frame.pop();
                assert_eq!(esp(&frame), None);
            }
        }
        assert_eq!(esp(&[]), None);
    }
}
