//! Peers that do not fit, and peers that are none: each failure has its cause in status and counters, and costs little.

use std::net::SocketAddr;
use std::time::Duration;

use portcullis_ike::command::CommandKind;
use portcullis_ike::config::{
    ChildConfig, Identity, LocalAuth, RemoteAuth, Secret, StartMode, StartTransport,
};
use portcullis_ike::event::Event;
use portcullis_ike::path::{StreamId, UdpPath};
use portcullis_ike::status::{Reason, State};

use crate::configuration::{B, Pair, child, first_datagram};
use crate::world::World;

const STARTS: [StartTransport; 3] = [StartTransport::Udp, StartTransport::UdpThenTcp, StartTransport::Tcp];

/// RFC 7296 section 2.21.2.
#[test]
fn a_wrong_secret_fails_on_both_sides_within_seconds() {
    for transport in STARTS {
        let mut pair = Pair::new(transport);
        pair.b.remote_auth = RemoteAuth::Psk(Secret::new(b"another".to_vec()));
        fails(pair.world(1), Reason::AuthenticationFailed, Some(Reason::AuthenticationFailed));
        // The responder's own proof is wrong.
        let mut pair = Pair::new(transport);
        pair.b.local_auth = LocalAuth::Psk(Secret::new(b"another".to_vec()));
        fails(pair.world(1), Reason::AuthenticationFailed, Some(Reason::AuthenticationFailed));
    }
}

#[test]
fn no_common_proposal_is_named() {
    for transport in STARTS {
        let mut pair = Pair::new(transport);
        pair.b.ike.proposals = vec!["aes128gcm16-prfsha256-ecp256".parse().unwrap()];
        fails(pair.world(1), Reason::NoProposalChosen, Some(Reason::NoProposalChosen));
        let mut pair = Pair::new(transport);
        pair.b.children[0].proposals = vec!["aes128gcm16".parse().unwrap()];
        fails(pair.world(1), Reason::NoProposalChosen, Some(Reason::NoProposalChosen));
    }
}

#[test]
fn no_common_selectors_is_named() {
    for transport in STARTS {
        let mut pair = Pair::new(transport);
        pair.b.children[0].remote_ts = vec!["10.99.0.0/16".parse().unwrap()];
        fails(pair.world(1), Reason::TsUnacceptable, Some(Reason::TsUnacceptable));
    }
}

/// One child has no room while another is up: status names it, the other goes on, and it comes once there is room. On
/// either end: RFC 7296 section 1.3, NO_ADDITIONAL_SAS.
#[test]
fn a_child_without_room_is_named_and_comes_when_there_is_some() {
    for full in [0, 1] {
        let mut pair = Pair::new(StartTransport::Tcp).both(|connection| {
            connection.ike.retry_min = Duration::from_millis(200);
            connection.ike.retry_max = Duration::from_secs(1);
        });
        let mut extra = |name: &str, octet: u8| {
            let (a, b) = (format!("10.1.{octet}.0/24"), format!("10.2.{octet}.0/24"));
            pair.a.children.push(ChildConfig { start: StartMode::Always, ..child(name, &a, &b) });
            pair.b.children.push(child(name, &b, &a));
        };
        extra("more", 1);
        for connection in [&mut pair.a, &mut pair.b] {
            let (a, b) = ("10.1.0.0/24", "10.2.0.0/24");
            let (local, remote) =
                if connection.local_id == Identity::Fqdn("a".into()) { (a, b) } else { (b, a) };
            connection.children[0].local_ts = vec![local.parse().unwrap()];
            connection.children[0].remote_ts = vec![remote.parse().unwrap()];
        }
        let mut world = pair.world(1);
        world.nodes[full].spis.lock().unwrap().slots = Some(1);
        world.run_for(Duration::from_secs(5));
        let status = world.status(0);
        let up: Vec<_> = status.ike_sas[0].children.iter().map(|child| &*child.name).collect();
        assert_eq!(up.len(), 1, "{up:?}");
        let missing = if up == ["net"] { "more" } else { "net" };
        assert!(status.detail.starts_with(&format!("child {missing}: ")), "{}", status.detail);
        assert!(status.detail.contains("room for another SA"), "{}", status.detail);
        let named = |event: &Event| matches!(event, Event::ChildFailed { reason: Reason::LocalLimit, .. });
        assert!(world.saw(0, named) > 0);

        world.nodes[full].spis.lock().unwrap().slots = None;
        world.run_for(Duration::from_secs(5));
        let status = world.status(0);
        assert_eq!((status.ike_sas.len(), status.ike_sas[0].children.len()), (1, 2));
        assert_eq!(status.detail, "");
        world.shut_down_and_check();
    }
}

/// RFC 7296 section 2.9.
#[test]
fn selectors_are_narrowed_to_what_both_allow() {
    let mut pair = Pair::new(StartTransport::UdpThenTcp);
    pair.a.children[0].local_ts = vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
    pair.a.children[0].remote_ts = vec!["0.0.0.0/0".parse().unwrap()];
    pair.b.children[0].remote_ts =
        vec!["10.1.0.0/16[tcp/80]".parse().unwrap(), "2001:db8:1::/48".parse().unwrap()];
    let mut world = pair.world(1);
    world.run_for(Duration::from_secs(5));
    world.assert_settled(1);
    let (local, remote) = world.status(0).ike_sas[0].children[0].selectors.clone();
    let text = |ts: &[portcullis_ike::codec::TrafficSelector]| {
        ts.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(text(&local), ["10.1.0.0/16[tcp/80]", "2001:db8:1::/48"]);
    assert_eq!(text(&remote), ["10.2.0.0/16"]);
    world.shut_down_and_check();
}

/// RFC 7296 section 1.2: INVALID_KE_PAYLOAD, over UDP and TCP, without closing the stream.
#[test]
fn another_key_exchange_method_is_taken_when_asked_for() {
    for transport in STARTS {
        let mut pair = Pair::new(transport);
        pair.a.ike.proposals = vec!["aes256gcm16-prfsha384-x25519-ecp384".parse().unwrap()];
        pair.b.ike.proposals = vec!["aes256gcm16-prfsha384-ecp384".parse().unwrap()];
        let mut world = pair.world(1);
        world.run_for(Duration::from_secs(5));
        world.assert_settled(1);
        assert_eq!(world.status(0).ike_sas[0].algorithms, "aes256gcm16-prfsha384-ecp384");
        assert!(world.nodes[1].accepted <= 1);
        world.shut_down_and_check();
    }
}

#[test]
fn every_algorithm_makes_a_tunnel() {
    for (ike, esp) in [
        ("aes128gcm16-prfsha256-ecp256", "aes128gcm16-ecp256"),
        ("aes256gcm16-prfsha384-ecp384-ke1_mlkem1024", "aes256gcm16-ecp384-esn"),
        ("chacha20poly1305-prfsha512-x25519-ke1_mlkem512-ke3_mlkem768", "chacha20poly1305-x25519"),
        ("aes256gcm16-prfsha512-mlkem768", "aes256gcm16-mlkem768"),
    ] {
        let pair = Pair::new(StartTransport::UdpThenTcp).both(|connection| {
            connection.ike.proposals = vec![ike.parse().unwrap()];
            connection.children[0].proposals = vec![esp.parse().unwrap()];
        });
        let mut world = pair.world(1);
        world.run_for(Duration::from_secs(5));
        world.assert_settled(1);
        assert_eq!(world.status(1).ike_sas[0].algorithms, ike);
        world.command(0, portcullis_ike::command::CommandKind::RekeyChild { child: None });
        world.command(0, portcullis_ike::command::CommandKind::RekeyIke);
        world.run_for(Duration::from_secs(10));
        world.assert_settled(1);
        assert_eq!(world.status(1).ike_sas[0].children[0].algorithms, esp);
        world.shut_down_and_check();
    }
}

/// RFC 7383: over UDP nothing is longer than the fragment size, and it arrives through loss, doubling and reordering.
#[test]
fn large_messages_leave_in_fragments_over_udp() {
    for seed in 0..30 {
        let pair = Pair::new(StartTransport::Udp).both(|connection| {
            connection.ike.proposals = vec!["aes256gcm16-prfsha384-x25519-ke1_mlkem1024".parse().unwrap()];
            connection.ike.fragment_size = 576;
        });
        let mut world = pair.world(seed);
        world.weather.mtu = 600;
        world.weather.loss = 10;
        world.weather.duplicates = 20;
        world.weather.jitter = Duration::from_millis(50);
        world.run_for(Duration::from_secs(200));
        world.weather.loss = 0;
        world.run_for(Duration::from_secs(120));
        world.assert_settled(1);
        assert!(world.largest_datagram <= 576, "{}", world.largest_datagram);
        world.shut_down_and_check();
    }
}

/// RFC 7296 section 2.6: above the threshold a cookie is asked for over UDP and nothing is kept before it.
#[test]
fn a_flood_over_udp_meets_cookies_and_a_real_peer_passes() {
    let mut pair = Pair::new(StartTransport::UdpThenTcp);
    pair.b.remote_address = portcullis_ike::config::RemoteAddress::Any;
    pair.config_b.cookie_threshold = 5;
    let first = first_datagram(StartTransport::UdpThenTcp);
    let mut world = pair.world(1);
    for n in 0..1000_u32 {
        let mut forged = first.clone();
        forged[4..8].copy_from_slice(&n.to_be_bytes());
        let source = SocketAddr::from(([10, (n >> 8) as u8, n as u8, 1], 4500));
        let now = world.now;
        let path = UdpPath { local: SocketAddr::new(B, 4500), remote: source };
        world.nodes[1].endpoint.handle_datagram(now, path, &forged);
    }
    let counters = world.nodes[1].endpoint.counters();
    assert_eq!((counters.half_open, counters.cookies_sent), (5, 995));
    world.run_for(Duration::from_secs(5));
    world.assert_settled(1);
    assert!(
        world.nodes[1].endpoint.counters().cookies_sent > 995,
        "the real peer was asked too, and answered"
    );
    world.run_for(Duration::from_secs(60));
    assert_eq!(world.nodes[1].endpoint.counters().half_open, 0, "half-open IKE SAs time out");
    world.shut_down_and_check();
}

/// A source prefix that floods is limited by itself.
#[test]
fn half_open_ike_sas_are_limited_by_source_prefix() {
    let mut pair = Pair::new(StartTransport::UdpThenTcp);
    pair.b.remote_address = portcullis_ike::config::RemoteAddress::Any;
    pair.config_b.max_half_open_per_prefix = 3;
    pair.config_b.cookie_threshold = 1000;
    let first = first_datagram(StartTransport::UdpThenTcp);
    let mut world = pair.world(1);
    for n in 0..50 {
        let mut forged = first.clone();
        forged[4] = n;
        let path =
            UdpPath { local: SocketAddr::new(B, 4500), remote: SocketAddr::from(([10, 0, 0, n], 4500)) };
        let now = world.now;
        world.nodes[1].endpoint.handle_datagram(now, path, &forged);
    }
    let counters = world.nodes[1].endpoint.counters();
    assert_eq!((counters.half_open, counters.rejected["too_many_half_open"]), (3, 47));
    world.run_for(Duration::from_secs(5));
    world.assert_settled(1);
    world.shut_down_and_check();
}

/// What strangers make us keep is bounded in octets too, whatever their messages hold.
#[test]
fn the_memory_of_strangers_is_bounded() {
    let mut pair = Pair::new(StartTransport::UdpThenTcp);
    pair.b.remote_address = portcullis_ike::config::RemoteAddress::Any;
    pair.config_b.cookie_threshold = 1000;
    pair.config_b.max_stranger_bytes = 10_000;
    let first = first_datagram(StartTransport::UdpThenTcp);
    let mut world = pair.world(1);
    for n in 0..100 {
        let mut forged = first.clone();
        forged[4] = n;
        let remote = SocketAddr::from(([10, 0, n, 1], 4500));
        let now = world.now;
        let path = UdpPath { local: SocketAddr::new(B, 4500), remote };
        world.nodes[1].endpoint.handle_datagram(now, path, &forged);
    }
    let counters = world.nodes[1].endpoint.counters();
    assert!((5000..=10_000).contains(&counters.stranger_bytes), "{}", counters.stranger_bytes);
    assert_eq!(counters.half_open + counters.rejected["stranger_memory"], 100);
    world.run_for(Duration::from_secs(60));
    world.run_for(Duration::from_secs(60));
    assert_eq!(world.nodes[1].endpoint.counters().stranger_bytes, 0);
    world.assert_settled(1);
    world.shut_down_and_check();
}

/// Transport policy, "IKE over TCP": strangers.
#[test]
fn strangers_on_tcp_are_closed_in_time_and_limited() {
    let mut pair = Pair::new(StartTransport::UdpThenTcp);
    pair.config_b.max_stranger_streams_per_prefix = 4;
    let mut world = pair.world(1);
    world.run_for(Duration::from_secs(1));
    let remote = SocketAddr::from(([203, 0, 113, 1], 1000));
    let local = SocketAddr::new(B, 4500);
    for n in 0..10 {
        let now = world.now;
        world.nodes[1].endpoint.handle_stream_up(now, StreamId::accepted(1000 + n), local, remote);
    }
    assert_eq!(world.nodes[1].endpoint.counters().stranger_streams, 4);
    let now = world.now;
    world.nodes[1].endpoint.handle_stream_bytes(now, StreamId::accepted(1000), b"GET / HTTP/1.0\r\n\r\n");
    assert_eq!(world.nodes[1].endpoint.counters().stranger_streams, 3);
    world.nodes[1].endpoint.handle_stream_bytes(now, StreamId::accepted(1001), b"IKETCP\xff\xff");
    assert_eq!(world.nodes[1].endpoint.counters().stranger_streams, 2, "longer than a stranger may send");
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.nodes[1].endpoint.counters().stranger_streams, 0);
    world.assert_settled(1);
    world.shut_down_and_check();
}

/// Any change to any message, or any octets at all: no panic, and the two ends still come together.
#[test]
fn mutated_messages_do_no_harm() {
    for transport in STARTS {
        for seed in 0..40 {
            let mut world = Pair::new(transport).world(seed);
            world.mutations = 15;
            world.traffic = Some(Duration::from_millis(100));
            world.run_for(Duration::from_secs(100));
            world.mutations = 0;
            let settled =
                world.run_until_holds(Duration::from_secs(400), |world| world.try_settled(1).is_ok());
            assert!(settled, "{transport:?} {seed}: {:#?} {:#?}", world.status(0), world.status(1));
            world.shut_down_and_check();
        }
    }
}

/// Transport policy rule 7, and RFC 9329 section 5: a stream carries ESP of its own IKE SA.
#[test]
fn esp_in_tcp_is_dropped_and_counted_under_fail_closed() {
    let mut world = Pair::new(StartTransport::Tcp).world(1);
    world.traffic = Some(Duration::from_millis(500));
    world.run_for(Duration::from_secs(5));
    let stream = *world.nodes[1].streams.keys().next().unwrap();
    let now = world.now;
    let spi = world.status(1).ike_sas[0].children[0].spis.0;
    for spi in [spi, 0x7777] {
        let frame = [&[0, 10][..], &spi.to_be_bytes(), &[0, 0, 0, 1]].concat();
        world.nodes[1].endpoint.handle_stream_bytes(now, stream, &frame);
    }
    let counters = world.nodes[1].endpoint.counters();
    assert_eq!(counters.esp_in_tcp_delivered, 1, "to be opened, which shows whether it is the peer's");
    assert_eq!(counters.esp_in_tcp_dropped, [("unknown_spi", 1)].into());
    world.run_for(Duration::from_secs(60));
    world.assert_settled(1);
    world.shut_down_and_check();
}

/// Transport policy rule 5: a forged packet never decides, and rule 7 speaks of the peer's. An idle peer, which would send
/// nothing on a direct carrier for as long as a verification takes, is not cut off by one.
#[test]
fn a_forged_frame_under_fail_closed_decides_nothing() {
    for with_echo in [false, true] {
        let mut pair = Pair::new(StartTransport::Tcp);
        if !with_echo {
            pair.config_b.esp_echo_notify = 50_001;
        }
        let mut world = pair.world(1);
        world.run_for(Duration::from_secs(60));
        for n in [0, 1] {
            let stream = *world.nodes[n].streams.keys().next().unwrap();
            let spi = world.status(n).ike_sas[0].children[0].spis.0;
            let before = world.nodes[n].events.len();
            let forged = [&[0, 14][..], &spi.to_be_bytes(), &[0xff; 8]].concat();
            let now = world.now;
            world.nodes[n].endpoint.handle_stream_bytes(now, stream, &forged);
            world.run_for(Duration::from_secs(60));
            let said = &world.nodes[n].events[before..];
            assert!(said.is_empty(), "node {n}, echo {with_echo}: {said:?}");
        }
        world.assert_settled(1);
        world.shut_down_and_check();
    }
}

/// RFC 7296 section 2.5.
#[test]
fn a_higher_major_version_is_answered() {
    let mut world = Pair::new(StartTransport::UdpThenTcp).world(1);
    world.run_for(Duration::from_secs(1));
    let mut message = first_datagram(StartTransport::UdpThenTcp);
    message[4 + 17] = 0x30;
    let sent = world.nodes[1].endpoint.counters().messages_out[0];
    let now = world.now;
    let path =
        UdpPath { local: SocketAddr::new(B, 4500), remote: SocketAddr::from(([203, 0, 113, 1], 4500)) };
    world.nodes[1].endpoint.handle_datagram(now, path, &message);
    assert_eq!(world.nodes[1].endpoint.counters().messages_out[0], sent + 1);
    world.shut_down_and_check();
}

/// Transport policy, "Shut means shut": with neither back end of the guard the connection is refused under either policy.
#[test]
fn a_host_without_a_guard_refuses_its_connections_and_says_so() {
    const CAUSE: &str = "this kernel can hold no guard: enable one";
    for transport in STARTS {
        for without in [0, 1] {
            let mut pair = Pair::new(transport);
            let config = if without == 0 { &mut pair.config_a } else { &mut pair.config_b };
            config.guard_missing = Some(CAUSE.into());
            let mut world = pair.world(1);
            world.command(without, CommandKind::Up { child: None });
            world.run_for(Duration::from_secs(60));
            let status = world.status(without);
            assert_eq!((status.state, status.reason), (State::Blocked, Reason::GuardMissing), "{status:?}");
            assert_eq!(status.detail, CAUSE);
            let said = |event: &Event| match event {
                Event::CommandDone { result: Err(cause), .. } => {
                    cause.contains("\"c\"") && cause.contains(CAUSE)
                }
                _ => false,
            };
            assert_eq!(world.saw(without, said), 1, "{:#?}", world.nodes[without].events);
            for node in 0..2 {
                assert!(world.status(node).ike_sas.is_empty());
                assert!(world.nodes[node].outbound.is_empty());
            }
            let refused = |event: &Event| matches!(event, Event::IkeFailed { is_initiator: false, reason, .. } if *reason == Reason::GuardMissing);
            assert_eq!(world.saw(1, refused) > 0, without == 1);
        }
    }
}

pub fn fails(mut world: World, reason: Reason, peers: Option<Reason>) {
    world.run_for(Duration::from_secs(4));
    let status = world.status(0);
    assert_eq!((status.state, status.reason), (State::Blocked, reason), "{status:?}");
    assert!(!status.detail.is_empty());
    if let Some(peers) = peers {
        let failed = |event: &Event| {
            matches!(event, Event::IkeFailed { reason, .. } if *reason == peers)
                || matches!(event, Event::IkeRemoved { reason, .. } if *reason == peers)
        };
        assert!(world.saw(1, failed) >= 1, "{:#?}", world.nodes[1].events);
    }
    assert!(world.nodes.iter().all(|node| node.outbound.is_empty()));
    world.shut_down_and_check();
}
