//! The WAN program.

use portcullis_common::steer::SlotState;
use portcullis_common::{Spi, SteerWord, Verdict};
use portcullis_data_plane::bpf::Steering;
use portcullis_data_plane::config::Role;

use super::bench::{Bench, OUR_IPV4, OUR_IPV6};
use super::frames::*;

const LIVE: u32 = 0x0120_0005;
const ELSEWHERE_IPV4: [u8; 4] = [203, 0, 113, 9];
const ELSEWHERE_IPV6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
const TAG: u16 = 0x8100;
const PROVIDER_TAG: u16 = 0x88a8;

/// Without XDP sockets: in `tun` mode the kernel's sockets take ESP of live SAs.
fn bench() -> Bench {
    with(Steering::Kernel)
}

fn with(steering: Steering) -> Bench {
    let mut bench = Bench::new(Role::Wan, steering, false);
    bench.steer(SteerWord::new(Spi(LIVE), 0, SlotState::Live, 1));
    bench
}

/// Every way in which ESP of a live SA can look.
fn live_esp() -> Vec<(&'static str, Vec<u8>)> {
    let hop_by_hop: (u8, &[u8]) = (0, &[0, 1, 4, 0, 0, 0, 0]);
    let destination_options: (u8, &[u8]) = (60, &[1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    vec![
        ("ipv4", frame(&esp_in_ipv4(OUR_IPV4, LIVE))),
        ("ipv4 with options", frame(&ipv4(OUR_IPV4, 50, 10, &esp(LIVE)))),
        ("ipv4 in udp", frame(&udp_4500_in_ipv4(OUR_IPV4, &esp(LIVE)))),
        ("ipv4 in udp with options", frame(&ipv4(OUR_IPV4, 17, 3, &udp(1, 4500, &esp(LIVE))))),
        ("ipv6", frame(&esp_in_ipv6(OUR_IPV6, LIVE))),
        ("ipv6 in udp", frame(&udp_4500_in_ipv6(OUR_IPV6, &esp(LIVE)))),
        ("ipv6 with a header", frame(&ipv6(OUR_IPV6, 50, &[hop_by_hop], &esp(LIVE)))),
        ("ipv6 with headers", frame(&ipv6(OUR_IPV6, 50, &[hop_by_hop, destination_options], &esp(LIVE)))),
        (
            "ipv6 in udp with headers",
            frame(&ipv6(OUR_IPV6, 17, &[destination_options], &udp(4500, 4500, &esp(LIVE)))),
        ),
        ("one tag", ethernet(&[TAG], 0x0800, &esp_in_ipv4(OUR_IPV4, LIVE))),
        ("two tags", ethernet(&[PROVIDER_TAG, TAG], 0x86dd, &esp_in_ipv6(OUR_IPV6, LIVE))),
        ("padding", [frame(&ipv4(OUR_IPV4, 50, 0, &esp(LIVE)[..8])), vec![0; 18]].concat()),
    ]
}

#[test]
fn esp_of_a_live_sa_goes_to_our_sockets_in_tun_mode() {
    let bench = bench();
    for (name, frame) in live_esp() {
        assert_eq!(bench.run(&frame), Verdict::PassedEsp, "{name}");
    }
}

/// RFC 4301 section 5: nothing protected goes another way; and a failed redirect is never a pass.
#[test]
fn esp_of_a_live_sa_is_dropped_when_no_socket_takes_it() {
    let bench = with(Steering::Redirect);
    for (name, frame) in live_esp() {
        assert_eq!(bench.run(&frame), Verdict::NoWorker, "{name}");
    }
}

#[test]
fn an_spi_that_names_no_live_sa_is_dropped() {
    let mut bench = bench();
    let run = |bench: &Bench, spi| bench.run(&frame(&esp_in_ipv4(OUR_IPV4, spi)));
    // Another slot, another tag over the same slot, a slot beyond the table, reserved numbers.
    for spi in [LIVE + 1, LIVE ^ 0x0010_0000, 0x012f_ffff, 1, 255] {
        assert_eq!(run(&bench, spi), Verdict::UnknownSpi, "{spi:08x}");
        assert_eq!(
            bench.run(&frame(&udp_4500_in_ipv6(OUR_IPV6, &esp(spi)))),
            Verdict::UnknownSpi,
            "{spi:08x}"
        );
    }
    for state in [SlotState::Reserved, SlotState::Dead, SlotState::Free] {
        bench.steer(SteerWord::new(Spi(LIVE), 0, state, 2));
        assert_eq!(run(&bench, LIVE), Verdict::UnknownSpi, "{state:?}");
    }
    bench.steer(SteerWord::new(Spi(LIVE), 3, SlotState::Live, 9));
    assert_eq!(run(&bench, LIVE), Verdict::PassedEsp);
}

#[test]
fn esp_to_somebody_else_passes() {
    let bench = with(Steering::Redirect);
    for packet in [
        esp_in_ipv4(ELSEWHERE_IPV4, LIVE),
        esp_in_ipv4(ELSEWHERE_IPV4, 77),
        esp_in_ipv6(ELSEWHERE_IPV6, LIVE),
        udp_4500_in_ipv4(ELSEWHERE_IPV4, &esp(LIVE)),
        udp_4500_in_ipv6(ELSEWHERE_IPV6, &[0xff]),
        ipv4(ELSEWHERE_IPV4, 50, 0, &[1, 2, 3]),
    ] {
        assert_eq!(bench.run(&frame(&packet)), Verdict::PassedTransit, "{packet:02x?}");
    }
}

#[test]
fn an_address_is_ours_until_it_is_removed() {
    let mut bench = bench();
    bench.set_local_addresses(&[ELSEWHERE_IPV4.into(), OUR_IPV6.into()]);
    assert_eq!(bench.run(&frame(&esp_in_ipv4(ELSEWHERE_IPV4, LIVE))), Verdict::PassedEsp);
    assert_eq!(bench.run(&frame(&esp_in_ipv4(OUR_IPV4, LIVE))), Verdict::PassedTransit);
    bench.set_local_addresses(&[OUR_IPV4.into()]);
    assert_eq!(bench.run(&frame(&esp_in_ipv4(OUR_IPV4, LIVE))), Verdict::PassedEsp);
    assert_eq!(bench.run(&frame(&esp_in_ipv6(OUR_IPV6, LIVE))), Verdict::PassedTransit);
}

/// RFC 3948 section 2.3.
#[test]
fn a_nat_keepalive_ends_here() {
    let bench = bench();
    assert_eq!(bench.run(&frame(&udp_4500_in_ipv4(OUR_IPV4, &[0xff]))), Verdict::NatKeepalive);
    assert_eq!(bench.run(&frame(&udp_4500_in_ipv6(OUR_IPV6, &[0xff]))), Verdict::NatKeepalive);
}

/// RFC 3948 section 2.2, RFC 7296 section 2.
#[test]
fn ike_passes_on_its_port_and_behind_the_non_esp_marker() {
    let bench = bench();
    let ike = [[0; 4], [9; 4]].concat();
    assert_eq!(bench.run(&frame(&udp_4500_in_ipv4(OUR_IPV4, &ike))), Verdict::PassedIke);
    assert_eq!(bench.run(&frame(&udp_4500_in_ipv6(OUR_IPV6, &ike))), Verdict::PassedIke);
    assert_eq!(bench.run(&frame(&udp_4500_in_ipv4(OUR_IPV4, &[0; 4]))), Verdict::PassedIke);
    assert_eq!(bench.run(&frame(&ipv4(OUR_IPV4, 17, 0, &udp(500, 500, &[7; 28])))), Verdict::PassedIke);
}

#[test]
fn fragments_pass_to_be_reassembled() {
    let bench = with(Steering::Redirect);
    // More fragments; offset 185; both.
    for field in [0x2000u16, 0x00b9, 0x20b9] {
        let mut packet = esp_in_ipv4(OUR_IPV4, LIVE);
        packet[6..8].copy_from_slice(&field.to_be_bytes());
        assert_eq!(bench.run(&frame(&packet)), Verdict::PassedFragment, "{field:04x}");
    }
    let fragment: (u8, &[u8]) = (44, &[0, 0, 1, 0, 0, 0, 7]);
    let hop_by_hop: (u8, &[u8]) = (0, &[0, 1, 4, 0, 0, 0, 0]);
    for headers in [&[fragment][..], &[hop_by_hop, fragment]] {
        let packet = ipv6(OUR_IPV6, 50, headers, &esp(LIVE));
        assert_eq!(bench.run(&frame(&packet)), Verdict::PassedFragment, "{} headers", headers.len());
    }
    // DF is no fragment.
    let mut packet = esp_in_ipv4(OUR_IPV4, LIVE);
    packet[6] = 0x40;
    assert_eq!(bench.run(&frame(&packet)), Verdict::NoWorker);
}

#[test]
fn what_is_not_ours_to_judge_passes() {
    let bench = with(Steering::Redirect);
    let hop_by_hop: (u8, &[u8]) = (0, &[0, 1, 4, 0, 0, 0, 0]);
    for (name, frame) in [
        ("arp", ethernet(&[], 0x0806, &[0; 28])),
        ("ieee 802.3", ethernet(&[], 38, &[0x42; 46])),
        ("three tags", ethernet(&[TAG; 3], 0x0800, &esp_in_ipv4(OUR_IPV4, LIVE))),
        ("tcp 4500", frame(&ipv4(OUR_IPV4, 6, 0, &tcp(4500, 0x10)))),
        ("tcp 4500 cut short", frame(&ipv4(OUR_IPV4, 6, 0, &[0x11, 0x94, 0x11, 0x94, 0, 0, 0, 0]))),
        ("a connection to somebody else", frame(&ipv4(ELSEWHERE_IPV4, 6, 0, &tcp(4500, 0x02)))),
        ("udp 500 to somebody else", frame(&ipv4(ELSEWHERE_IPV4, 17, 0, &udp(500, 500, &[7; 28])))),
        ("udp from 4500", frame(&ipv4(OUR_IPV4, 17, 0, &udp(4500, 53, &[7; 28])))),
        ("icmp", frame(&ipv4(OUR_IPV4, 1, 0, &[8, 0, 0, 0, 0, 0, 0, 0]))),
        ("neighbour solicitation", frame(&ipv6(OUR_IPV6, 58, &[], &[135; 24]))),
        ("no next header", frame(&ipv6(OUR_IPV6, 59, &[], &[]))),
        ("ah", frame(&ipv6(OUR_IPV6, 51, &[], &[50, 4, 0, 0]))),
        ("deep headers", frame(&ipv6(OUR_IPV6, 50, &[hop_by_hop; 9], &esp(LIVE)))),
        ("clear text to a host", frame(&ipv4([10, 1, 2, 3], 1, 0, &[8, 0, 0, 0, 0, 0, 0, 0]))),
    ] {
        assert_eq!(bench.run(&frame), Verdict::PassedOther, "{name}");
    }
}

#[test]
fn malformed_headers_are_dropped() {
    let bench = bench();
    let patched = |mut packet: Vec<u8>, offset: usize, value: u8| {
        packet[offset] = value;
        frame(&packet)
    };
    let v4 = || esp_in_ipv4(OUR_IPV4, LIVE);
    let v6 = || esp_in_ipv6(OUR_IPV6, LIVE);
    let long_header: (u8, &[u8]) = (60, &[200, 1, 4, 0, 0, 0, 0]);
    for (name, frame) in [
        ("tag cut short", ethernet(&[TAG], 0x0800, &[])[..16].to_vec()),
        ("second tag cut short", ethernet(&[TAG, TAG], 0x0800, &[])[..20].to_vec()),
        ("no ipv4 header", ethernet(&[], 0x0800, &[0x45; 19])),
        ("ipv4 of version 5", patched(v4(), 0, 0x55)),
        ("ipv4 with a header of 16", patched(v4(), 0, 0x44)),
        ("ipv4 with a header beyond the packet", patched(ipv4(OUR_IPV4, 50, 0, &[]), 0, 0x4f)),
        ("ipv4 longer than the frame", patched(v4(), 2, 0x7f)),
        ("ipv4 shorter than its header", patched(v4(), 3, 19)),
        ("no ipv6 header", ethernet(&[], 0x86dd, &[0x60; 39])),
        ("ipv6 of version 4", ethernet(&[], 0x86dd, &v4())),
        ("ipv6 longer than the frame", patched(v6(), 4, 0x7f)),
        ("extension header beyond the packet", frame(&ipv6(OUR_IPV6, 50, &[long_header], &esp(LIVE)))),
        ("extension header cut short", frame(&ipv6(OUR_IPV6, 0, &[], &[]))),
        ("udp header cut short", frame(&ipv4(OUR_IPV4, 17, 0, &[0x11, 0x94, 0x11, 0x94]))),
        ("udp longer than its packet", patched(udp_4500_in_ipv4(OUR_IPV4, &esp(LIVE)), 24, 0x7f)),
        ("udp shorter than its header", patched(udp_4500_in_ipv4(OUR_IPV4, &esp(LIVE)), 25, 7)),
        ("udp 4500 without payload", frame(&udp_4500_in_ipv4(OUR_IPV4, &[]))),
        ("one octet that is no keepalive", frame(&udp_4500_in_ipv4(OUR_IPV4, &[0xfe]))),
        ("udp 500 longer than its packet", patched(ipv4(OUR_IPV4, 17, 0, &udp(500, 500, &[7; 28])), 24, 1)),
        ("udp 500 shorter than its header", patched(ipv4(OUR_IPV4, 17, 0, &udp(500, 500, &[7; 28])), 25, 7)),
        ("two octets", frame(&udp_4500_in_ipv6(OUR_IPV6, &[0xff, 0xff]))),
        ("esp without sequence number", frame(&ipv4(OUR_IPV4, 50, 0, &esp(LIVE)[..7]))),
        ("esp of nothing", frame(&ipv6(OUR_IPV6, 50, &[], &[]))),
        ("esp in udp without sequence number", frame(&udp_4500_in_ipv4(OUR_IPV4, &esp(LIVE)[..6]))),
    ] {
        assert_eq!(bench.run(&frame), Verdict::Malformed, "{name}");
    }
}

/// Frames that the driver hands over in several buffers.
#[test]
fn a_jumbo_frame_is_steered_by_its_headers() {
    let bench = bench();
    let payload = [esp(LIVE), vec![0x5a; 8900]].concat();
    assert_eq!(bench.run(&frame(&ipv4(OUR_IPV4, 50, 0, &payload))), Verdict::PassedEsp);
    assert_eq!(bench.run(&frame(&ipv6(OUR_IPV6, 50, &[], &payload))), Verdict::PassedEsp);
    let mut packet = ipv4(OUR_IPV4, 50, 0, &payload);
    packet[2] = 0xff;
    assert_eq!(bench.run(&frame(&packet)), Verdict::Malformed);
}
