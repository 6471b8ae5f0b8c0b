//! Key exchanges that go wrong: additional ones in IKE_INTERMEDIATE and IKE_FOLLOWUP_KE (RFC 9242, RFC 9370), and the checks of
//! ML-KEM (draft-ietf-ipsecme-ikev2-mlkem section 2.2).

use std::time::Duration;

use portcullis_ike::codec::{ExchangeType, NotifyType, PayloadType};
use portcullis_ike::command::CommandKind;
use portcullis_ike::config::StartTransport;
use portcullis_ike::event::Event;
use portcullis_ike::status::{Reason, State};

use crate::configuration::Pair;
use crate::created::{rewritten, rewritten_as};
use crate::said::{is, notified, said};
use crate::world::{Rewrite, World};

const INTERMEDIATE: ExchangeType = ExchangeType::IKE_INTERMEDIATE;
const FOLLOWUP: ExchangeType = ExchangeType::IKE_FOLLOWUP_KE;
const CREATE: ExchangeType = ExchangeType::CREATE_CHILD_SA;
const REKEY: CommandKind = CommandKind::RekeyChild { child: None };
/// Where the Key Exchange Method and Data stand in a KE payload.
const METHOD: usize = 4;
const DATA: usize = 8;

/// RFC 9370 section 2.2.1: without INTERMEDIATE_EXCHANGE_SUPPORTED, from either end, such transforms are unknown.
#[test]
fn additional_key_exchanges_need_the_notification_from_both_ends() {
    for (distort, ours, theirs) in [
        (hide_in_request as fn(&mut [u8]), Reason::NoProposalChosen, Reason::NoProposalChosen),
        (hide_in_response, Reason::ProtocolError, Reason::None),
    ] {
        let mut world = pair().world(1);
        world.distort = Some(distort);
        world.run_for(Duration::from_secs(5));
        assert_eq!((world.status(0).reason, world.status(1).reason), (ours, theirs));
        world.distort = None;
        recovers(world);
    }
}

/// RFC 9370 section 2.2.2, and RFC 9242 section 3.4: another method than the one negotiated, and a key that fails its check, are
/// answered under protection, and the half-open IKE SA is gone.
#[test]
fn a_wrong_request_in_ike_intermediate_fails_the_set_up() {
    let another_method: Rewrite = |node, message, ledger| {
        (node == 0 && is(message, INTERMEDIATE, false)).then(|| rewritten(message, ledger, another_method))
    };
    let unreduced: Rewrite = |node, message, ledger| {
        (node == 0 && is(message, INTERMEDIATE, false)).then(|| rewritten(message, ledger, unreduced))
    };
    let no_more: Rewrite = |node, message, ledger| {
        (node == 0 && is(message, ExchangeType::IKE_AUTH, false))
            .then(|| rewritten_as(INTERMEDIATE, message, ledger, |first, content| (first, content)))
    };
    for (name, rewrite) in
        [("another method", another_method), ("unreduced", unreduced), ("no more", no_more)]
    {
        let mut world = pair().world(1);
        world.begin_saying(rewrite);
        assert_eq!(answers(&world, INTERMEDIATE, NotifyType::INVALID_SYNTAX), 1, "{name}");
        assert_eq!(world.nodes[1].endpoint.counters().half_open, 0, "{name}");
        assert_eq!(world.state(0), State::Blocked, "{name}");
        let failed = |event: &Event| matches!(event, Event::IkeFailed { is_initiator: false, .. });
        assert_eq!(world.saw(1, failed), 1, "{name}");
        recovers(world);
    }
}

/// mlkem section 2.2: a ciphertext that fails its check fails the exchange, ends the set-up and is told to the operator.
#[test]
fn a_ciphertext_of_a_wrong_length_fails_the_set_up() {
    let mut world = pair().world(1);
    world.begin_saying(|node, message, ledger| {
        (node == 1 && is(message, INTERMEDIATE, true)).then(|| rewritten(message, ledger, wrong_length))
    });
    let failed = |event: &Event| matches!(event, Event::IkeFailed { is_initiator: true, .. });
    assert_eq!(world.saw(0, failed), 1);
    assert_eq!(world.state(0), State::Blocked);
    recovers(world);
}

/// The same in CREATE_CHILD_SA and in IKE_FOLLOWUP_KE: the initiator deletes the IKE SA.
#[test]
fn a_ciphertext_of_a_wrong_length_ends_a_live_ike_sa() {
    let in_followup: Rewrite = |node, message, ledger| {
        (node == 1 && is(message, FOLLOWUP, true)).then(|| rewritten(message, ledger, wrong_length))
    };
    let in_create: Rewrite = |node, message, ledger| {
        (node == 1 && is(message, CREATE, true)).then(|| {
            rewritten(message, ledger, |first, content| {
                // SA, Nonce, KE, TSi, TSr: what stands before KE stays.
                let at = start_of_ke(first, &content);
                let (_, ke) = wrong_length(PayloadType::KE, content[at..].to_vec());
                (first, [&content[..at], &ke].concat())
            })
        })
    };
    let cases = [
        ("aes256gcm16-x25519-ke1_mlkem768", REKEY, in_followup),
        ("aes256gcm16-mlkem512", REKEY, in_create),
        ("aes256gcm16-esn", CommandKind::RekeyIke, in_followup),
    ];
    for (proposal, command, rewrite) in cases {
        let mut world = running(proposal);
        world.rewrite = Some(rewrite);
        world.command(0, command.clone());
        world.run_for(Duration::from_secs(2));
        let deleted = said(&world).iter().any(|said| {
            said.is(0, ExchangeType::INFORMATIONAL, false) && said.payloads == [PayloadType::DELETE]
        });
        assert!(deleted, "{proposal}");
        // A responder that has rekeyed the IKE SA keeps the new one until INITIAL_CONTACT: the DELETE is of the old.
        let nodes = if command == CommandKind::RekeyIke { 0..1 } else { 0..2 };
        for node in nodes {
            let removed = |event: &Event| matches!(event, Event::IkeRemoved { .. });
            assert_eq!(world.saw(node, removed), 1, "{proposal}, node {node}");
        }
        recovers(world);
    }
}

/// RFC 9370 section 2.2.4, and RFC 7296 section 2.21.3: a wrong request in IKE_FOLLOWUP_KE.
#[test]
fn a_wrong_request_in_ike_followup_ke_is_fatal() {
    let another_method: Rewrite = |node, message, ledger| {
        (node == 0 && is(message, FOLLOWUP, false)).then(|| rewritten(message, ledger, another_method))
    };
    let unreduced: Rewrite = |node, message, ledger| {
        (node == 0 && is(message, FOLLOWUP, false)).then(|| rewritten(message, ledger, unreduced))
    };
    for rewrite in [another_method, unreduced] {
        let mut world = running("aes256gcm16-x25519-ke1_mlkem768");
        world.rewrite = Some(rewrite);
        world.command(0, REKEY);
        world.run_for(Duration::from_secs(2));
        assert_eq!(answers(&world, FOLLOWUP, NotifyType::INVALID_SYNTAX), 1);
        for node in 0..2 {
            let removed =
                |event: &Event| matches!(event, Event::IkeRemoved { reason: Reason::ProtocolError, .. });
            assert_eq!(world.saw(node, removed), 1, "node {node}");
        }
        recovers(world);
    }
}

/// RFC 9370 section 2.2.4: a link that names no series is answered with STATE_NOT_FOUND; the initiator starts over, and deletes the
/// IKE SA when that happens again and again.
#[test]
fn a_series_that_the_peer_does_not_know_starts_over_and_ends_the_ike_sa() {
    let mut world = running("aes256gcm16-x25519-ke1_mlkem768");
    world.rewrite = Some(|node, message, ledger| {
        (node == 0 && is(message, FOLLOWUP, false)).then(|| {
            rewritten(message, ledger, |first, mut content| {
                // The link is the last payload.
                *content.last_mut().unwrap() ^= 1;
                (first, content)
            })
        })
    });
    world.command(0, REKEY);
    let removed = |world: &World| world.saw(0, |event| matches!(event, Event::IkeRemoved { .. })) == 1;
    assert!(world.run_until_holds(Duration::from_secs(300), removed));
    let told = world.nodes[1].endpoint.counters().rejected["state_not_found"];
    assert!((3..=8).contains(&told), "{told} times");
    let started = said(&world).iter().filter(|said| said.is(0, CREATE, false)).count();
    assert_eq!(started as u64, told, "each time from the start");
    recovers(world);
}

/// RFC 9370 section 2.2.4: a responder keeps a series for 20 s; what comes later finds nothing, and what comes before goes on.
#[test]
fn a_series_that_is_not_continued_is_dropped() {
    for (wait, is_known) in [(10, true), (25, false)] {
        let mut world = running("aes256gcm16-x25519-ke1_mlkem768");
        let before = world.status(0).ike_sas[0].children[0].id;
        world.rewrite = Some(|node, message, _| (node == 0 && is(message, FOLLOWUP, false)).then(Vec::new));
        world.command(0, REKEY);
        world.run_for(Duration::from_secs(wait));
        world.rewrite = None;
        let is_rekeyed = |world: &World| {
            world.try_settled(1).is_ok() && world.status(0).ike_sas[0].children[0].id != before
        };
        assert!(world.run_until_holds(Duration::from_secs(60), is_rekeyed));
        let told = world.nodes[1].endpoint.counters().rejected.contains_key("state_not_found");
        assert_eq!(told, !is_known, "after {wait} s");
        world.shut_down_and_check();
    }
}

/// RFC 4478 section 2: AUTH_LIFETIME of zero, under protection, asks for authentication at once. Here it comes with a DELETE.
#[test]
fn a_lifetime_of_zero_is_over_at_once() {
    let mut world = running("aes256gcm16-esn");
    world.run_for(Duration::from_secs(10));
    let before = world.status(0).ike_sas[0].id;
    world.rewrite = Some(|node, message, ledger| {
        (node == 1 && is(message, ExchangeType::INFORMATIONAL, false)).then(|| {
            rewritten(message, ledger, |first, content| {
                notified((first, content), NotifyType::AUTH_LIFETIME, &[0; 4])
            })
        })
    });
    world.command(1, REKEY);
    world.run_for(Duration::from_secs(1));
    world.rewrite = None;
    world.run_for(Duration::from_secs(10));
    world.assert_settled(1);
    assert_ne!(world.status(0).ike_sas[0].id, before);
    world.shut_down_and_check();
}

fn another_method(first: PayloadType, mut content: Vec<u8>) -> (PayloadType, Vec<u8>) {
    assert_eq!(first, PayloadType::KE);
    content[METHOD..METHOD + 2].copy_from_slice(&0x4000_u16.to_be_bytes());
    (first, content)
}

/// FIPS 203 section 7.2: the first coefficient is not below q.
fn unreduced(first: PayloadType, mut content: Vec<u8>) -> (PayloadType, Vec<u8>) {
    assert_eq!(first, PayloadType::KE);
    content[DATA..DATA + 2].copy_from_slice(&[0xff, 0xff]);
    (first, content)
}

/// FIPS 203 section 7.3: Key Exchange Data as long as that of the other direction.
fn wrong_length(first: PayloadType, content: Vec<u8>) -> (PayloadType, Vec<u8>) {
    assert_eq!(first, PayloadType::KE);
    let length = usize::from(u16::from_be_bytes([content[2], content[3]]));
    let method = u16::from_be_bytes([content[METHOD], content[METHOD + 1]]);
    let other = match method {
        35 => 800,
        36 => 1184,
        _ => panic!("{method} is no ML-KEM with two lengths"),
    };
    let [high, low] = u16::try_from(DATA + other).unwrap().to_be_bytes();
    let header = [content[0], content[1], high, low];
    let rest = content[length..].to_vec();
    (first, [&header, &content[METHOD..DATA], &vec![1; other], &rest].concat())
}

fn start_of_ke(mut next: PayloadType, content: &[u8]) -> usize {
    let mut at = 0;
    while next != PayloadType::KE {
        next = PayloadType(content[at]);
        at += usize::from(u16::from_be_bytes([content[at + 2], content[at + 3]]));
    }
    at
}

fn hide_in_request(datagram: &mut [u8]) {
    hide(datagram, 0x08);
}

fn hide_in_response(datagram: &mut [u8]) {
    hide(datagram, 0x20);
}

/// INTERMEDIATE_EXCHANGE_SUPPORTED becomes a notification that nobody knows.
fn hide(datagram: &mut [u8], flags: u8) {
    const EXCHANGE: usize = 4 + 18;
    let [high, low] = NotifyType::INTERMEDIATE_EXCHANGE_SUPPORTED.0.to_be_bytes();
    if datagram.get(EXCHANGE..EXCHANGE + 2) != Some(&[ExchangeType::IKE_SA_INIT.0, flags]) {
        return;
    }
    if let Some(at) = datagram.windows(4).position(|window| window == [0, 0, high, low]) {
        datagram[at + 3] = 0xff;
    }
}

fn pair() -> Pair {
    Pair::new(StartTransport::Udp).both(|connection| {
        connection.ike.proposals = vec!["aes256gcm16-prfsha384-x25519-ke1_mlkem768".parse().unwrap()];
        // Nothing is a fragment, so that it can be read and changed.
        connection.ike.fragment_size = 1500;
        connection.ike.retry_min = Duration::from_secs(20);
        connection.ike.retry_max = Duration::from_secs(20);
    })
}

fn running(esp: &str) -> World {
    let pair = pair().both(|connection| connection.children[0].proposals = vec![esp.parse().unwrap()]);
    let mut world = pair.world(1);
    world.run_for(Duration::from_secs(5));
    world.assert_settled(1);
    world.ledger.is_disturbed = true;
    world.sent_datagrams = Some(Vec::new());
    world
}

/// How many different responses of node 1 have this notification.
fn answers(world: &World, exchange: ExchangeType, kind: NotifyType) -> usize {
    let said = said(world);
    let mut ids: Vec<_> = said
        .iter()
        .filter(|said| said.is(1, exchange, true) && said.has(kind))
        .map(|said| (said.header.spi_r, said.header.message_id))
        .collect();
    ids.dedup();
    ids.len()
}

fn recovers(mut world: World) {
    world.rewrite = None;
    let settled = world.run_until_holds(Duration::from_secs(120), |world| world.try_settled(1).is_ok());
    assert!(settled, "{:?} {:?}", world.status(0), world.status(1));
    world.shut_down_and_check();
}
