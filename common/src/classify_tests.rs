//! Properties of both classifiers over frames that are valid, cut short, padded, or noise.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::Spi;
use crate::bytes::Malformed;
use crate::ip::{Address, Source};
use crate::lan::{self, Lan};
use crate::opening::{IkePorts, Opening};
use crate::wan::{self, Gate, LocalAddresses, Wan};

const UDP: u8 = 17;
const ESP: u8 = 50;

/// Either every address is ours or none.
struct All(bool);

impl LocalAddresses for All {
    fn contains(&self, _: &Address) -> bool {
        self.0
    }
}

/// Nothing is too much.
struct Open;

impl Gate for Open {
    fn ports(&self) -> IkePorts {
        IkePorts::ASSIGNED
    }

    fn admits(&self, _: Opening, _: &Source) -> bool {
        true
    }
}

proptest! {
    /// RFC 791, RFC 8200 section 4, RFC 3948 section 2.1, IEEE 802.1Q.
    #[test]
    fn esp_is_found_behind_whatever_precedes_it((frame, spi) in esp_frame(), padding in vec(any::<u8>(), 0..46)) {
        let padded = [&frame[..], &padding].concat();
        prop_assert_eq!(wan::classify(&padded[..], &All(true), &Open), Ok(Wan::Esp(Spi(spi))));
        prop_assert_eq!(wan::classify(&padded[..], &All(false), &Open), Ok(Wan::Transit));
    }

    #[test]
    fn a_frame_cut_anywhere_is_malformed((frame, _) in esp_frame(), cut in any::<prop::sample::Index>()) {
        let short = &frame[..cut.index(frame.len())];
        prop_assert!(wan::classify(short, &All(true), &Open).is_err());
        prop_assert!(lan::classify(short, &All(false)).is_err());
    }

    #[test]
    fn from_inside_only_the_destination_counts((frame, _) in esp_frame()) {
        prop_assert!(matches!(lan::classify(&frame[..], &All(false)), Ok(Lan::Forward(_))));
        prop_assert_eq!(lan::classify(&frame[..], &All(true)), Ok(Lan::Local));
    }

    #[test]
    fn noise_gets_an_answer(mut frame in vec(any::<u8>(), 0..200), ethertype in prop::option::of(ethertype())) {
        if let (Some(ethertype), Some(place)) = (ethertype, frame.get_mut(12..14)) {
            place.copy_from_slice(&ethertype.to_be_bytes());
        }
        let outside = wan::classify(&frame[..], &All(true), &Open);
        prop_assert_ne!(outside, Ok(Wan::Transit), "every address is ours");
        if let Ok(Wan::Esp(spi)) = outside {
            prop_assert!(frame.windows(4).any(|octets| octets == spi.to_be_bytes()));
            prop_assert_ne!(wan::classify(&frame[..], &All(false), &Open), outside);
        }
        if frame.len() < 14 {
            prop_assert_eq!(outside, Err(Malformed::Ethernet));
            prop_assert_eq!(lan::classify(&frame[..], &All(true)), Err(Malformed::Ethernet));
        }
    }
}

fn ethertype() -> impl Strategy<Value = u16> {
    prop_oneof![Just(0x0800), Just(0x86dd), Just(0x8100)]
}

/// A frame with ESP in it, and the SPI.
fn esp_frame() -> impl Strategy<Value = (Vec<u8>, u32)> {
    let spi = 1..=u32::MAX;
    (vec(any::<u16>(), 0..3), any::<bool>(), spi, packet_shape()).prop_map(|(tags, in_udp, spi, shape)| {
        let esp = [&spi.to_be_bytes()[..], &[0, 0, 0, 1], &[0x5a; 24]].concat();
        let (protocol, payload) = if in_udp {
            let length = (8 + esp.len()) as u16;
            (UDP, [&[0x11, 0x94, 0x11, 0x94][..], &length.to_be_bytes(), &[0, 0], &esp].concat())
        } else {
            (ESP, esp)
        };
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for tag in tags {
            frame.extend_from_slice(&[0x81, 0x00]);
            frame.extend_from_slice(&tag.to_be_bytes());
        }
        frame.extend_from_slice(&shape.packet(protocol, &payload));
        (frame, spi)
    })
}

#[derive(Clone, Debug)]
enum Shape {
    /// Words of options.
    V4(u8),
    /// Extension headers: kind, and units of eight octets beyond the first.
    V6(Vec<(u8, u8)>),
}

fn packet_shape() -> impl Strategy<Value = Shape> {
    let kind = prop_oneof![Just(0u8), Just(43), Just(60)];
    prop_oneof![
        (0..=10u8).prop_map(Shape::V4),
        vec((kind, 0..4u8), 0..crate::ip::MAX_EXTENSION_HEADERS).prop_map(Shape::V6),
    ]
}

impl Shape {
    /// The ethertype and the packet.
    fn packet(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        match self {
            Self::V4(words) => {
                let header_len = 20 + usize::from(*words) * 4;
                let mut header = vec![0; header_len];
                header[0] = 0x45 + words;
                header[2..4].copy_from_slice(&((header_len + payload.len()) as u16).to_be_bytes());
                header[9] = protocol;
                header[16..20].copy_from_slice(&[10, 0, 0, 1]);
                [&[0x08, 0x00][..], &header, payload].concat()
            }
            Self::V6(extensions) => {
                let mut body = Vec::new();
                for (place, (_, units)) in extensions.iter().enumerate() {
                    body.push(extensions.get(place + 1).map_or(protocol, |(kind, _)| *kind));
                    body.push(*units);
                    body.resize(body.len() + 6 + usize::from(*units) * 8, 0);
                }
                body.extend_from_slice(payload);
                let mut header = [0; 40];
                header[0] = 0x60;
                header[4..6].copy_from_slice(&(body.len() as u16).to_be_bytes());
                header[6] = extensions.first().map_or(protocol, |(kind, _)| *kind);
                header[24] = 0x20;
                [&[0x86, 0xdd][..], &header, &body].concat()
            }
        }
    }
}
