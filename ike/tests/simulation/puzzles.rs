//! Cookies and puzzles (RFC 8019): a responder under a flood, the initiators that it still serves, and those that it does not.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use portcullis_ike::action::Action;
use portcullis_ike::codec::{Message, NotifyType};
use portcullis_ike::config::{EndpointConfig, RemoteAddress, StartTransport};
use portcullis_ike::path::UdpPath;
use portcullis_ike::status::{Reason, State};

use crate::configuration::{A, B, Pair, connection, first_datagram, first_datagram_of};
use crate::world::World;

const STARTS: [StartTransport; 3] = [StartTransport::Udp, StartTransport::UdpThenTcp, StartTransport::Tcp];

/// RFC 8019 section 7.1: over UDP and TCP a stranger solves the puzzle and is served; the stream is the same (RFC 9329
/// section 6.3), and no cookie goes over TCP without a puzzle (`Tap`).
#[test]
fn a_stranger_that_solves_the_puzzle_is_served_on_either_transport() {
    for transport in STARTS {
        let mut world = under_flood(stranger(transport));
        world.run_for(Duration::from_secs(5));
        world.assert_settled(1);
        let counters = world.nodes[1].endpoint.counters();
        assert_eq!(counters.puzzle_solutions, [1, 0], "{transport:?}");
        assert!(counters.puzzles_given >= 1 && counters.puzzles_waived == 0);
        assert_eq!(world.nodes[0].endpoint.counters().puzzles_taken, [1, 0]);
        world.shut_down_and_check();
    }
}

/// RFC 8019 section 9: "Initiators SHOULD set a maximum difficulty level beyond which they won't try to solve the puzzle and
/// log or display a failure message".
#[test]
fn a_puzzle_that_is_too_hard_is_named() {
    for transport in STARTS {
        let mut pair = stranger(transport);
        pair.config_a.max_puzzle_difficulty = 5;
        // No room for those who solve nothing.
        pair.config_b.max_half_open = 10;
        let mut world = under_flood(pair);
        assert!(
            world.run_until_holds(Duration::from_secs(20), |world| {
                let status = world.status(0);
                (status.state, status.reason) == (State::Blocked, Reason::PuzzleTooHard)
            }),
            "{transport:?}: {:?}",
            world.status(0)
        );
        assert!(world.status(0).detail.contains("max_puzzle_difficulty"));
        assert_eq!(world.puzzles, 0);
        // The flood is over: the next attempt passes.
        world.run_for(Duration::from_secs(120));
        world.assert_settled(1);
        world.shut_down_and_check();
    }
}

/// RFC 8019 section 7.1.2: an initiator that finds no solution repeats its request with the cookie alone; section 7.1: some
/// of those are served.
#[test]
fn an_initiator_that_finds_no_solution_goes_on_with_the_cookie() {
    let served = (0..40).filter(|seed| {
        let mut world = flooded(stranger(StartTransport::UdpThenTcp), *seed);
        world.thinking = None;
        world.run_for(Duration::from_secs(7));
        let is_up = world.try_settled(1).is_ok();
        let counters = world.nodes[1].endpoint.counters();
        assert_eq!((is_up, counters.puzzle_solutions), (counters.puzzles_waived == 1, [0, 0]));
        is_up
    });
    let served = served.count();
    assert!(served > 0 && served < 20, "about one in eight: {served}");
}

/// RFC 8019 section 7.1: puzzles lead nobody astray who does not know them.
#[test]
fn an_initiator_that_knows_no_puzzles_passes_when_the_flood_is_over() {
    let mut world = under_flood(stranger(StartTransport::Udp));
    world.distort = Some(hide_puzzles);
    world.run_for(Duration::from_secs(120));
    world.assert_settled(1);
    assert_eq!(world.puzzles, 0);
    world.shut_down_and_check();
}

/// RFC 8019 section 7.1.2: PUZZLE without COOKIE is ignored, and so is the response.
#[test]
fn a_puzzle_without_a_cookie_is_ignored() {
    let mut world = under_flood(stranger(StartTransport::Udp));
    world.distort = Some(hide_cookies);
    world.run_for(Duration::from_secs(2));
    assert_eq!((world.state(0), world.puzzles), (State::Connecting, 0));
    world.distort = None;
    world.run_for(Duration::from_secs(60));
    world.assert_settled(1);
    world.shut_down_and_check();
}

/// RFC 8019 section 7.1.1.2: no PRF in common.
#[test]
fn an_initiator_without_a_prf_of_ours_gets_no_puzzle() {
    let mut world = under_flood(stranger(StartTransport::Udp));
    let mut first = first_datagram(StartTransport::Udp);
    // PRF_HMAC_SHA2_384 becomes one that nobody knows.
    let prf = [0, 0, 8, 2, 0, 0, 6];
    let at = first.windows(prf.len()).position(|octets| octets == prf).unwrap();
    first[at + 6] = 99;
    let before = world.nodes[1].endpoint.counters().puzzles_given;
    receive(&mut world, SocketAddr::from(([203, 0, 113, 9], 4500)), &first);
    let actions = std::iter::from_fn(|| world.nodes[1].endpoint.poll_action());
    let answers: Vec<_> = actions
        .filter_map(|action| match action {
            Action::SendDatagram { payload, .. } => Some(payload),
            _ => None,
        })
        .collect();
    let [answer] = &answers[..] else { panic!("{} answers", answers.len()) };
    let kinds: Vec<_> =
        message(answer).payloads.iter().filter_map(|p| Some(p.as_notify()?.notify_type)).collect();
    assert_eq!(kinds, [NotifyType::NO_PROPOSAL_CHOSEN]);
    assert_eq!(world.nodes[1].endpoint.counters().puzzles_given, before);
}

/// RFC 7296 section 2.6.1: "Implementations SHOULD support this shorter exchange".
#[test]
fn a_cookie_serves_a_request_with_another_method() {
    let mut pair = stranger(StartTransport::Udp);
    pair.a.ike.proposals = ["aes256gcm16-prfsha384-x25519", "aes256gcm16-prfsha384-ecp384"]
        .map(|proposal| proposal.parse().unwrap())
        .to_vec();
    pair.b.ike.proposals = vec!["aes256gcm16-prfsha384-ecp384".parse().unwrap()];
    let mut world = pair.world(1);
    let before = flood_with(&mut world, "aes256gcm16-prfsha384-ecp384");
    world.run_for(Duration::from_secs(5));
    world.assert_settled(1);
    let counters = world.nodes[1].endpoint.counters();
    assert_eq!(counters.puzzles_given, before + 1, "one puzzle serves both requests");
    world.shut_down_and_check();
}

/// RFC 8019 section 10: one solution buys one IKE SA, from whatever port it comes.
#[test]
fn a_solution_is_good_once() {
    let mut world = under_flood(stranger(StartTransport::Udp));
    world.recorded = Some(Vec::new());
    world.run_for(Duration::from_secs(5));
    world.assert_settled(1);
    let recorded = world.recorded.take().unwrap();
    let has_solution = |payload: &[u8]| message(payload).payloads.iter().any(|p| p.as_ps().is_some());
    let (_, solved) = recorded.into_iter().find(|(n, payload)| *n == 0 && has_solution(payload)).unwrap();
    let before = world.nodes[1].endpoint.counters();
    for port in 5000..5100 {
        receive(&mut world, SocketAddr::new(A, port), &solved);
    }
    let after = world.nodes[1].endpoint.counters();
    assert_eq!(after.half_open, before.half_open, "nothing is kept");
    assert_eq!(after.puzzle_solutions, [before.puzzle_solutions[0], before.puzzle_solutions[1] + 100]);
    world.shut_down_and_check();
}

/// Issue: a flood on UDP never locks a configured peer out, whether it comes from anywhere or claims to be that peer.
#[test]
fn a_flood_does_not_lock_out_a_configured_peer() {
    for transport in STARTS {
        for claims_to_be_the_peer in [false, true] {
            let mut world = beside_strangers(transport);
            let first = first_datagram(StartTransport::UdpThenTcp);
            for n in 0..20_000_u32 {
                let mut forged = first.clone();
                forged[4..8].copy_from_slice(&n.to_be_bytes());
                let ip = match claims_to_be_the_peer {
                    true => A,
                    false => IpAddr::from([10, (n >> 8) as u8, n as u8, 1]),
                };
                receive(&mut world, SocketAddr::new(ip, 4500), &forged);
            }
            let held = world.nodes[1].endpoint.counters().half_open;
            assert!(held <= 64, "{held} half-open SAs");
            world.run_for(Duration::from_secs(5));
            world.assert_settled(1);
            assert_eq!(world.puzzles, 0, "a configured peer solves no puzzles");
            world.shut_down_and_check();
        }
    }
}

/// The same on TCP: strangers hold every stream that strangers may hold.
#[test]
fn streams_of_strangers_do_not_lock_out_a_configured_peer() {
    let mut world = beside_strangers(StartTransport::Tcp);
    for n in 0..5000_u64 {
        let remote = SocketAddr::from(([10, (n >> 8) as u8, n as u8, 1], 1000));
        let (now, stream) = (world.now, portcullis_ike::path::StreamId::accepted(1_000_000 + n));
        world.nodes[1].endpoint.handle_stream_up(now, stream, SocketAddr::new(B, 4500), remote);
        while world.nodes[1].endpoint.poll_action().is_some() {}
    }
    assert_eq!(world.nodes[1].endpoint.counters().stranger_streams, 1024);
    world.run_for(Duration::from_secs(3));
    world.assert_settled(1);
}

/// RFC 8019 section 7.2: while many half-open SAs get messages that do not authenticate, who has solved one puzzle gets
/// another for IKE_AUTH; its solution is outside the Encrypted payload, in the first fragment alone.
#[test]
fn a_second_puzzle_protects_ike_auth() {
    for transport in STARTS {
        let mut world = under_attack(stranger(transport));
        world.run_for(Duration::from_secs(5));
        world.assert_settled(1);
        assert_eq!(world.puzzles, 2, "{transport:?}");
        assert_eq!(world.nodes[1].endpoint.counters().puzzle_solutions, [2, 0]);
        world.shut_down_and_check();
    }
}

/// RFC 8019 section 7.2.4: "it MUST silently discard all the IKE_AUTH request messages without the PS payload".
#[test]
fn ike_auth_without_its_solution_is_discarded_in_silence() {
    let mut world = under_attack(stranger(StartTransport::Udp));
    world.distort = Some(hide_second_puzzle);
    world.run_for(Duration::from_secs(3));
    let counters = world.nodes[1].endpoint.counters();
    assert!(counters.rejected["no_puzzle_solution"] > 0, "{:?}", counters.rejected);
    assert_eq!((counters.puzzle_solutions[0], world.puzzles), (1, 1));
    assert_eq!(world.state(0), State::Connecting);
}

/// A flood of strangers that a responder for any peer keeps half-open SAs for.
fn under_flood(pair: Pair) -> World {
    flooded(pair, 1)
}

fn flooded(pair: Pair, seed: u64) -> World {
    let mut world = pair.world(seed);
    flood(&mut world);
    world
}

/// Sources and what each of them got for its first message.
fn flood(world: &mut World) -> Vec<(SocketAddr, Vec<u8>)> {
    flood_of(world, &first_datagram(StartTransport::Udp))
}

/// A flood of those who want this proposal; how many puzzles it got.
fn flood_with(world: &mut World, proposal: &str) -> u64 {
    let pair = Pair::new(StartTransport::Udp).both(|c| c.ike.proposals = vec![proposal.parse().unwrap()]);
    flood_of(world, &first_datagram_of(pair));
    world.nodes[1].endpoint.counters().puzzles_given
}

fn flood_of(world: &mut World, first: &[u8]) -> Vec<(SocketAddr, Vec<u8>)> {
    let answers: Vec<_> = (0..20)
        .map(|n: u8| {
            let mut forged = first.to_vec();
            forged[7] = n;
            let source = SocketAddr::from(([10, n, 0, 1], 4500));
            receive(world, source, &forged);
            let actions = std::iter::from_fn(|| world.nodes[1].endpoint.poll_action());
            let answer = actions.filter_map(|action| match action {
                Action::SendDatagram { payload, .. } => Some(payload),
                _ => None,
            });
            (source, answer.last().expect("every first message is answered"))
        })
        .collect();
    assert!(world.nodes[1].endpoint.counters().puzzles_given > 0);
    answers
}

/// The flood, and messages for its half-open SAs that do not authenticate.
fn under_attack(mut pair: Pair) -> World {
    pair.config_b.puzzle_threshold = 18;
    let mut world = pair.world(1);
    for (source, answer) in flood(&mut world) {
        // Both SPIs of the answer, IKE_INTERMEDIATE by the initiator with Message ID 1, and an Encrypted payload of nothing.
        let mut forged = answer[..4 + 16].to_vec();
        forged.extend([46, 0x20, 43, 0x08, 0, 0, 0, 1, 0, 0, 0, 28 + 40, 0, 0, 0, 40]);
        forged.extend([0; 36]);
        receive(&mut world, source, &forged);
    }
    assert_eq!(world.nodes[1].endpoint.counters().rejected["not_authentic"], 18);
    world
}

fn message(datagram: &[u8]) -> Message<'_> {
    Message::decode(&datagram[4..]).unwrap()
}

fn hide_puzzles(datagram: &mut [u8]) {
    hide(datagram, NotifyType::PUZZLE);
}

fn hide_cookies(datagram: &mut [u8]) {
    hide(datagram, NotifyType::COOKIE);
}

fn hide(datagram: &mut [u8], kind: NotifyType) {
    let Some(Ok(message)) = datagram.strip_prefix(&[0; 4]).map(Message::decode) else { return };
    if !message.header.flags.response || message.encrypted.is_some() {
        return;
    }
    // Protocol ID and SPI Size are zero before the type (RFC 7296 section 3.10).
    let [high, low] = kind.0.to_be_bytes();
    if let Some(at) = datagram.windows(4).position(|octets| octets == [0, 0, high, low]) {
        datagram[at + 2..at + 4].copy_from_slice(&[0xff, 0xff]);
    }
}

fn hide_second_puzzle(datagram: &mut [u8]) {
    let is_first = datagram
        .strip_prefix(&[0; 4])
        .and_then(|message| Message::decode(message).ok())
        .is_none_or(|message| !message.payloads.iter().any(|payload| payload.as_sa().is_some()));
    if !is_first {
        hide_puzzles(datagram);
    }
}

/// A responder for any peer that asks for puzzles from the tenth half-open SA on.
fn stranger(transport: StartTransport) -> Pair {
    let mut pair = Pair::new(transport);
    pair.b.remote_address = RemoteAddress::Any;
    pair.config_b = limits();
    pair
}

/// A responder with A as configured peer, and another connection for anybody.
fn beside_strangers(transport: StartTransport) -> World {
    let pair = Pair::new(transport);
    let mut anybody = connection("b", "stranger", B, A, "10.2.0.0/16", "10.9.0.0/16");
    anybody.name = "z".into();
    anybody.remote_address = RemoteAddress::Any;
    World::new(1, vec![(pair.config_a, vec![pair.a], A), (limits(), vec![pair.b, anybody], B)])
}

fn limits() -> EndpointConfig {
    EndpointConfig {
        cookie_threshold: 1000,
        puzzle_threshold: 10,
        puzzle_difficulty: 9,
        max_half_open: 40,
        ..EndpointConfig::default()
    }
}

fn receive(world: &mut World, source: SocketAddr, datagram: &[u8]) {
    let (now, path) = (world.now, UdpPath { local: SocketAddr::new(B, 4500), remote: source });
    world.nodes[1].endpoint.handle_datagram(now, path, datagram);
}
