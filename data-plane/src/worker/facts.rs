//! What an SA's owner tells the control plane about packets, and how often.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::sa::Carrier;

/// Between two reports of the same thing.
const INTERVAL: Duration = Duration::from_secs(1);

/// Where an ESP packet came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arrival {
    /// `Ip`, `Udp` or `Stream`.
    pub carrier: Carrier,
    /// Outer source; port 0 on IP.
    pub source: SocketAddr,
    /// Outer destination.
    pub local: IpAddr,
    /// DSCP and ECN of the outer header.
    pub traffic_class: u8,
}

/// What was reported about an inbound SA.
#[derive(Clone, Copy, Debug, Default)]
pub struct InboundFacts {
    last: Option<Report>,
    /// From when on a change of source or carrier is worth an event again.
    move_due: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Report {
    carrier: Carrier,
    source: SocketAddr,
    /// From when on the same is worth an event again.
    due: Duration,
}

impl InboundFacts {
    /// True if this authenticated packet is worth an event: the first of the SA, the first with a higher number
    /// from another source or carrier (two that alternate count once a second), or a second has passed.
    pub fn is_news(&self, arrival: &Arrival, is_highest: bool, now: Duration) -> bool {
        let Some(last) = self.last else { return true };
        now >= last.due || is_highest && now >= self.move_due && !last.is_from(arrival)
    }

    /// The event about this packet is on its way; without this call the next packet is news again.
    pub fn reported(&mut self, arrival: &Arrival, is_highest: bool, now: Duration) {
        let Arrival { carrier, source, .. } = *arrival;
        match &mut self.last {
            None => self.last = Some(Report { carrier, source, due: now + INTERVAL }),
            Some(last) => {
                // A late packet from elsewhere says nothing about where the peer is now.
                if is_highest && !last.is_from(arrival) {
                    (last.carrier, last.source) = (carrier, source);
                    self.move_due = now + INTERVAL;
                }
                last.due = now + INTERVAL;
            }
        }
    }
}

impl Report {
    fn is_from(&self, arrival: &Arrival) -> bool {
        (self.carrier, self.source) == (arrival.carrier, arrival.source)
    }
}

/// Something that is reported at most once a second.
#[derive(Clone, Copy, Debug, Default)]
pub struct OncePerSecond {
    due: Duration,
}

impl OncePerSecond {
    /// True if a second has passed since the last report.
    pub fn is_due(&self, now: Duration) -> bool {
        now >= self.due
    }

    /// It was reported.
    pub fn reported(&mut self, now: Duration) {
        self.due = now + INTERVAL;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Transport policy rule 4: an address is updated at most once a second, by a higher number.
    #[test]
    fn the_first_packet_and_a_new_source_are_news_and_the_rest_is_not() {
        let mut facts = InboundFacts::default();
        let news = |facts: &mut InboundFacts, port, is_highest, ms| {
            let (arrival, now) = (from(port), Duration::from_millis(ms));
            let is_news = facts.is_news(&arrival, is_highest, now);
            if is_news {
                facts.reported(&arrival, is_highest, now);
            }
            is_news
        };
        assert!(news(&mut facts, 1, true, 0), "first");
        assert!(!news(&mut facts, 1, true, 10), "same again");
        assert!(news(&mut facts, 2, true, 20), "moved");
        assert!(!news(&mut facts, 1, true, 30), "back within a second");
        assert!(news(&mut facts, 1, true, 1020), "still back after a second");
        assert!(!news(&mut facts, 3, false, 2500 - 1000), "late packet from elsewhere");
        assert!(news(&mut facts, 1, true, 2600), "a second of silence towards the control plane");
    }

    #[test]
    fn an_event_that_found_no_room_stays_news() {
        let facts = InboundFacts::default();
        assert!(facts.is_news(&from(1), true, Duration::ZERO));
        assert!(facts.is_news(&from(1), true, Duration::ZERO));
    }

    fn from(port: u16) -> Arrival {
        Arrival {
            carrier: Carrier::Udp,
            source: SocketAddr::from(([192, 0, 2, 1], port)),
            local: IpAddr::from([192, 0, 2, 9]),
            traffic_class: 0,
        }
    }
}
