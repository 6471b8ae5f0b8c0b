//! A look at packets on their way through the workers, where no tcpdump sees them: in clear and as ESP, in both directions.
//!
//! One reader at a time. A worker copies what is asked for into a bounded channel and never waits: what the reader is too slow
//! for is counted. While nobody looks, a packet costs a comparison with nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use portcullis_common::Spi;
use tokio::sync::mpsc;

use crate::packet::outer::OuterFields;
use crate::packet::{OuterHeader, PacketBuf, TunnelOptions};
use crate::policy::PolicyKey;
use crate::sa::{Carrier, EchoAnswers, Path};
use crate::worker::facts::Arrival;

/// Packets that may wait for the reader.
const WAITING: usize = 4096;

/// Where on its way a packet was seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Point {
    /// From the protected side, before it was sealed.
    ClearOut,
    /// Sealed.
    EspOut,
    /// Before it was opened.
    EspIn,
    /// Opened and inside its SA's selectors, on its way to the protected side.
    ClearIn,
}

/// A packet as it was there: an IP packet.
///
/// ESP that came by a socket or travels in TCP gets the headers that it has, or would have outside TCP, made anew: addresses,
/// ports and traffic class are true, TTL and identification are not.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When.
    pub at: SystemTime,
    /// Where.
    pub point: Point,
    /// Whose SA.
    pub policy: PolicyKey,
    /// The SA's SPI.
    pub spi: Spi,
    /// ESP travels in a TCP stream.
    pub in_tcp: bool,
    /// Length in octets; `packet` may be shorter.
    pub len: usize,
    /// The first octets.
    pub packet: Vec<u8>,
}

/// What a reader wants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TapOptions {
    /// Only packets of this connection.
    pub connection: Option<Arc<str>>,
    /// Octets kept of each packet.
    pub snaplen: usize,
}

/// Where workers put what they see.
#[derive(Debug)]
pub struct Tap {
    options: TapOptions,
    sender: mpsc::Sender<Seen>,
    missed: AtomicU64,
}

/// Where and of which SA a packet is seen.
pub(crate) struct Place<'a> {
    pub point: Point,
    pub policy: &'a PolicyKey,
    pub spi: Spi,
    pub in_tcp: bool,
}

impl Tap {
    /// A tap and the end where packets come out.
    pub(crate) fn new(options: TapOptions) -> (Self, mpsc::Receiver<Seen>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self { options, sender, missed: AtomicU64::new(0) }, receiver)
    }

    /// Packets that the reader was too slow for.
    pub(crate) fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }

    /// Takes a copy of an IP packet.
    #[cold]
    pub(crate) fn see(&self, place: &Place<'_>, packet: &[u8]) {
        if self.options.connection.as_ref().is_some_and(|wanted| *wanted != place.policy.connection) {
            return;
        }
        let kept = packet.get(..self.options.snaplen).unwrap_or(packet).to_vec();
        let seen = Seen {
            at: SystemTime::now(),
            point: place.point,
            policy: place.policy.clone(),
            spi: place.spi,
            in_tcp: place.in_tcp,
            len: packet.len(),
            packet: kept,
        };
        if self.sender.try_send(seen).is_err() {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes a copy of an ESP packet without its outer header, which came from there.
    #[cold]
    pub(crate) fn see_arrived(&self, place: &Place<'_>, esp: &[u8], arrival: &Arrival) {
        let path = Path {
            carrier: arrival.carrier,
            local: arrival.source.ip(),
            local_port: arrival.source.port(),
            remote: arrival.local,
            remote_port: 4500,
            echo: EchoAnswers::default(),
            takes_tcp: false,
        };
        self.see_with_header(place, esp, &path, arrival.traffic_class);
    }

    /// Takes a copy of an ESP packet without an outer header, as if it left that way.
    #[cold]
    pub(crate) fn see_with_header(&self, place: &Place<'_>, esp: &[u8], path: &Path, traffic_class: u8) {
        let carrier = match path.carrier {
            Carrier::Udp => Carrier::Udp,
            _ => Carrier::Ip,
        };
        let options = TunnelOptions { copy_dscp: true, ..TunnelOptions::default() };
        let Some(header) = OuterHeader::new(&Path { carrier, ..*path }, options) else { return };
        let mut bytes = vec![0; header.len() + esp.len()];
        if let Some(room) = bytes.get_mut(header.len()..) {
            room.copy_from_slice(esp);
        }
        let fields =
            OuterFields { inner_traffic_class: traffic_class, inner_dont_fragment: true, identification: 0 };
        let Some(mut buffer) = PacketBuf::new(&mut bytes, header.len(), esp.len()) else { return };
        if header.push(&mut buffer, &fields).is_some() {
            self.see(place, &bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(policy: &PolicyKey) -> Place<'_> {
        Place { point: Point::EspIn, policy, spi: Spi(7), in_tcp: false }
    }

    fn policy(connection: &str) -> PolicyKey {
        PolicyKey { connection: connection.into(), child: "net".into() }
    }

    #[test]
    fn what_is_not_asked_for_is_not_copied_and_what_is_too_much_is_counted() {
        let options = TapOptions { connection: Some("x".into()), snaplen: 3 };
        let (tap, mut seen) = Tap::new(options);
        tap.see(&place(&policy("y")), &[1; 10]);
        tap.see(&place(&policy("x")), &[2; 10]);
        let first = seen.try_recv().unwrap();
        assert_eq!((first.len, &first.packet[..], first.spi), (10, &[2; 3][..], Spi(7)));
        assert!(seen.try_recv().is_err() && tap.missed() == 0);
        (0..=WAITING).for_each(|_| tap.see(&place(&policy("x")), &[0]));
        assert_eq!(tap.missed(), 1);
    }

    #[test]
    fn an_arrival_gets_the_header_that_the_socket_took() {
        for (carrier, is_v6, len) in
            [(Carrier::Udp, false, 28), (Carrier::Ip, false, 20), (Carrier::Udp, true, 48)]
        {
            let (tap, mut seen) = Tap::new(TapOptions { connection: None, snaplen: 9000 });
            let (source, local) = if is_v6 {
                ("[2001:db8::2]:4501", "2001:db8::1")
            } else {
                ("198.51.100.2:4501", "198.51.100.1")
            };
            let arrival = Arrival {
                carrier,
                source: source.parse().unwrap(),
                local: local.parse().unwrap(),
                traffic_class: 0,
            };
            tap.see_arrived(&place(&policy("x")), &[9; 40], &arrival);
            let packet = seen.try_recv().unwrap().packet;
            let inner = crate::packet::Inner::parse(&packet).unwrap();
            assert_eq!((inner.source, inner.destination), (arrival.source.ip(), arrival.local));
            assert_eq!((packet.len(), &packet[len..]), (len + 40, &[9; 40][..]));
            if carrier == Carrier::Udp {
                assert_eq!(inner.ports, crate::packet::inner::Ports::Known(4501, 4500));
            }
        }
    }
}
