//! Round trips of one IKE SA, by what carries them.

use core::time::Duration;

use crate::path::EspTransport;

/// A path that takes longer is taken for this long: one slow answer does not put a decision off.
const LONGEST: Duration = Duration::from_secs(5);

/// Smoothed round-trip times of echoes and of IKE exchanges.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct RoundTrips {
    ip: Option<Duration>,
    udp: Option<Duration>,
    tcp: Option<Duration>,
    ike: Option<Duration>,
}

impl RoundTrips {
    /// An echo came back after this time.
    pub(crate) fn echo(&mut self, carrier: EspTransport, sample: Duration) {
        let slot = match carrier {
            EspTransport::Ip => &mut self.ip,
            EspTransport::Udp => &mut self.udp,
            EspTransport::Tcp => &mut self.tcp,
        };
        smooth(slot, sample);
    }

    /// A request of ours that was sent once was answered after this time.
    pub(crate) fn ike(&mut self, sample: Duration) {
        smooth(&mut self.ike, sample);
    }

    /// The estimate for a carrier, from echoes alone.
    pub(crate) fn of(&self, carrier: EspTransport) -> Option<Duration> {
        match carrier {
            EspTransport::Ip => self.ip,
            EspTransport::Udp => self.udp,
            EspTransport::Tcp => self.tcp,
        }
    }

    /// One round trip to the peer for a budget: the longest estimate of a direct carrier, else that of IKE.
    pub(crate) fn budget(&self) -> Duration {
        self.ip.max(self.udp).or(self.ike).unwrap_or_default().min(LONGEST)
    }
}

/// RFC 6298 section 2: an eighth of what is new.
fn smooth(slot: &mut Option<Duration>, sample: Duration) {
    *slot = Some(slot.map_or(sample, |old| (old * 7 + sample) / 8));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_follows_its_samples_and_ike_stands_in_for_echoes() {
        let ms = Duration::from_millis;
        let mut rtt = RoundTrips::default();
        assert_eq!(rtt.budget(), Duration::ZERO);
        rtt.ike(ms(30));
        assert_eq!((rtt.budget(), rtt.of(EspTransport::Udp)), (ms(30), None));
        rtt.echo(EspTransport::Udp, ms(80));
        rtt.echo(EspTransport::Udp, ms(160));
        assert_eq!(rtt.of(EspTransport::Udp), Some(ms(90)));
        assert_eq!(rtt.budget(), ms(90));
    }
}
