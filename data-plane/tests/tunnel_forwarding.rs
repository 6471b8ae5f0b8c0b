//! Real packets between two hosts through two data planes.

mod gateway;
mod tunnel;

use portcullis_data_plane::counters::{Sink, Source};
use portcullis_data_plane::sa::Carrier;

use tunnel::{TUN, Tunnel, XDP};

#[test]
fn af_xdp_carries_both_families_in_both_over_both_carriers() {
    let tunnel = Tunnel::new(XDP);
    for (carrier, outer_v6) in
        [(Carrier::Udp, false), (Carrier::Ip, false), (Carrier::Udp, true), (Carrier::Ip, true)]
    {
        tunnel.set_path(carrier, outer_v6);
        tunnel.exchange_all(50);
    }
    tunnel.assert_balanced();
    for side in [&tunnel.a, &tunnel.b] {
        assert!(side.received(Source::Lan) >= 400, "{}", side.drops());
        assert_eq!(side.received(Source::Udp) + side.received(Source::RawIp), 0, "{}", side.drops());
    }
}

#[test]
fn tun_and_sockets_carry_both_families_in_both_over_both_carriers() {
    let tunnel = Tunnel::new(TUN);
    for (carrier, outer_v6) in
        [(Carrier::Udp, false), (Carrier::Ip, false), (Carrier::Udp, true), (Carrier::Ip, true)]
    {
        tunnel.set_path(carrier, outer_v6);
        tunnel.exchange_all(50);
    }
    tunnel.assert_balanced();
    for side in [&tunnel.a, &tunnel.b] {
        assert_eq!(side.received(Source::Lan) + side.received(Source::Wan), 0);
        assert!(side.received(Source::Udp) >= 200 && side.received(Source::RawIp) >= 200, "{}", side.drops());
        assert!(side.sent(Sink::Tun) >= 400);
    }
}
