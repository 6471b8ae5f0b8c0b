use super::*;

const BOUNDARY: u64 = 1 << 32;

/// RFC 4303 section 2.2.1: only the low 32 bits travel; the receiver follows across 2^32.
#[test]
fn a_stream_crosses_the_boundary_without_loss_even_out_of_order() {
    let setup = Setup { sequence: BOUNDARY - 50, window: Some(128), ..Setup::default() };
    let (mut outbound, mut inbound) = (setup.outbound(), setup.inbound());
    let packets: Vec<_> = (0..100).map(|_| seal(&mut outbound, b"x").unwrap()).collect();
    // Blocks of ten, each backwards.
    for block in packets.chunks(10) {
        for packet in block.iter().rev() {
            open(&mut inbound, packet).unwrap();
        }
    }
    for packet in &packets {
        assert_eq!(open(&mut inbound, packet), Err(OpenError::Replay));
    }
    let usage = inbound.live().usage();
    assert_eq!((usage.packets, usage.replays, usage.sequence), (100, 100, BOUNDARY + 50));
}

/// RFC 4303 appendix A2.2: below the window a number means the next subspace, so only the ICV can refuse it.
#[test]
fn a_packet_below_the_window_fails_authentication() {
    let setup = Setup { window: Some(64), ..Setup::default() };
    let (mut outbound, mut inbound) = (setup.outbound(), setup.inbound());
    let packets: Vec<_> = (0..100).map(|_| seal(&mut outbound, b"x").unwrap()).collect();
    open(&mut inbound, &packets[99]).unwrap();
    assert_eq!(open(&mut inbound, &packets[0]), Err(OpenError::IcvFailure));
    assert_eq!(inbound.live().usage().sequence, 100);
}

#[test]
fn a_gap_below_2_to_the_32_is_followed() {
    let window = Some(64);
    let mut inbound = Setup { sequence: 1000, window, ..Setup::default() }.inbound();
    let far = 1000 + BOUNDARY - 64;
    let packet = seal(&mut Setup { sequence: far - 1, ..Setup::default() }.outbound(), b"x").unwrap();
    assert_eq!(open(&mut inbound, &packet).unwrap().0.sequence, far);
}

#[test]
fn without_a_window_the_nearest_number_is_taken() {
    let mut inbound = Setup { sequence: BOUNDARY + 5, window: None, ..Setup::default() }.inbound();
    for sequence in [BOUNDARY - 100_000, BOUNDARY + 100_000] {
        let setup = Setup { sequence: sequence - 1, ..Setup::default() };
        let packet = seal(&mut setup.outbound(), b"x").unwrap();
        assert_eq!(open(&mut inbound, &packet).unwrap().0.sequence, sequence);
    }
}

/// RFC 4303 section 3.3.3: the sender must not let the counter cycle.
#[test]
fn the_last_number_is_used_once_and_never_wraps() {
    for (esn, last) in [(false, u64::from(u32::MAX)), (true, u64::MAX)] {
        let setup = Setup { esn, sequence: last - 2, ..Setup::default() };
        let (mut outbound, mut inbound) = (setup.outbound(), setup.inbound());
        for sequence in [last - 1, last] {
            let packet = seal(&mut outbound, b"x").unwrap();
            assert_eq!(open(&mut inbound, &packet).unwrap().0.sequence, sequence);
        }
        let used = outbound.live().usage();
        assert_eq!(seal(&mut outbound, b"x"), Err(SealError::SequenceExhausted { first: true }));
        let again = seal(&mut outbound, b"x");
        assert!(matches!(again, Err(SealError::LifetimeExpired { first: false })), "{again:?}");
        assert_eq!(outbound.live().usage(), used);
    }
}

#[test]
fn a_rekey_is_asked_for_before_the_numbers_run_out() {
    let mut sa = Setup { esn: false, ..Setup::default() }.outbound();
    let three_quarters = u64::from(u32::MAX) / 4 * 3;
    for (packets, event) in [(three_quarters - 2, None), (three_quarters - 1, Some(LifetimeEvent::Soft))] {
        write(&sa.live().packets, packets);
        let sealed = sa.seal(&mut [0; 100], 16..20, NextHeader::IPV4, 0).unwrap();
        assert_eq!(sealed.event, event);
    }
}
