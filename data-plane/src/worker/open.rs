//! ESP packets for SAs of ours: find the owner, open, check, and pass on (RFC 4301 section 5.2).

use portcullis_common::{DropReason, Spi};
use portcullis_esp::{NextHeader, OpenError, packet_spi};

use super::Worker;
use super::batch::Batch;
use super::facts::Arrival;
use super::load::Direction;
use super::moving::Deferred;
use super::seal::clamp_mss;
use super::work::{Open, Packet, Work};
use crate::event::DataPlaneEvent;
use crate::packet::inner::set_traffic_class;
use crate::packet::{Inner, IpVersion, ecn, mss};
use crate::sa::Carrier;
use crate::sa_table::{Found, SaInfo, SaName};
use crate::spd::{SelectorMatch, admits};
use crate::tap::{Place, Point};

impl Worker {
    /// Takes an ESP packet, from its SPI on, to the owner of its SA.
    #[inline]
    pub(super) fn take_esp(&mut self, batch: &Batch<'_>, packet: Packet, arrival: Arrival) {
        let is_udp = arrival.carrier == Carrier::Udp;
        batch.counters().esp_received[usize::from(is_udp)].count(packet.len());
        let Some(spi) = packet_spi(packet.bytes(batch.umem)) else {
            return self.discard(batch, packet, DropReason::EspTooShort);
        };
        match self.sas.inbound(spi) {
            Found::Mine(_) => self.open_here(batch, packet, spi, &arrival),
            Found::Other(owner) => self.hand_over(batch, owner, Work::Open(Open { packet, spi, arrival })),
            Found::Coming => {
                let work = Work::Open(Open { packet, spi, arrival });
                self.defer(batch, SaName::Inbound(spi), Deferred::Work(work));
            }
            Found::Unknown => self.discard(batch, packet, DropReason::StaleSa),
        }
    }

    /// Opens a packet of an SA that is ours.
    pub(super) fn open(&mut self, batch: &Batch<'_>, open: Open) {
        let Open { packet, spi, arrival } = open;
        self.open_here(batch, packet, spi, &arrival);
    }

    fn open_here(&mut self, batch: &Batch<'_>, mut packet: Packet, spi: Spi, arrival: &Arrival) {
        let Found::Mine(sa) = self.sas.inbound(spi) else {
            return self.discard(batch, packet, DropReason::StaleSa);
        };
        let child = sa.info.child;
        self.load.note(batch.mailbox, child, Direction::Inbound, packet.len());
        if let Some(tap) = batch.tap {
            let place = place(Point::EspIn, &sa.info, spi, arrival.carrier);
            tap.see_arrived(&place, packet.bytes(batch.umem), arrival);
        }
        let opened = packet.edit(batch.umem, |p| {
            let (buffer, range) = p.parts_mut();
            let opened = sa.esp.open(buffer, range, batch.now_ns())?;
            if p.set_range(opened.inner.clone()) { Ok(opened) } else { Err(OpenError::BadPadding) }
        });
        let opened = match &opened {
            Some(Ok(opened)) => opened,
            Some(Err(error)) => {
                if matches!(error, OpenError::LifetimeExpired { first: true }) {
                    batch.notify(DataPlaneEvent::HardLifetime { child });
                }
                return self.discard(batch, packet, (*error).into());
            }
            None => return self.discard(batch, packet, OpenError::TooShort.into()),
        };
        let is_highest = opened.is_highest;
        let is_echo = opened.next_header == NextHeader::AGGFRAG;
        let facts = if is_echo { &mut sa.extra.echo.facts } else { &mut sa.extra.facts };
        if facts.is_news(arrival, is_highest, batch.now) {
            let Arrival { carrier, source, local, .. } = *arrival;
            let event = DataPlaneEvent::Inbound { child, spi, carrier, source, local, is_highest, is_echo };
            if batch.notify(event) {
                facts.reported(arrival, is_highest, batch.now);
            }
        }
        batch.notify_lifetime(child, opened.event);
        if matches!(arrival.carrier, Carrier::Stream(_)) && !sa.extra.path.current().path.takes_tcp {
            return self.discard(batch, packet, DropReason::CarrierRefused);
        }
        if is_echo {
            return self.take_aggfrag(batch, packet, spi, *arrival);
        }
        let (selectors, tun, path) = (&sa.info.selectors, sa.extra.tun, &sa.extra.path);
        let parsed = Inner::parse(packet.bytes(batch.umem));
        let checked =
            check(&parsed, opened.next_header, |inner| admits(selectors, inner)).and_then(|inner| {
                let class = ecn::decapsulate(inner.traffic_class, arrival.traffic_class)
                    .ok_or(DropReason::EcnMarked)?;
                Ok((inner, class))
            });
        let (inner, class) = match checked {
            Ok(checked) => checked,
            Err(reason) => return self.discard(batch, packet, reason),
        };
        if let Some(tap) = batch.tap {
            let place = place(Point::ClearIn, &sa.info, spi, arrival.carrier);
            tap.see(&place, packet.bytes(batch.umem).get(..inner.total_len).unwrap_or_default());
        }
        // A SYN says how long the answers may be; nothing else needs to know the tunnel.
        let is_syn = mss::is_syn(packet.bytes(batch.umem), inner);
        let tunnel = if is_syn { path.current().header.clone() } else { None };
        let path_mtu = path.mtu.of(usize::from(u16::MAX));
        packet.edit(batch.umem, |p| {
            // Behind the inner packet there may be padding for confidentiality (RFC 4303 section 2.7).
            p.truncate(inner.total_len);
            if class != inner.traffic_class {
                set_traffic_class(p.bytes_mut(), inner.version, class);
            }
        });
        if let Some(header) = tunnel {
            let mtu = header.inner_mtu(self.next_hop(batch, header.destination()).mtu().min(path_mtu));
            clamp_mss(batch.umem, &mut packet, inner, mtu);
        }
        self.forward(batch, packet, inner, tun);
    }
}

fn place(point: Point, info: &SaInfo, spi: Spi, carrier: Carrier) -> Place<'_> {
    Place { point, policy: &info.policy, spi, in_tcp: matches!(carrier, Carrier::Stream(_)) }
}

/// RFC 4301 section 5.2 steps 3 and 4: an IP packet, and inside what was negotiated.
#[inline]
fn check(
    parsed: &Option<Inner>,
    next_header: NextHeader,
    selectors: impl FnOnce(&Inner) -> SelectorMatch,
) -> Result<&Inner, DropReason> {
    let expected = match next_header {
        NextHeader::IPV4 => IpVersion::V4,
        NextHeader::IPV6 => IpVersion::V6,
        NextHeader::DUMMY => return Err(DropReason::Dummy),
        _ => return Err(DropReason::InnerProtocol),
    };
    let inner = parsed.as_ref().filter(|inner| inner.version == expected);
    let inner = inner.ok_or(DropReason::InnerMalformed)?;
    match selectors(inner) {
        SelectorMatch::Yes => Ok(inner),
        SelectorMatch::No => Err(DropReason::OutsideSelectors),
        SelectorMatch::PortsUnknown => Err(DropReason::FragmentPorts),
    }
}
