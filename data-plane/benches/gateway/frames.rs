//! Frames, and what has to be known of interfaces to address them.

use std::net::IpAddr;
use std::sync::Arc;

use portcullis_common::Spi;
use portcullis_data_plane::packet::checksum;
use portcullis_esp::{
    Algorithm, ExpandedKeymat, HEAD_LEN, KeyMaterial, Lifetime, MAX_TAIL_LEN, NextHeader, Outbound,
    OutboundLive, OutboundParameters,
};

use crate::gateway::{Namespace, address};

const IPV4: usize = 20;
const IPV6: usize = 40;
const UDP: usize = 8;

/// An IPv4 packet of `len` octets with a UDP datagram in it.
pub fn inner(from: &str, to: &str, len: usize) -> Vec<u8> {
    let mut datagram = vec![0x5a; len - IPV4];
    datagram[..UDP].copy_from_slice(&udp_header(4242, 4243, len - IPV4));
    ip(address(from), address(to), 17, &datagram)
}

/// An IP packet behind the header of a frame.
pub fn ethernet(to: &[u8; 6], packet: &[u8]) -> Vec<u8> {
    let kind = if packet[0] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xdd] };
    [&to[..], &[2, 0, 0, 0, 0, 9], &kind, packet].concat()
}

/// A sealed packet in UDP from gateway B to gateway A.
pub fn esp(to: &[u8; 6], spi: Spi, key: &[u8], inner: &[u8], outer_v6: bool) -> Vec<u8> {
    let material = KeyMaterial::from_keymat(Algorithm::Aes256Gcm16, key).unwrap();
    let parameters = OutboundParameters { spi, esn: true, lifetime: Lifetime::default() };
    let memory = Arc::new(OutboundLive::default());
    let mut sa = Outbound::new(parameters, ExpandedKeymat::new(&material).unwrap(), memory);
    let mut buffer = vec![0; HEAD_LEN + inner.len() + MAX_TAIL_LEN];
    buffer[HEAD_LEN..HEAD_LEN + inner.len()].copy_from_slice(inner);
    let sealed = sa.seal(&mut buffer, HEAD_LEN..HEAD_LEN + inner.len(), NextHeader::IPV4, 1).unwrap();
    let sealed = &buffer[sealed.packet];
    let (from, local) =
        if outer_v6 { ("2001:db8::2", "2001:db8::1") } else { ("198.51.100.2", "198.51.100.1") };
    let (from, local) = (address(from), address(local));
    let mut datagram = [&udp_header(4500, 4500, UDP + sealed.len())[..], sealed].concat();
    if outer_v6 {
        let sum = checksum::pseudo_header(from, local, 17, datagram.len()) + checksum::sum(&datagram);
        datagram[6..8].copy_from_slice(&(!checksum::fold(sum)).to_be_bytes());
    }
    ethernet(to, &ip(from, local, 17, &datagram))
}

fn udp_header(from: u16, to: u16, len: usize) -> [u8; UDP] {
    let mut header = [0; UDP];
    header[..2].copy_from_slice(&from.to_be_bytes());
    header[2..4].copy_from_slice(&to.to_be_bytes());
    header[4..6].copy_from_slice(&(len as u16).to_be_bytes());
    header
}

fn ip(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = vec![0; IPV4];
            header[0] = 0x45;
            header[2..4].copy_from_slice(&((IPV4 + payload.len()) as u16).to_be_bytes());
            header[8..10].copy_from_slice(&[64, protocol]);
            header[12..16].copy_from_slice(&from.octets());
            header[16..20].copy_from_slice(&to.octets());
            checksum::set_ipv4_header(&mut header);
            header
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut header = vec![0; IPV6];
            header[0] = 0x60;
            header[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
            header[6..8].copy_from_slice(&[protocol, 64]);
            header[8..24].copy_from_slice(&from.octets());
            header[24..40].copy_from_slice(&to.octets());
            header
        }
        _ => panic!("{from} and {to} are of different families"),
    };
    header.extend(payload);
    header
}

pub fn index(namespace: &Namespace, interface: &str) -> u32 {
    let shown = namespace.ip(&["-o", "link", "show", "dev", interface]);
    shown.split(':').next().unwrap().trim().parse().unwrap()
}

pub fn mac(namespace: &Namespace, interface: &str) -> [u8; 6] {
    let shown = namespace.ip(&["-o", "link", "show", "dev", interface]);
    let text = shown.split("link/ether ").nth(1).unwrap().split_whitespace().next().unwrap();
    let octets: Vec<_> = text.split(':').map(|octet| u8::from_str_radix(octet, 16).unwrap()).collect();
    octets.try_into().unwrap()
}

/// Packets that an interface dropped, in either direction.
pub fn dropped(namespace: &Namespace, interface: &str) -> u64 {
    let shown = namespace.ip(&["-s", "-json", "link", "show", "dev", interface]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    ["rx", "tx"].map(|way| shown[0]["stats64"][way]["dropped"].as_u64().unwrap()).iter().sum()
}
