//! Packets of the data plane as a pcapng file (draft-ietf-opsawg-pcapng), for Wireshark and tcpdump.
//!
//! Two interfaces: `clear` and `esp`. Each packet has a direction and, as a comment, its connection, child and SPI.

use std::time::{SystemTime, UNIX_EPOCH};

use portcullis_data_plane::tap::{Point, Seen};

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
/// Raw IPv4 or IPv6.
const LINKTYPE_RAW: u16 = 101;

const OPT_COMMENT: u16 = 1;
const IF_NAME: u16 = 2;
const IF_TSRESOL: u16 = 9;
const EPB_FLAGS: u16 = 2;
const ISB_IFDROP: u16 = 5;
/// Timestamps in nanoseconds.
const NANOSECONDS: [u8; 1] = [9];

const CLEAR: u32 = 0;
const ESP: u32 = 1;

/// What a file begins with.
pub fn head(snaplen: usize) -> Vec<u8> {
    let mut file = Vec::new();
    block(&mut file, SECTION_HEADER, |body| {
        body.extend(BYTE_ORDER_MAGIC.to_le_bytes());
        // Version 1.0, a section of unknown length.
        body.extend([1, 0, 0, 0]);
        body.extend([0xff; 8]);
    });
    for name in ["clear", "esp"] {
        block(&mut file, INTERFACE_DESCRIPTION, |body| {
            body.extend(LINKTYPE_RAW.to_le_bytes());
            body.extend([0; 2]);
            body.extend(u32::try_from(snaplen).unwrap_or(u32::MAX).to_le_bytes());
            option(body, IF_NAME, name.as_bytes());
            option(body, IF_TSRESOL, &NANOSECONDS);
            end_of_options(body);
        });
    }
    file
}

/// A packet.
pub fn packet(seen: &Seen) -> Vec<u8> {
    let (interface, is_inbound) = match seen.point {
        Point::ClearOut => (CLEAR, false),
        Point::EspOut => (ESP, false),
        Point::EspIn => (ESP, true),
        Point::ClearIn => (CLEAR, true),
    };
    let mut file = Vec::with_capacity(seen.packet.len() + 160);
    block(&mut file, ENHANCED_PACKET, |body| {
        body.extend(interface.to_le_bytes());
        time(body, seen.at);
        let length = |len: usize| u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes();
        body.extend(length(seen.packet.len()));
        body.extend(length(seen.len));
        padded(body, &seen.packet);
        // Inbound is 1, outbound 2.
        let flags: u32 = if is_inbound { 1 } else { 2 };
        option(body, EPB_FLAGS, &flags.to_le_bytes());
        let in_tcp = if seen.in_tcp { ", in TCP" } else { "" };
        let comment = format!("{} {}, SPI {}{in_tcp}", seen.policy.connection, seen.policy.child, seen.spi);
        option(body, OPT_COMMENT, comment.as_bytes());
        end_of_options(body);
    });
    file
}

/// How many packets are missing so far.
pub fn statistics(missed: u64) -> Vec<u8> {
    let mut file = Vec::new();
    for interface in [CLEAR, ESP] {
        block(&mut file, INTERFACE_STATISTICS, |body| {
            body.extend(interface.to_le_bytes());
            time(body, SystemTime::now());
            // Nobody knows of which they are: all are said to be of the first.
            let missed = if interface == CLEAR { missed } else { 0 };
            option(body, ISB_IFDROP, &missed.to_le_bytes());
            end_of_options(body);
        });
    }
    file
}

fn block(file: &mut Vec<u8>, kind: u32, write: impl FnOnce(&mut Vec<u8>)) {
    let start = file.len();
    file.extend(kind.to_le_bytes());
    file.extend([0; 4]);
    write(file);
    let length = u32::try_from(file.len() - start + 4).unwrap_or(u32::MAX).to_le_bytes();
    file.extend(length);
    if let Some(place) = file.get_mut(start + 4..start + 8) {
        place.copy_from_slice(&length);
    }
}

/// Upper and lower half of nanoseconds since 1970.
fn time(body: &mut Vec<u8>, at: SystemTime) {
    let nanoseconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
    body.extend(((nanoseconds >> 32) as u32).to_le_bytes());
    body.extend((nanoseconds as u32).to_le_bytes());
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    // Names of connections have a bound far below.
    let value = value.get(..usize::from(u16::MAX)).unwrap_or(value);
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    padded(body, value);
}

fn end_of_options(body: &mut Vec<u8>) {
    body.extend([0; 4]);
}

fn padded(body: &mut Vec<u8>, value: &[u8]) {
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use portcullis_common::Spi;
    use portcullis_data_plane::policy::PolicyKey;

    use super::*;

    /// Takes a file apart into kinds and bodies, and checks both lengths of every block.
    fn blocks(mut file: &[u8]) -> Vec<(u32, &[u8])> {
        let word = |bytes: &[u8]| u32::from_le_bytes(bytes[..4].try_into().unwrap());
        let mut found = Vec::new();
        while !file.is_empty() {
            let length = word(&file[4..]) as usize;
            assert!(length.is_multiple_of(4) && word(&file[length - 4..]) as usize == length);
            found.push((word(file), &file[8..length - 4]));
            file = &file[length..];
        }
        found
    }

    #[test]
    fn a_file_has_a_section_two_interfaces_and_packets() {
        let seen = Seen {
            at: UNIX_EPOCH + std::time::Duration::from_nanos(0x1_0000_0002),
            point: Point::EspIn,
            policy: PolicyKey { connection: "site-b".into(), child: "net".into() },
            spi: Spi(0xc0de_0001),
            in_tcp: true,
            len: 1400,
            packet: vec![0x45; 5],
        };
        let file = [head(96), packet(&seen), statistics(7)].concat();
        let blocks = blocks(&file);
        let kinds: Vec<_> = blocks.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [SECTION_HEADER, 1, 1, 6, 5, 5]);
        assert_eq!(blocks[1].1[4..8], 96u32.to_le_bytes());
        let body = blocks[3].1;
        let words: Vec<_> =
            body.chunks_exact(4).take(5).map(|w| u32::from_le_bytes(w.try_into().unwrap())).collect();
        assert_eq!(words, [ESP, 1, 2, 5, 1400], "interface, time, lengths");
        assert_eq!(&body[20..28], [0x45, 0x45, 0x45, 0x45, 0x45, 0, 0, 0]);
        assert_eq!(&body[28..36], [2, 0, 4, 0, 1, 0, 0, 0], "inbound");
        let comment = String::from_utf8_lossy(&body[40..]);
        assert!(comment.starts_with("site-b net, SPI c0de0001, in TCP"), "{comment}");
        assert_eq!(blocks[4].1[16..24], 7u64.to_le_bytes());
    }
}
