//! One SA with several owners that seal at the same time.

use std::thread;

use super::*;

const OWNERS: usize = 4;

/// RFC 4106 section 3.1, RFC 4303 section 3.3.3: no number twice and none left out, whoever seals.
#[test]
fn several_owners_use_each_number_once() {
    let sealed = seal_by_all(Lifetime::default(), true, 0, 5000, 100);
    let mut numbers: Vec<_> = sealed.packets.iter().map(|sealed| sealed.0).collect();
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(1..=4 * 5000));
    assert_eq!(sealed.usage.packets, 4 * 5000);
    assert_eq!(sealed.usage.bytes, 4 * 5000 * 100);
    let setup = Setup { window: Some(65_536), ..Setup::default() };
    let mut inbound = setup.inbound();
    for (number, packet) in &sealed.packets {
        assert_eq!(open(&mut inbound, packet).unwrap().0.sequence, *number);
    }
}

#[test]
fn hard_limits_hold_exactly_whoever_seals_and_each_event_comes_once() {
    let packets = Lifetime {
        soft: Limits { packets: 1000, ..Limits::NONE },
        hard: Limits { packets: 3001, ..Limits::NONE },
    };
    let octets = Lifetime {
        soft: Limits { bytes: 100_000, ..Limits::NONE },
        hard: Limits { bytes: 300_100, ..Limits::NONE },
    };
    for lifetime in [packets, octets] {
        let sealed = seal_by_all(lifetime, true, 0, 5000, 100);
        assert_eq!((sealed.packets.len(), sealed.usage.packets, sealed.usage.bytes), (3001, 3001, 300_100));
        let count = |event| sealed.events.iter().filter(|seen| **seen == event).count();
        assert_eq!(count(LifetimeEvent::Soft), 1);
        // Whoever seals the last packet says so, unless one that is refused was quicker.
        assert_eq!(count(LifetimeEvent::Hard) + sealed.first_errors, 1);
    }
    // What does not fit ends it, and one owner says so.
    let octets = Lifetime { soft: Limits::NONE, hard: Limits { bytes: 300_050, ..Limits::NONE } };
    let sealed = seal_by_all(octets, true, 0, 5000, 100);
    assert_eq!((sealed.packets.len(), sealed.usage.bytes, sealed.first_errors), (3000, 300_000, 1));
}

/// RFC 4303 section 3.3.3: without ESN the last number is 2^32 - 1.
#[test]
fn several_owners_stop_at_the_last_number() {
    let before = u64::from(u32::MAX) - 1000;
    let sealed = seal_by_all(Lifetime::default(), false, before, 5000, 8);
    assert_eq!((sealed.packets.len(), sealed.usage.packets, sealed.usage.bytes), (1000, 1000, 8000));
    assert_eq!((sealed.usage.sequence, sealed.first_errors), (u64::from(u32::MAX), 1));
}

struct SealedByAll {
    packets: Vec<(u64, Vec<u8>)>,
    events: Vec<LifetimeEvent>,
    /// Errors that called themselves the first.
    first_errors: usize,
    usage: Usage,
}

/// Every owner tries to seal `tries` packets of `len` octets.
fn seal_by_all(lifetime: Lifetime, esn: bool, sequence: u64, tries: usize, len: usize) -> SealedByAll {
    let live = Arc::new(OutboundLive::default());
    write(&live.sequence, sequence);
    let parameters = OutboundParameters { spi: SPI, esn, lifetime };
    let of_owners: Vec<_> = thread::scope(|scope| {
        let owners: Vec<_> = (0..OWNERS)
            .map(|_| {
                let mut sa = Outbound::shared(parameters, keymat(Algorithm::Aes256Gcm16), live.clone());
                scope.spawn(move || (0..tries).map(|_| try_to_seal(&mut sa, len)).collect::<Vec<_>>())
            })
            .collect();
        owners.into_iter().flat_map(|owner| owner.join().unwrap()).collect()
    });
    let first_errors = of_owners.iter().filter(|result| {
        matches!(
            result,
            Err(SealError::LifetimeExpired { first: true } | SealError::SequenceExhausted { first: true })
        )
    });
    let first_errors = first_errors.count();
    let (mut packets, mut events) = (Vec::new(), Vec::new());
    for (sealed, bytes) in of_owners.into_iter().flatten() {
        packets.push((sealed.sequence, bytes));
        events.extend(sealed.event);
    }
    SealedByAll { packets, events, first_errors, usage: live.usage() }
}

fn try_to_seal(sa: &mut TestOutbound, len: usize) -> Result<(Sealed, Vec<u8>), SealError> {
    let mut buffer = vec![0; HEAD_LEN + len + MAX_TAIL_LEN];
    let sealed = sa.seal(&mut buffer, HEAD_LEN..HEAD_LEN + len, NextHeader::IPV4, 0)?;
    let bytes = buffer[sealed.packet.clone()].to_vec();
    Ok((sealed, bytes))
}
