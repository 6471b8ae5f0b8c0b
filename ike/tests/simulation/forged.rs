//! Messages that anybody could have sent: nothing is answered that the RFC does not ask for, and nothing changes.

use std::net::SocketAddr;
use std::time::Duration;

use portcullis_ike::action::Action;
use portcullis_ike::codec::{
    Delete, ExchangeType, Flags, Header, NON_ESP_MARKER, Notify, NotifyType, Payload, encode_message,
};
use portcullis_ike::command::CommandKind;
use portcullis_ike::config::{ChildConfig, StartMode, StartTransport};
use portcullis_ike::event::Event;
use portcullis_ike::path::UdpPath;
use portcullis_ike::status::Reason;

use crate::configuration::{A, B, Pair, child, first_datagram};
use crate::network::Protocol;
use crate::world::World;

/// RFC 7296 sections 1.5, 2.4 and 2.21.4: notifications and deletions without protection, with the SPIs of the IKE SA and with
/// others, as requests and as responses.
#[test]
fn unprotected_messages_are_neither_answered_nor_acted_upon() {
    let mut world = running();
    let spis = world.status(0).ike_sas[0].spis;
    let child = world.status(0).ike_sas[0].children[0].spis;
    let kinds = [
        Payload::Notify(Notify::new(NotifyType::INVALID_IKE_SPI)),
        Payload::Notify(Notify::with_data(NotifyType::INVALID_SPI, child.0.to_be_bytes().to_vec().into())),
        Payload::Notify(Notify::new(NotifyType::INVALID_SYNTAX)),
        Payload::Notify(Notify::new(NotifyType::AUTHENTICATION_FAILED)),
        // RFC 4478 section 2 wants it protected.
        Payload::Notify(Notify::with_data(NotifyType::AUTH_LIFETIME, vec![0; 4].into())),
        Payload::Delete(Delete::Ike),
    ];
    for payload in kinds {
        for (spi_i, spi_r) in [spis, (spis.0, spis.1 ^ 1), (spis.0 ^ 1, spis.1), (1, 2), (1, 0)] {
            for exchange in
                [ExchangeType::INFORMATIONAL, ExchangeType::CREATE_CHILD_SA, ExchangeType::IKE_AUTH]
            {
                for response in [false, true] {
                    for initiator in [false, true] {
                        let flags = Flags { initiator, response };
                        let header = Header { spi_i, spi_r, exchange, flags, message_id: 2 };
                        let message = encode_message(&header, std::slice::from_ref(&payload)).unwrap();
                        is_ignored(&mut world, &message);
                    }
                }
            }
        }
    }
    // IKE_SA_INIT responses that nobody asked for.
    let flags = Flags { initiator: false, response: true };
    for (spi_i, spi_r) in [spis, (1, 2), (1, 0)] {
        let exchange = ExchangeType::IKE_SA_INIT;
        let header = Header { spi_i, spi_r, exchange, flags, message_id: 0 };
        let refusal = Payload::Notify(Notify::new(NotifyType::NO_PROPOSAL_CHOSEN));
        is_ignored(&mut world, &encode_message(&header, &[refusal]).unwrap());
    }
    assert_eq!(world.status(0).ike_sas[0].spis, spis);
    ends(world);
}

/// RFC 7296 section 2.6: messages with other SPIs. No INVALID_IKE_SPI is sent (section 1.5 leaves it to us).
#[test]
fn protected_messages_with_other_spis_are_ignored() {
    let mut world = running();
    world.recorded = Some(Vec::new());
    world.command(0, CommandKind::RekeyChild { child: None });
    world.run_for(Duration::from_secs(5));
    let sent: Vec<_> = world.recorded.take().into_iter().flatten().collect();
    let (_, request) = sent.iter().find(|(node, _)| *node == 0).unwrap();
    let request = request.strip_prefix(&NON_ESP_MARKER).unwrap();
    let rejected = |world: &World, why| {
        world.nodes[1].endpoint.counters().rejected.get(why).copied().unwrap_or_default()
    };
    // The SPI of the initiator, and that of the responder.
    for (at, why) in [(7, "wrong_spi"), (15, "unknown_spi")] {
        let mut message = request.to_vec();
        message[at] ^= 1;
        let before = rejected(&world, why);
        is_ignored(&mut world, &message);
        assert_eq!(rejected(&world, why), before + 1, "{why}");
    }
    ends(world);
}

/// RFC 7296 section 2.1: a repeated IKE_SA_INIT is known by SPI, address and content, and gets the same octets again.
#[test]
fn a_repeated_ike_sa_init_is_known_by_spi_address_and_content() {
    let mut pair = Pair::new(StartTransport::Udp);
    pair.b.remote_address = portcullis_ike::config::RemoteAddress::Any;
    let mut world = pair.world(1);
    world.lose_address(0);
    let first = first_datagram(StartTransport::Udp);
    let half_open = |world: &World| world.nodes[1].endpoint.counters().half_open;
    let stranger = SocketAddr::from(([203, 0, 113, 1], 4500));
    let response = answer(&mut world, stranger, &first).expect("it is answered");
    assert_eq!(half_open(&world), 1);
    assert_eq!(answer(&mut world, stranger, &first).as_ref(), Some(&response));
    assert_eq!(half_open(&world), 1, "the same request makes no second state");

    let elsewhere = SocketAddr::new(stranger.ip(), 4501);
    let other = answer(&mut world, elsewhere, &first).expect("another address is another initiator");
    assert_ne!(spi_r(&other), spi_r(&response));
    let mut changed = first.clone();
    *changed.last_mut().unwrap() ^= 1;
    let other = answer(&mut world, stranger, &changed);
    assert_ne!(other.as_deref().map(spi_r), Some(spi_r(&response)), "other content is another request");
}

/// RFC 7296 section 2.6.1: the cookie goes with the request of the other group, so that it takes three requests and not four.
#[test]
fn a_cookie_stays_when_the_key_exchange_method_changes() {
    let mut pair = Pair::new(StartTransport::Udp);
    pair.a.ike.proposals = vec!["aes256gcm16-prfsha384-x25519-ecp384".parse().unwrap()];
    pair.b.ike.proposals = vec!["aes256gcm16-prfsha384-ecp384".parse().unwrap()];
    pair.config_b.cookie_threshold = 0;
    let mut world = pair.world(1);
    world.recorded = Some(Vec::new());
    world.run_for(Duration::from_secs(5));
    world.assert_settled(1);
    assert!(world.nodes[1].endpoint.counters().cookies_sent > 0);
    let recorded = world.recorded.take().unwrap();
    let requests = recorded.iter().filter(|(node, datagram)| {
        let header = datagram.strip_prefix(&NON_ESP_MARKER).and_then(|raw| Header::decode(raw).ok());
        *node == 0 && header.is_some_and(|(header, _)| header.exchange == ExchangeType::IKE_SA_INIT)
    });
    assert_eq!(requests.count(), 3);
    world.shut_down_and_check();
}

/// draft-ietf-ipsecme-ikev2-reliable-transport section 3.3: once on TCP, IKE over UDP is dropped before anything is decrypted.
#[test]
fn ike_over_udp_is_dropped_once_it_is_on_tcp() {
    let mut world = Pair::new(StartTransport::UdpThenTcp).world(1);
    world.run_for(Duration::from_secs(5));
    world.assert_settled(1);
    let (spi_i, spi_r) = world.status(0).ike_sas[0].spis;
    let rejected = |world: &World, node: usize, why| {
        world.nodes[node].endpoint.counters().rejected.get(why).copied().unwrap_or_default()
    };
    for (node, flags) in [(0, 0), (1, 0x08)] {
        let message = [
            &spi_i.to_be_bytes()[..],
            &spi_r.to_be_bytes(),
            &[46, 0x20, 37, flags, 0, 0, 0, 3, 0, 0, 0, 28 + 40, 0, 0, 0, 40],
            &[0; 36],
        ]
        .concat();
        let before = rejected(&world, node, "wrong_transport");
        is_ignored(&mut world, &message);
        assert_eq!(rejected(&world, node, "wrong_transport"), before + 1, "node {node}");
        assert_eq!(rejected(&world, node, "not_authentic"), 0, "node {node}");
    }
    ends(world);
}

/// RFC 3948 section 4: NAT keepalives are no sign of life.
#[test]
fn keepalives_do_not_keep_a_silent_peer_alive() {
    let mut world = running();
    world.weather.blocked = vec![(0, Protocol::Udp), (0, Protocol::Ip)];
    let path = UdpPath { local: SocketAddr::new(B, 4500), remote: SocketAddr::new(A, 4500) };
    let is_dead = |world: &World| {
        let silent = |event: &Event| matches!(event, Event::IkeRemoved { reason: Reason::PeerSilent, .. });
        world.saw(1, silent) == 1
    };
    let began = world.now;
    while !is_dead(&world) {
        assert!(world.now.since(began) < Duration::from_secs(300));
        let now = world.now;
        world.nodes[1].endpoint.handle_datagram(now, path, &[0xff]);
        world.run_for(Duration::from_secs(2));
    }
}

/// RFC 7383 section 2.6.1: of the fragments of a request that was answered, the first asks for the response again, the others for
/// nothing.
#[test]
fn the_first_fragment_alone_asks_for_the_response_again() {
    let mut pair = Pair::new(StartTransport::Udp).both(|connection| {
        connection.ike.fragment_size = 576;
        let proposals = vec!["aes256gcm16-x25519-ke1_mlkem768".parse().unwrap()];
        let (local, remote) = ("10.3.0.0/16", "10.4.0.0/16");
        let (local, remote) =
            if connection.local_address == Some(A) { (local, remote) } else { (remote, local) };
        connection.children.push(ChildConfig { proposals, ..child("more", local, remote) });
    });
    pair.a.children[0].start = StartMode::Always;
    let mut world = pair.world(1);
    world.run_for(Duration::from_secs(5));
    world.recorded = Some(Vec::new());
    world.command(0, CommandKind::Up { child: Some("more".into()) });
    world.run_for(Duration::from_secs(5));
    world.assert_settled(2);
    let recorded = world.recorded.take().unwrap();
    let fragments: Vec<_> = recorded
        .iter()
        .filter(|(node, datagram)| {
            let header = datagram.strip_prefix(&NON_ESP_MARKER).and_then(|raw| Header::decode(raw).ok());
            let is_it = |(header, _): (Header, _)| {
                header.exchange == ExchangeType::IKE_FOLLOWUP_KE && !header.flags.response
            };
            *node == 0 && header.is_some_and(is_it)
        })
        .map(|(_, datagram)| datagram.clone())
        .collect();
    assert!(fragments.len() > 2);
    let peer = SocketAddr::new(A, 4500);
    let mut answered = Vec::new();
    for fragment in &fragments {
        let before = world.nodes[1].endpoint.counters().responses_repeated;
        let is_answered = answer(&mut world, peer, fragment).is_some();
        let repeated = world.nodes[1].endpoint.counters().responses_repeated - before;
        assert_eq!(repeated, u64::from(is_answered));
        answered.push(is_answered);
    }
    assert_eq!(answered.iter().position(|answered| *answered), Some(0));
    assert_eq!(answered.iter().filter(|answered| **answered).count(), 1, "{answered:?}");
    ends_with(world, 2);
}

fn running() -> World {
    let mut world = Pair::new(StartTransport::Udp).world(1);
    world.run_for(Duration::from_secs(5));
    world.assert_settled(1);
    world
}

/// Each node gets this message in the name of the other, says nothing and changes nothing.
fn is_ignored(world: &mut World, message: &[u8]) {
    let (a, b) = (SocketAddr::new(A, 4500), SocketAddr::new(B, 4500));
    for (n, path) in [(0, UdpPath { local: a, remote: b }), (1, UdpPath { local: b, remote: a })] {
        let (now, node) = (world.now, &mut world.nodes[n]);
        let before = (node.endpoint.counters().messages_out, node.events.len());
        node.endpoint.handle_datagram(now, path, &[&NON_ESP_MARKER, message].concat());
        assert!(node.endpoint.poll_action().is_none(), "node {n}");
        assert_eq!((node.endpoint.counters().messages_out, node.events.len()), before, "node {n}");
    }
}

/// What node 1 answers to a datagram of a stranger.
fn answer(world: &mut World, remote: SocketAddr, datagram: &[u8]) -> Option<Vec<u8>> {
    let path = UdpPath { local: SocketAddr::new(B, 4500), remote };
    let now = world.now;
    world.nodes[1].endpoint.handle_datagram(now, path, datagram);
    let mut answer = None;
    while let Some(action) = world.nodes[1].endpoint.poll_action() {
        if let Action::SendDatagram { path, payload } = action {
            assert_eq!(path.remote, remote);
            answer = Some(payload);
        }
    }
    answer
}

fn spi_r(datagram: &[u8]) -> u64 {
    Header::decode(&datagram[4..]).unwrap().0.spi_r
}

fn ends(world: World) {
    ends_with(world, 1);
}

fn ends_with(mut world: World, children: usize) {
    world.run_for(Duration::from_secs(300));
    world.assert_settled(children);
    world.shut_down_and_check();
}
