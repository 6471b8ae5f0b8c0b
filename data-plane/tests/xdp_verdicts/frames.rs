//! Frames, built from the inside out.

const ESP: u8 = 50;
const UDP: u8 = 17;

/// ESP with this SPI, sequence number 1 and something encrypted.
pub fn esp(spi: u32) -> Vec<u8> {
    [&spi.to_be_bytes()[..], &1u32.to_be_bytes(), &[0xa5; 40]].concat()
}

/// A UDP datagram.
pub fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let length = (8 + payload.len()) as u16;
    [&source.to_be_bytes()[..], &destination.to_be_bytes(), &length.to_be_bytes(), &[0; 2], payload].concat()
}

/// An IPv4 packet with `words` 32-bit words of options.
pub fn ipv4(destination: [u8; 4], protocol: u8, words: u8, payload: &[u8]) -> Vec<u8> {
    let header_len = 20 + usize::from(words) * 4;
    let mut packet = vec![0; header_len];
    packet[0] = 0x40 | (5 + words);
    packet[2..4].copy_from_slice(&((header_len + payload.len()) as u16).to_be_bytes());
    packet[8] = 64;
    packet[9] = protocol;
    packet[12..16].copy_from_slice(&[198, 51, 100, 7]);
    packet[16..20].copy_from_slice(&destination);
    // No-operation options (RFC 791 section 3.1).
    packet[20..].fill(1);
    packet.extend_from_slice(payload);
    packet
}

/// An IPv6 packet with extension headers: (protocol number, its octets without the next header).
pub fn ipv6(destination: [u8; 16], protocol: u8, extensions: &[(u8, &[u8])], payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; 40];
    packet[0] = 0x60;
    packet[6] = extensions.first().map_or(protocol, |(number, _)| *number);
    packet[7] = 64;
    packet[8..24].copy_from_slice(&[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
    packet[24..40].copy_from_slice(&destination);
    for (place, (_, octets)) in extensions.iter().enumerate() {
        packet.push(extensions.get(place + 1).map_or(protocol, |(number, _)| *number));
        packet.extend_from_slice(octets);
    }
    packet.extend_from_slice(payload);
    let length = (packet.len() - 40) as u16;
    packet[4..6].copy_from_slice(&length.to_be_bytes());
    packet
}

/// An Ethernet frame to an individual address, with VLAN tags of these ethertypes.
pub fn ethernet(tags: &[u16], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    for tag in tags {
        frame.extend_from_slice(&tag.to_be_bytes());
        frame.extend_from_slice(&[0, 7]);
    }
    frame.extend_from_slice(&ethertype.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// An untagged frame with an IP packet in it.
pub fn frame(packet: &[u8]) -> Vec<u8> {
    ethernet(&[], if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd }, packet)
}

pub fn esp_in_ipv4(destination: [u8; 4], spi: u32) -> Vec<u8> {
    ipv4(destination, ESP, 0, &esp(spi))
}

pub fn esp_in_ipv6(destination: [u8; 16], spi: u32) -> Vec<u8> {
    ipv6(destination, ESP, &[], &esp(spi))
}

pub fn udp_4500_in_ipv4(destination: [u8; 4], payload: &[u8]) -> Vec<u8> {
    ipv4(destination, UDP, 0, &udp(4500, 4500, payload))
}

pub fn udp_4500_in_ipv6(destination: [u8; 16], payload: &[u8]) -> Vec<u8> {
    ipv6(destination, UDP, &[], &udp(61_000, 4500, payload))
}

/// An IKE message (RFC 7296 section 3.1) of this exchange type, with these flags, responder's SPI, first payload and payloads.
pub fn ike(exchange: u8, flags: u8, responder_spi: [u8; 8], next_payload: u8, payloads: &[u8]) -> Vec<u8> {
    let length = (28 + payloads.len()) as u32;
    [
        &[0x11; 8][..],
        &responder_spi,
        &[next_payload, 0x20, exchange, flags],
        &[0; 4],
        &length.to_be_bytes(),
        payloads,
    ]
    .concat()
}

/// A TCP segment without payload.
pub fn tcp(destination: u16, flags: u8) -> Vec<u8> {
    let mut segment = vec![0; 20];
    segment[..2].copy_from_slice(&33_333u16.to_be_bytes());
    segment[2..4].copy_from_slice(&destination.to_be_bytes());
    segment[12] = 5 << 4;
    segment[13] = flags;
    segment
}

/// The IPv4 packet, from another address.
pub fn from_ipv4(source: u32, packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet[12..16].copy_from_slice(&source.to_be_bytes());
    packet
}
