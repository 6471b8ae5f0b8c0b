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
    let spis = || {
        received.iter().filter_map(|packet| {
            let frame = umem.bytes(&packet.frame);
            spi(frame.get(packet.start..packet.start + packet.len)?)
        })
    };
    spis().for_each(|spi| sas.prefetch_inbound_place(spi));
    spis().for_each(|spi| sas.prefetch_inbound(spi));
    spis().for_each(|spi| sas.prefetch_inbound_live(spi));
}

/// Where ESP has its SPI in a frame without tags, options and extension headers; what is read elsewhere is only a bad guess.
fn spi(frame: &[u8]) -> Option<Spi> {
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
    frame.get(at..)?.first_chunk().map(|octets| Spi::from_be_bytes(*octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spi_is_found_in_either_family_and_carrier() {
        const SPI: [u8; 4] = [0x0b, 0xad, 0xca, 0xfe];
        for (ethertype, first, protocol_at, behind) in [([0x08, 0], 0x45, 9, 20), ([0x86, 0xdd], 0x60, 6, 40)]
        {
            for (protocol, len) in [(protocol::ESP, 0), (protocol::UDP, 8)] {
                let mut frame = vec![0; ETHERNET + behind + len];
                frame[12..14].copy_from_slice(&ethertype);
                frame[ETHERNET] = first;
                frame[ETHERNET + protocol_at] = protocol;
                frame.extend(SPI);
                assert_eq!(spi(&frame), Some(Spi(0x0bad_cafe)));
                frame.pop();
                assert_eq!(spi(&frame), None);
            }
        }
        assert_eq!(spi(&[]), None);
    }
}
