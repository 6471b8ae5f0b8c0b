use super::*;

const HARD_AT_1000_BYTES: Lifetime =
    Lifetime { soft: Limits { bytes: 500, ..Limits::NONE }, hard: Limits { bytes: 1000, ..Limits::NONE } };

#[test]
fn both_directions_pass_exactly_the_hard_number_of_octets() {
    let limited = Setup { lifetime: HARD_AT_1000_BYTES, ..Setup::default() };
    let mut free = Setup::default().outbound();
    let (mut outbound, mut inbound) = (limited.outbound(), limited.inbound());
    let expected = [None, Some(LifetimeEvent::Soft), None, Some(LifetimeEvent::Hard)];
    for event in expected {
        let mut buffer = [0; 400];
        let sealed = outbound.seal(&mut buffer, 16..266, NextHeader::IPV4, 0).unwrap();
        assert_eq!(sealed.event, event);
        let packet = seal(&mut free, &[0; 250]).unwrap();
        assert_eq!(open(&mut inbound, &packet).unwrap().0.event, event);
    }
    assert_eq!(seal(&mut outbound, b"x"), Err(SealError::LifetimeExpired { first: false }));
    let packet = seal(&mut free, b"x").unwrap();
    assert_eq!(open(&mut inbound, &packet), Err(OpenError::LifetimeExpired { first: false }));
    assert_eq!((outbound.live().usage().bytes, inbound.live().usage().bytes), (1000, 1000));
}

#[test]
fn a_packet_too_large_for_the_rest_ends_the_sa_and_says_so_once() {
    let limited = Setup { lifetime: HARD_AT_1000_BYTES, ..Setup::default() };
    let mut free = Setup::default().outbound();
    let (mut outbound, mut inbound) = (limited.outbound(), limited.inbound());
    assert_eq!(seal(&mut outbound, &[0; 1001]), Err(SealError::LifetimeExpired { first: true }));
    assert_eq!(seal(&mut outbound, &[0; 1]), Err(SealError::LifetimeExpired { first: false }));
    assert_eq!(outbound.live().usage().sequence, 0, "no number was used");
    let packet = seal(&mut free, &[0; 1001]).unwrap();
    assert_eq!(open(&mut inbound, &packet), Err(OpenError::LifetimeExpired { first: true }));
}

#[test]
fn time_stops_both_directions_at_the_instant() {
    let hard = Limits { until_ns: 1000, ..Limits::NONE };
    let setup = Setup { lifetime: Lifetime { soft: Limits::NONE, hard }, ..Setup::default() };
    let (mut outbound, mut inbound) = (setup.outbound(), setup.inbound());
    let mut buffer = [0; 100];
    let sealed = outbound.seal(&mut buffer, 16..20, NextHeader::IPV4, 999).unwrap();
    inbound.open(&mut buffer, sealed.packet.clone(), 999).unwrap();
    assert_eq!((outbound.live().usage().last_ns, inbound.live().usage().last_ns), (999, 999));
    let late = outbound.seal(&mut buffer, 16..20, NextHeader::IPV4, 1000);
    assert_eq!(late, Err(SealError::LifetimeExpired { first: true }));
    let late = inbound.open(&mut buffer, sealed.packet, 1000);
    assert_eq!(late, Err(OpenError::LifetimeExpired { first: true }));
}
