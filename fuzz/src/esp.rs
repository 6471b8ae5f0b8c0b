//! ESP: a sender, a receiver and an attacker between them.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use portcullis_common::Spi;
use portcullis_esp::{
    Algorithm, ECHO_HEADER_LEN, Echo, EchoKind, EchoSubTypes, ExpandedKeymat, HEAD_LEN, Inbound, InboundLive,
    InboundParameters, KeyMaterial, Lifetime, MAX_TAIL_LEN, NextHeader, Outbound, OutboundLive,
    OutboundParameters, turn_into_reply,
};

const SPI: Spi = Spi(0x0010_0000);

/// The first octet chooses algorithm, ESN and window; each step is an operation, an operand and octets.
///
/// Whatever the attacker does, nothing panics, nothing but what the sender sealed opens, and that once.
pub fn esp_open(data: &[u8]) {
    let Some((choice, mut rest)) = data.split_first() else { return };
    let algorithm = Algorithm::ALL[usize::from(*choice) % Algorithm::ALL.len()];
    let (esn, words) = (choice & 4 != 0, 1 << (choice >> 4 & 3));
    let keymat = || {
        let material = KeyMaterial::from_keymat(algorithm, &[3; 36][..algorithm.keymat_len()]);
        material
            .and_then(|material| ExpandedKeymat::new(&material))
            .expect("key material of the right length")
    };
    let parameters = OutboundParameters { spi: SPI, esn, lifetime: Lifetime::default() };
    let mut outbound = Outbound::new(parameters, keymat(), Arc::new(OutboundLive::default()));
    let parameters = InboundParameters { spi: SPI, esn, lifetime: Lifetime::default() };
    let memory =
        Arc::new((InboundLive::default(), (0..words).map(|_| AtomicU64::new(0)).collect::<Vec<_>>()));
    let mut inbound = Inbound::new(parameters, keymat(), memory).expect("a power of two of words");

    let (mut sealed, mut opened) = (Vec::<Sealed>::new(), HashSet::new());
    while let [operation, operand, tail @ ..] = rest {
        rest = tail;
        let operand = usize::from(*operand);
        match operation % 4 {
            0 => {
                let payload;
                (payload, rest) = rest.split_at(operand.min(rest.len()));
                let mut buffer = vec![0xee; HEAD_LEN + payload.len() + MAX_TAIL_LEN];
                let inner = HEAD_LEN..HEAD_LEN + payload.len();
                buffer[inner.clone()].copy_from_slice(payload);
                let place =
                    outbound.seal(&mut buffer, inner, NextHeader(*operation), 0).expect("room").packet;
                sealed.push(Sealed { packet: buffer[place].to_vec(), payload: payload.to_vec() });
            }
            1 => {
                let octets;
                (octets, rest) = rest.split_at(operand.min(rest.len()));
                let mut packet = [&SPI.to_be_bytes()[..], octets].concat();
                let len = packet.len();
                assert!(inbound.open(&mut packet, 0..len, 0).is_err(), "a packet that nobody sealed");
            }
            2 if !sealed.is_empty() => {
                let number = operand % sealed.len();
                let mut buffer = sealed[number].packet.clone();
                let len = buffer.len();
                if let Ok(packet) = inbound.open(&mut buffer, 0..len, 0) {
                    assert!(opened.insert(number), "a replay");
                    assert_eq!(buffer[packet.inner], sealed[number].payload);
                    assert_eq!(packet.sequence, number as u64 + 1);
                } else {
                    let is_behind = opened.iter().any(|other| *other >= number + words * 64);
                    assert!(opened.contains(&number) || is_behind, "a packet that was due");
                }
            }
            3 if !sealed.is_empty() => {
                let number = operand % sealed.len();
                let mut buffer = sealed[number].packet.clone();
                let (at, len) = (usize::from(rest.first().copied().unwrap_or(0)), buffer.len());
                buffer[at % len] ^= operation | 1;
                assert!(inbound.open(&mut buffer, 0..len, 0).is_err(), "a packet that was changed");
            }
            _ => {}
        }
    }
}

/// The payload of an ESP packet with next header 144; the first two octets choose the room for a reply.
///
/// A message says the same when it is written again; a reply is the request but for its sub-type, and never longer.
pub fn esp_echo(data: &[u8]) {
    let Some((room, payload)) = data.split_first_chunk() else { return };
    let (numbers, room) = (EchoSubTypes::DEFAULT, usize::from(u16::from_be_bytes(*room)));
    let mut answered = payload.to_vec();
    let reply_len = turn_into_reply(&mut answered, numbers, room);
    let Ok(echo) = Echo::parse(payload, numbers) else {
        assert!(reply_len.is_err() && answered == payload, "no message has a reply");
        return;
    };
    let mut again = vec![0; echo.len()];
    assert_eq!(echo.write(numbers, &mut again), Ok(again.len()));
    assert_eq!(Echo::parse(&again, numbers), Ok(echo));
    // What nobody reads: seven bits of the flags.
    again[1] |= payload[1] & 0x7f;
    assert_eq!(again, payload[..again.len()]);
    match reply_len {
        Ok(len) => {
            assert!(echo.kind == EchoKind::Request && len <= room && len <= echo.len());
            let reply = Echo::parse(&answered[..len], numbers).expect("a reply is a message");
            assert_eq!(
                reply,
                Echo { kind: EchoKind::Reply, data: &echo.data[..len - ECHO_HEADER_LEN], ..echo }
            );
        }
        Err(_) => {
            assert!(echo.kind == EchoKind::Reply || room < ECHO_HEADER_LEN, "a request without a reply")
        }
    }
}

struct Sealed {
    packet: Vec<u8>,
    payload: Vec<u8>,
}
