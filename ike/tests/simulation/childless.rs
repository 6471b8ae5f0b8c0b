//! IKE SAs that are authenticated before there is a child (RFC 6023), and key exchanges that wait for that.

use std::time::Duration;

use portcullis_ike::config::{FirstChild, OnUnreachable, SeparateTransports, StartMode, StartTransport};
use portcullis_ike::event::Event;
use portcullis_ike::status::{Reason, State};

use crate::configuration::Pair;
use crate::world::World;

const STARTS: [StartTransport; 3] = [StartTransport::Udp, StartTransport::UdpThenTcp, StartTransport::Tcp];
const HYBRID: &str = "aes256gcm16-prfsha384-x25519-ke1_mlkem768-ke2_mlkem1024";

/// RFC 6023 section 5: the first child comes by CREATE_CHILD_SA, with a key exchange of its own.
#[test]
fn the_first_child_may_come_after_authentication() {
    for transport in STARTS {
        for echo in [true, false] {
            let mut pair = pair(transport, FirstChild::Childless, FirstChild::InAuth);
            if !echo {
                pair.config_b.esp_echo_notify = 50_001;
            }
            let mut pair = pair.both(|connection| {
                connection.children[0].proposals = vec!["aes256gcm16-x25519-esn".parse().unwrap()];
            });
            pair.a.children[0].start = StartMode::Always;
            let mut world = pair.world(1);
            world.weather.latency = Duration::from_millis(150);
            world.traffic = Some(Duration::from_millis(50));
            comes_up(&mut world);
            let child = &world.status(0).ike_sas[0].children[0];
            assert_eq!(child.algorithms, "aes256gcm16-x25519-esn", "{transport:?}");
            assert_eq!(failures(&world), 0);
            world.shut_down_and_check();
        }
    }
}

/// Neither end does a key exchange of post-quantum size before the other is authenticated, and no child is made before.
#[test]
fn additional_key_exchanges_wait_for_authentication_and_children_for_them() {
    for transport in STARTS {
        for node in 0..2 {
            let mut pair = pair(transport, FirstChild::AfterRekey, FirstChild::AfterRekey);
            if node == 1 {
                // The other end asks for the child.
                pair.b.children[0].start = StartMode::Always;
                pair.a.children[0].start = StartMode::None;
            }
            let mut world = pair.world(1);
            world.weather.latency = Duration::from_millis(100);
            comes_up(&mut world);
            for node in 0..2 {
                assert_eq!(world.status(node).ike_sas[0].algorithms, HYBRID, "{transport:?}");
                let position = |is_it: fn(&Event) -> bool| {
                    world.nodes[node].events.iter().position(|(_, event)| is_it(event)).unwrap()
                };
                let established = position(
                    |event| matches!(event, Event::IkeEstablished { algorithms, .. } if algorithms == "aes256gcm16-prfsha384-x25519"),
                );
                let rekeyed = position(|event| matches!(event, Event::IkeRekeyed { .. }));
                let child = position(|event| matches!(event, Event::ChildEstablished { .. }));
                assert!(established < rekeyed && rekeyed < child, "{:#?}", world.nodes[node].events);
            }
            assert_eq!(failures(&world), 0);
            world.run_for(Duration::from_secs(24 * 3600));
            world.assert_settled(1);
            world.shut_down_and_check();
        }
    }
}

/// A responder that puts them behind authentication does not do them before, for anybody.
#[test]
fn a_responder_refuses_additional_key_exchanges_before_authentication() {
    let mut world = pair(StartTransport::Tcp, FirstChild::InAuth, FirstChild::AfterRekey).world(1);
    world.run_for(Duration::from_secs(3));
    assert_eq!(world.status(0).reason, Reason::NoProposalChosen);
    let established = |event: &Event| matches!(event, Event::IkeEstablished { .. });
    assert_eq!(world.saw(1, established), 0);
    world.shut_down_and_check();

    // A peer that has no additional key exchanges is authenticated and gets no child.
    let mut pair = pair(StartTransport::Tcp, FirstChild::InAuth, FirstChild::AfterRekey);
    pair.a.ike.proposals = vec!["aes256gcm16-prfsha384-x25519".parse().unwrap()];
    let mut world = pair.world(1);
    world.run_for(Duration::from_secs(3));
    assert_eq!(world.status(0).reason, Reason::NoProposalChosen);
    let child = |event: &Event| matches!(event, Event::ChildEstablished { .. });
    assert_eq!((world.saw(0, child), world.saw(1, child)), (0, 0));
    world.shut_down_and_check();
}

/// The rekey that has to come first fails: the cause is named, and there is no child.
#[test]
fn without_the_rekey_there_is_no_child() {
    let mut pair = pair(StartTransport::Udp, FirstChild::AfterRekey, FirstChild::InAuth);
    pair.b.ike.proposals = vec!["aes256gcm16-prfsha384-x25519".parse().unwrap()];
    let mut world = pair.world(1);
    world.run_for(Duration::from_secs(3));
    let status = world.status(0);
    assert_eq!((status.state, status.reason), (State::Blocked, Reason::NoProposalChosen));
    let child = |event: &Event| matches!(event, Event::ChildEstablished { .. });
    assert_eq!((world.saw(0, child), world.saw(1, child)), (0, 0));
    world.shut_down_and_check();
}

/// RFC 6023 section 3: not without the responder's word.
#[test]
fn a_responder_that_does_not_announce_it_is_not_asked() {
    for first_child in [FirstChild::Childless, FirstChild::AfterRekey] {
        let mut world = pair(StartTransport::Udp, first_child, first_child).world(1);
        world.distort = Some(hide_childless);
        world.run_for(Duration::from_secs(64));
        let status = world.status(0);
        assert_eq!((status.state, status.reason), (State::Blocked, Reason::PeerNoChildless));
        assert!(status.detail.contains("first_child"), "{}", status.detail);
        world.distort = None;
        world.run_for(Duration::from_secs(70));
        comes_up(&mut world);
        world.shut_down_and_check();
    }
}

/// Rows 14 and 16 to 18 and rule 8, with IKE SAs that have no child at first.
#[test]
fn falling_back_and_coming_back_work_without_a_first_child() {
    for first_child in [FirstChild::Childless, FirstChild::AfterRekey] {
        let pair = pair(StartTransport::Tcp, first_child, first_child).both(|connection| {
            connection.esp.on_unreachable = OnUnreachable::TcpFallback;
        });
        let mut world = pair.world(1);
        world.traffic = Some(Duration::from_millis(200));
        (world.weather.ip_blocked, world.weather.udp_blocked) = (true, true);
        let is = |world: &World, state| (0..2).all(|node| world.state(node) == state);
        assert!(world.run_until_holds(Duration::from_secs(60), |world| is(world, State::Tcp)));
        (world.weather.ip_blocked, world.weather.udp_blocked) = (false, false);
        assert!(world.run_until_holds(Duration::from_secs(120), |world| is(world, State::DirectIp)));
        world.run_for(Duration::from_secs(20));
        world.assert_settled(1);
        world.shut_down_and_check();
    }
}

/// Rule 9: ESP in TCP that the responder refuses shows as that.
#[test]
fn a_refusal_of_esp_in_tcp_is_understood() {
    let mut pair = pair(StartTransport::Tcp, FirstChild::Childless, FirstChild::InAuth);
    pair.a.esp.on_unreachable = OnUnreachable::TcpFallback;
    pair.a.ike.separate_transports = SeparateTransports::Off;
    pair.a.ike.retry_min = Duration::from_secs(600);
    pair.a.ike.retry_max = Duration::from_secs(600);
    let mut world = pair.world(1);
    world.run_for(Duration::from_secs(10));
    let status = world.status(0);
    assert_eq!((status.state, status.reason), (State::Blocked, Reason::NoProposalChosen));
    world.shut_down_and_check();
}

fn comes_up(world: &mut World) {
    let is_up = world.run_until_holds(Duration::from_secs(20), |world| world.try_settled(1).is_ok());
    assert!(is_up, "{:#?}\n{:#?}", world.status(0), world.status(1));
}

fn failures(world: &World) -> usize {
    let failed = |event: &Event| matches!(event, Event::IkeFailed { .. } | Event::ChildFailed { .. });
    world.saw(0, failed) + world.saw(1, failed)
}

fn hide_childless(datagram: &mut [u8]) {
    // RFC 6023 section 4: Protocol ID 1, no SPI.
    const CHILDLESS: [u8; 4] = [1, 0, 0x40, 0x22];
    const RESPONSE: [u8; 2] = [34, 0x20];
    if datagram.get(22..24) == Some(&RESPONSE)
        && let Some(at) = datagram.windows(4).position(|window| window == CHILDLESS)
    {
        datagram[at + 3] = 0xff;
    }
}

fn pair(transport: StartTransport, a: FirstChild, b: FirstChild) -> Pair {
    let mut pair = Pair::new(transport).both(|connection| {
        connection.ike.proposals = vec![HYBRID.parse().unwrap()];
    });
    pair.a.ike.first_child = a;
    pair.b.ike.first_child = b;
    pair
}
