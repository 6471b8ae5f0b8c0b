//! The rows of the transport policy that a set-up can take, from the initiator's side and the responder's.

use std::sync::Arc;
use std::time::Duration;

use portcullis_ike::command::{CommandKind, Fact};
use portcullis_ike::config::{RemoteAddress, SeparateTransports, StartTransport};
use portcullis_ike::event::Event;
use portcullis_ike::path::{DirectCarrier, EspCarrier, IkeTransport};
use portcullis_ike::status::{Evidence, Reason, State};

use crate::configuration::{A, NAT, Pair};
use crate::network::{Nat, Tcp};
use crate::world::World;

/// Row 3, and rule 10.
#[test]
fn a_udp_start_behind_a_nat_uses_udp_and_keeps_the_mapping() {
    let mut world = behind_nat(Pair::new(StartTransport::UdpThenTcp));
    world.run_for(Duration::from_secs(10));
    world.assert_settled(1);
    for node in 0..2 {
        let status = world.status(node);
        assert_eq!((status.state, status.reason), (State::DirectUdp, Reason::Nat));
        assert_eq!(status.ike_sas[0].nat, (node == 0, node == 1));
    }
    assert_eq!(world.status(1).ike_sas[0].esp_path.unwrap().remote.to_string(), NAT.to_string());
    let one_way = |world: &World| world.nodes[0].echoes.iter().filter(|(_, echo)| !echo.wants_reply).count();
    let (datagrams, echoes) = (world.udp_datagrams, one_way(&world));
    world.run_for(Duration::from_secs(60));
    assert!(world.udp_datagrams >= datagrams + 3, "keepalives every 20 s");
    assert!(one_way(&world) >= echoes + 3, "and echoes without reply, so that a new mapping shows");
    world.shut_down_and_check();
}

/// Row 12, and what the responder learns: port and address.
#[test]
fn a_tcp_start_behind_a_nat_uses_udp_from_what_arrives() {
    let mut world = behind_nat(Pair::new(StartTransport::Tcp));
    world.run_for(Duration::from_secs(10));
    world.assert_settled(1);
    let path = world.status(1).ike_sas[0].esp_path.unwrap();
    assert_eq!(path.carrier, EspCarrier::Direct(DirectCarrier::Udp));
    assert_eq!(path.remote, NAT);
    assert_ne!(path.remote_port, 4500, "the NAT's port, from the initiator's dummy");
    assert_eq!(world.status(1).evidence, Evidence::Echo);
    world.shut_down_and_check();
}

/// Rule 10: a mapping that was lost while idle is learned again from a dummy.
#[test]
fn a_new_mapping_is_learned_while_idle() {
    let mut world = behind_nat(Pair::new(StartTransport::UdpThenTcp));
    world.run_for(Duration::from_secs(10));
    let before = world.status(1).ike_sas[0].esp_path.unwrap().remote_port;
    world.rebind_nat();
    world.run_for(Duration::from_secs(30));
    let after = world.status(1).ike_sas[0].esp_path.unwrap().remote_port;
    assert_ne!(before, after);
    world.shut_down_and_check();
}

/// RFC 7296 section 2.23: over UDP, IKE goes to the new mapping as soon as authenticated ESP has shown it.
#[test]
fn ike_over_udp_follows_a_new_mapping_that_esp_has_shown() {
    let mut world = behind_nat(Pair::new(StartTransport::Udp));
    world.traffic = Some(Duration::from_millis(200));
    world.run_for(Duration::from_secs(10));
    world.rebind_nat();
    world.run_for(Duration::from_secs(2));
    let before = world.status(1).ike_sas[0].spis;
    world.command(1, CommandKind::RekeyIke);
    world.run_for(Duration::from_secs(2));
    assert_ne!(world.status(1).ike_sas[0].spis, before, "the responder's request has found its way");
    world.assert_settled(1);
    world.shut_down_and_check();
}

/// Row 5, with a peer that knows no SEPARATE_TRANSPORTS.
#[test]
fn without_separate_transports_a_udp_start_stays_on_udp_and_esp_takes_ip() {
    let mut pair = Pair::new(StartTransport::UdpThenTcp);
    pair.b.ike.separate_transports = SeparateTransports::Off;
    pair.config_b.esp_echo_notify = 50_001;
    let mut world = pair.world(1);
    world.run_until_holds(Duration::from_secs(1), |world| world.state(0) == State::Unverified);
    assert_eq!(world.status(0).evidence, Evidence::None);
    world.traffic = Some(Duration::from_millis(100));
    world.run_for(Duration::from_secs(10));
    world.assert_settled(1);
    for node in 0..2 {
        let status = world.status(node);
        assert_eq!((status.state, status.evidence), (State::DirectIp, Evidence::Inbound));
        assert_eq!(status.ike_sas[0].transport, IkeTransport::Udp);
    }
    assert_eq!(world.nodes[0].accepted + world.nodes[1].accepted, 0, "no TCP");
    world.shut_down_and_check();
}

/// Row 6.
#[test]
fn require_waits_for_an_answer_with_separate_transports_and_then_blocks() {
    let mut pair = Pair::new(StartTransport::UdpThenTcp);
    pair.a.ike.separate_transports = SeparateTransports::Require;
    pair.b.ike.separate_transports = SeparateTransports::Off;
    let mut world = pair.world(1);
    world.run_for(Duration::from_secs(50));
    assert_eq!(world.state(0), State::Connecting);
    assert!(world.run_until_holds(Duration::from_secs(20), |world| world.state(0) == State::Blocked));
    assert_eq!(world.status(0).reason, Reason::PeerNoSeparate);
    assert!(world.nodes.iter().all(|node| node.outbound.is_empty()));
    world.shut_down_and_check();
}

/// Row 7: TCP refused, and silent.
#[test]
fn tcp_out_of_reach_leads_to_udp_without_separate_transports_under_prefer() {
    for tcp in [Tcp::Refused, Tcp::Silent] {
        let mut world = Pair::new(StartTransport::UdpThenTcp).world(1);
        world.weather.tcp = tcp;
        world.run_for(Duration::from_secs(12));
        world.assert_settled(1);
        let status = world.status(0);
        assert_eq!(status.reason, Reason::IkeTcpUnreachable, "{tcp:?}");
        assert_eq!(status.ike_sas[0].transport, IkeTransport::Udp);
        assert!(!status.ike_sas[0].separate_transports);
        world.shut_down_and_check();
    }
}

/// Row 8: `require`.
#[test]
fn tcp_out_of_reach_blocks_under_require() {
    let mut pair = Pair::new(StartTransport::UdpThenTcp);
    pair.a.ike.separate_transports = SeparateTransports::Require;
    let mut world = pair.world(1);
    world.weather.tcp = Tcp::Refused;
    blocks(&mut world, Reason::IkeTcpUnreachable);
    world.weather.tcp = Tcp::Works;
    assert!(world.run_until_holds(Duration::from_secs(100), |world| world.try_settled(1).is_ok()));
    world.shut_down_and_check();
}

/// Row 9.
#[test]
fn silent_udp_leads_to_a_tcp_start_after_two_retransmissions() {
    let mut world = Pair::new(StartTransport::UdpThenTcp).world(1);
    world.weather.udp_blocked = true;
    world.run_for(Duration::from_secs(6));
    assert_eq!((world.state(0), world.udp_datagrams), (State::Connecting, 3));
    world.run_for(Duration::from_secs(6));
    world.assert_settled(1);
    let status = world.status(0);
    assert_eq!(status.reason, Reason::IkeUdpUnreachable);
    assert_eq!(status.ike_sas[0].transport, IkeTransport::Tcp);
    assert_eq!(status.ike_sas[0].esp_path.unwrap().carrier, EspCarrier::Direct(DirectCarrier::Ip));
    world.shut_down_and_check();
}

/// Row 10, in both forms.
#[test]
fn tcp_out_of_reach_blocks_a_tcp_start() {
    for tcp in [Tcp::Refused, Tcp::Silent] {
        let mut world = Pair::new(StartTransport::Tcp).world(1);
        world.weather.tcp = tcp;
        blocks(&mut world, Reason::IkeTcpUnreachable);
        assert_eq!(world.udp_datagrams, 0, "`tcp` never uses UDP");
        world.shut_down_and_check();

        let mut world = Pair::new(StartTransport::UdpThenTcp).world(1);
        world.weather.tcp = tcp;
        world.weather.udp_blocked = true;
        blocks(&mut world, Reason::IkeUnreachable);
        world.shut_down_and_check();
    }
}

/// Row 15, and row 14 which acts like it: the attempt ends before IKE_AUTH.
#[test]
fn a_tcp_start_without_separate_transports_is_abandoned_before_ike_auth() {
    let mut pair = Pair::new(StartTransport::Tcp);
    pair.b.ike.separate_transports = SeparateTransports::Off;
    let mut world = pair.world(1);
    blocks(&mut world, Reason::PeerNoSeparate);
    assert_eq!(world.saw(1, |event| matches!(event, Event::IkeEstablished { .. })), 0);

    let mut pair = Pair::new(StartTransport::Tcp);
    pair.a.ike.separate_transports = SeparateTransports::Off;
    let mut world = pair.world(1);
    blocks(&mut world, Reason::SeparateOff);
    world.shut_down_and_check();
}

/// Rule 9: a responder that refuses authenticates first, then NO_PROPOSAL_CHOSEN for the child and DELETE.
#[test]
fn a_responder_refuses_after_authentication() {
    let mut pair = Pair::new(StartTransport::UdpThenTcp);
    pair.a.ike.separate_transports = SeparateTransports::Off;
    pair.b.ike.separate_transports = SeparateTransports::Require;
    let mut world = pair.world(1);
    world.run_for(Duration::from_secs(4));
    assert!(world.saw(1, |event| matches!(event, Event::IkeEstablished { .. })) >= 1);
    assert_eq!((world.state(0), world.status(0).reason), (State::Blocked, Reason::NoProposalChosen));
    assert_eq!((world.state(1), world.status(1).reason), (State::Blocked, Reason::PeerNoSeparate));
    assert!(world.nodes.iter().all(|node| node.outbound.is_empty()));
    world.shut_down_and_check();
}

/// Configuration part: with NAT and no `udp` in `esp.transports` nothing may carry ESP.
#[test]
fn a_nat_without_udp_among_the_carriers_is_refused() {
    let pair = Pair::new(StartTransport::UdpThenTcp);
    let mut world = behind_nat(pair.both(|connection| connection.esp.transports = vec![DirectCarrier::Ip]));
    blocks(&mut world, Reason::CarrierNotAllowed);
    world.shut_down_and_check();
}

/// Rule 6: a peer without the vendor ID is not believed; here an unassigned number that differs has the same effect.
#[test]
fn another_code_point_is_not_taken_for_separate_transports() {
    let mut pair = Pair::new(StartTransport::UdpThenTcp);
    pair.config_b.separate_transports_notify = 50_000;
    let mut world = pair.world(1);
    world.run_for(Duration::from_secs(5));
    world.assert_settled(1);
    assert!(!world.status(0).ike_sas[0].separate_transports);
    world.shut_down_and_check();
}

/// Rule 9: S is echoed only while TCP 4500 listens.
#[test]
fn separate_transports_is_not_agreed_to_without_a_listener() {
    let mut pair = Pair::new(StartTransport::UdpThenTcp);
    pair.config_b.tcp_listens = false;
    let mut world = pair.world(1);
    world.run_for(Duration::from_secs(5));
    world.assert_settled(1);
    assert_eq!(world.status(0).ike_sas[0].transport, IkeTransport::Udp);
    world.shut_down_and_check();
}

/// Row 19: RFC 7296 section 2.4, and `start: always` tries again.
#[test]
fn a_peer_that_falls_silent_is_dead_after_dead_after() {
    let mut world = Pair::new(StartTransport::UdpThenTcp).world(1);
    world.run_for(Duration::from_secs(5));
    world.weather.udp_blocked = true;
    world.weather.ip_blocked = true;
    world.weather.tcp = Tcp::Silent;
    world.break_streams();
    world.run_for(Duration::from_secs(140));
    assert_eq!(world.state(0), State::Suspect, "silence is not blockage");
    assert!(world.run_until_holds(Duration::from_secs(60), |world| world.state(0) == State::PeerDead));
    assert!(world.nodes[0].outbound.is_empty());
    world.weather = Default::default();
    assert!(world.run_until_holds(Duration::from_secs(150), |world| world.try_settled(1).is_ok()));
    world.shut_down_and_check();
}

/// Row 20: stream loss never touches direct ESP; the originator dials again.
#[test]
fn a_lost_stream_is_dialled_again_and_esp_does_not_notice() {
    let mut world = Pair::new(StartTransport::Tcp).world(1);
    world.traffic = Some(Duration::from_millis(100));
    world.run_for(Duration::from_secs(5));
    let paths = world.nodes[0].paths.clone();
    for _ in 0..5 {
        world.break_streams();
        world.run_for(Duration::from_secs(2));
        assert_eq!(world.state(0), State::DirectIp);
    }
    assert_eq!(world.nodes[0].paths, paths);
    assert!(world.nodes[0].endpoint.counters().stream_reconnects >= 5);
    world.assert_settled(1);
    world.shut_down_and_check();
}

/// "The clock stands still without a stream while direct ESP answers."
#[test]
fn without_a_stream_an_ike_sa_lives_as_long_as_esp_does() {
    let mut world = Pair::new(StartTransport::UdpThenTcp).world(1);
    world.traffic = Some(Duration::from_millis(500));
    world.run_for(Duration::from_secs(5));
    world.weather.tcp = Tcp::Silent;
    world.break_streams();
    world.run_for(Duration::from_secs(600));
    world.assert_settled(1);
    world.weather.tcp = Tcp::Works;
    world.run_for(Duration::from_secs(120));
    world.assert_settled(1);
    assert_eq!(
        world.saw(0, |event| matches!(event, Event::IkeRemoved { .. })),
        0,
        "{:#?}",
        world.nodes[0].events
    );
    world.shut_down_and_check();
}

/// Rule 9: on the peer's DELETE our own start waits 30 s with jitter.
#[test]
fn after_the_peers_delete_the_next_start_waits() {
    let mut world = Pair::new(StartTransport::UdpThenTcp).world(1);
    world.run_for(Duration::from_secs(5));
    world.command(1, CommandKind::Down { child: None });
    world.run_for(Duration::from_secs(10));
    // Some link of this host comes or goes: nothing to do with the peer's DELETE.
    let now = world.now;
    world.nodes[0].endpoint.fact(now, Fact::LocalChange { gone: Arc::default() });
    world.run_for(Duration::from_secs(19));
    assert!(world.status(0).ike_sas.is_empty());
    assert_eq!(world.status(0).reason, Reason::PeerDeleted);
    world.run_for(Duration::from_secs(15));
    world.assert_settled(1);
    world.shut_down_and_check();
}

fn behind_nat(mut pair: Pair) -> World {
    pair.b.remote_address = RemoteAddress::Any;
    let mut world = pair.world(1);
    world.nat = Some(Nat::new(A, NAT));
    world
}

fn blocks(world: &mut World, reason: Reason) {
    assert!(world.run_until_holds(Duration::from_secs(40), |world| world.state(0) == State::Blocked));
    let status = world.status(0);
    assert_eq!(status.reason, reason);
    assert!(!status.detail.is_empty() && status.next_attempt.is_some());
    assert!(world.nodes.iter().all(|node| node.outbound.is_empty()));
}
