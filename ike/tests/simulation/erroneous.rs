//! Messages that are wrong, under protection: what is answered, and what is left of the IKE SA (RFC 7296 section 2.21).

use std::time::Duration;

use portcullis_ike::codec::{ExchangeType, NotifyType, PayloadType};
use portcullis_ike::command::CommandKind;
use portcullis_ike::config::StartTransport;
use portcullis_ike::event::Event;
use portcullis_ike::status::{Reason, State};

use crate::configuration::Pair;
use crate::created::rewritten;
use crate::said::{is, notified, preceded, said};
use crate::world::World;

const AUTH: ExchangeType = ExchangeType::IKE_AUTH;
const CREATE: ExchangeType = ExchangeType::CREATE_CHILD_SA;
const REKEY: CommandKind = CommandKind::RekeyChild { child: None };
/// A payload type that IANA has not assigned.
const UNKNOWN: u8 = 200;

/// Sections 2.5 and 2.21.2: in IKE_AUTH, the answer names the payload and the half-open IKE SA is gone.
#[test]
fn an_unknown_critical_payload_in_ike_auth_fails_the_set_up() {
    let mut world = pair().world(1);
    world.begin_saying(|node, message, ledger| {
        (node == 0 && is(message, AUTH, false)).then(|| {
            rewritten(message, ledger, |first, content| preceded((first, content), UNKNOWN, true, &[]))
        })
    });
    let answer = answers(&world, AUTH, NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD);
    assert_eq!(answer, [vec![UNKNOWN]]);
    assert_eq!(world.state(0), State::Blocked);
    assert!(world.status(0).detail.contains("UNSUPPORTED_CRITICAL_PAYLOAD"), "{}", world.status(0).detail);
    assert_eq!(world.nodes[1].endpoint.counters().half_open, 0);
    recovers(world);
}

/// Section 2.21.2: IKE_AUTH that cannot be parsed.
#[test]
fn a_malformed_ike_auth_is_answered_with_invalid_syntax() {
    let mut world = pair().world(1);
    world.begin_saying(|node, message, ledger| {
        (node == 0 && is(message, AUTH, false)).then(|| rewritten(message, ledger, malformed))
    });
    assert_eq!(answers(&world, AUTH, NotifyType::INVALID_SYNTAX).len(), 1);
    assert_eq!(world.state(0), State::Blocked);
    assert_eq!(world.nodes[1].endpoint.counters().half_open, 0);
    recovers(world);
}

/// Section 2.21.3: the request is answered with the error, and the IKE SA and its child serve on.
#[test]
fn an_unknown_critical_payload_fails_its_request_alone() {
    let mut world = running();
    let before = world.status(0).ike_sas[0].children[0].id;
    world.rewrite = Some(|node, message, ledger| {
        (node == 0 && is(message, CREATE, false)).then(|| {
            rewritten(message, ledger, |first, content| preceded((first, content), UNKNOWN, true, &[7]))
        })
    });
    world.command(0, REKEY);
    world.run_for(Duration::from_secs(5));
    assert_eq!(answers(&world, CREATE, NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD), [vec![UNKNOWN]]);
    assert_eq!(world.status(0).ike_sas[0].children[0].id, before);
    assert_eq!(removed(&world, 0) + removed(&world, 1), 0);
    recovers(world);
}

/// Section 2.5: the same payload without the critical bit is passed over.
#[test]
fn an_unknown_payload_that_is_not_critical_is_passed_over() {
    let mut world = pair().world(1);
    world.begin_saying(|_, message, ledger| {
        is(message, AUTH, false).then(|| {
            rewritten(message, ledger, |first, content| preceded((first, content), UNKNOWN, false, &[7; 9]))
        })
    });
    world.assert_settled(1);
    world.shut_down_and_check();
}

/// Section 2.21.3: INVALID_SYNTAX is answered, and fatal at both peers.
#[test]
fn a_malformed_request_ends_the_ike_sa_at_both_ends() {
    let mut world = running();
    world.rewrite = Some(|node, message, ledger| {
        (node == 0 && is(message, CREATE, false)).then(|| rewritten(message, ledger, malformed))
    });
    world.command(0, REKEY);
    world.run_for(Duration::from_secs(1));
    assert_eq!(answers(&world, CREATE, NotifyType::INVALID_SYNTAX).len(), 1);
    for node in 0..2 {
        assert_eq!(removed(&world, node), 1, "node {node}");
    }
    recovers(world);
}

/// Section 2.21.3: errors in responses are not reported back; the state goes.
#[test]
fn a_malformed_response_ends_the_ike_sa_without_a_word() {
    let mut world = running();
    let spis = world.status(0).ike_sas[0].spis;
    world.rewrite = Some(|node, message, ledger| {
        (node == 1 && is(message, CREATE, true)).then(|| rewritten(message, ledger, malformed))
    });
    world.command(0, REKEY);
    world.run_for(Duration::from_secs(1));
    assert_eq!(removed(&world, 0), 1);
    let after = |said: &&crate::said::Said| said.node == 0 && (said.header.spi_i, said.header.spi_r) == spis;
    let said = said(&world);
    let after: Vec<_> = said.iter().filter(after).collect();
    assert_eq!(after.len(), 1, "the request, and nothing after its response: {after:#?}");
    recovers(world);
}

/// Sections 1.3.1, 2.22 and 3.15: what the peer offers and we do not do is neither returned nor an error.
#[test]
fn transport_mode_compression_and_configuration_are_not_returned() {
    let mut world = pair().world(1);
    world.begin_saying(|node, message, ledger| {
        (node == 0 && is(message, AUTH, false)).then(|| {
            rewritten(message, ledger, |first, content| {
                let chain = notified((first, content), NotifyType::USE_TRANSPORT_MODE, &[]);
                // A CPI and DEFLATE.
                let chain = notified(chain, NotifyType::IPCOMP_SUPPORTED, &[0x12, 0x34, 2]);
                let chain = notified(chain, NotifyType::ESP_TFC_PADDING_NOT_SUPPORTED, &[]);
                // CFG_REQUEST for INTERNAL_IP4_ADDRESS.
                preceded(chain, PayloadType::CP.0, false, &[1, 0, 0, 0, 0, 1, 0, 0])
            })
        })
    });
    world.assert_settled(1);
    world.command(1, REKEY);
    world.run_for(Duration::from_secs(5));
    let said = said(&world);
    assert!(said.iter().any(|said| said.is(0, AUTH, false) && said.has(NotifyType::IPCOMP_SUPPORTED)));
    for said in said.iter().filter(|said| !said.is(0, AUTH, false)) {
        for kind in [
            NotifyType::USE_TRANSPORT_MODE,
            NotifyType::IPCOMP_SUPPORTED,
            NotifyType::ESP_TFC_PADDING_NOT_SUPPORTED,
        ] {
            assert!(!said.has(kind), "{said:?}");
        }
        assert!(!said.payloads.contains(&PayloadType::CP), "{said:?}");
    }
    world.shut_down_and_check();
}

/// Section 2.8: an IKE SA that cannot be rekeyed is closed at the end of its lifetime, and set up anew.
#[test]
fn an_ike_sa_that_cannot_be_rekeyed_is_closed_at_its_end() {
    let minutes = |n: u64| Duration::from_secs(60 * n);
    let pair = pair().both(|connection| {
        connection.ike.rekey_after = minutes(10);
        connection.ike.lifetime = minutes(15);
    });
    let mut world = pair.world(1);
    world.run_for(Duration::from_secs(5));
    world.assert_settled(1);
    let began = world.now;
    world.rewrite = Some(|node, message, ledger| {
        (node == 1 && is(message, CREATE, true)).then(|| {
            rewritten(message, ledger, |_, _| {
                notified((PayloadType::NONE, Vec::new()), NotifyType::NO_PROPOSAL_CHOSEN, &[])
            })
        })
    });
    world.ledger.is_disturbed = true;
    assert!(world.run_until_holds(minutes(16), |world| removed_at_all(world, 0) == 1));
    let after = world.now.since(began);
    assert!(after >= minutes(14) && after <= minutes(15), "{after:?}");
    recovers(world);
}

fn malformed(first: PayloadType, content: Vec<u8>) -> (PayloadType, Vec<u8>) {
    // A Notify payload that ends within its fixed part.
    preceded((first, content), PayloadType::NOTIFY.0, false, &[0])
}

fn pair() -> Pair {
    Pair::new(StartTransport::Udp).both(|connection| {
        connection.ike.proposals = vec!["aes256gcm16-prfsha384-x25519".parse().unwrap()];
        connection.ike.retry_min = Duration::from_secs(20);
        connection.ike.retry_max = Duration::from_secs(20);
    })
}

fn running() -> World {
    let mut world = pair().world(1);
    world.run_for(Duration::from_secs(5));
    world.assert_settled(1);
    world.ledger.is_disturbed = true;
    world.sent_datagrams = Some(Vec::new());
    world
}

/// The data of these notifications in the responses of node 1, each once however often it was repeated.
fn answers(world: &World, exchange: ExchangeType, kind: NotifyType) -> Vec<Vec<u8>> {
    let mut data: Vec<_> = said(world)
        .into_iter()
        .filter(|said| said.is(1, exchange, true))
        .flat_map(|said| said.notifies)
        .filter(|(known, _)| *known == kind)
        .map(|(_, data)| data)
        .collect();
    data.dedup();
    data
}

fn removed(world: &World, node: usize) -> usize {
    world.saw(node, |event| matches!(event, Event::IkeRemoved { reason: Reason::ProtocolError, .. }))
}

fn removed_at_all(world: &World, node: usize) -> usize {
    world.saw(node, |event| matches!(event, Event::IkeRemoved { .. }))
}

fn recovers(mut world: World) {
    world.rewrite = None;
    let settled = world.run_until_holds(Duration::from_secs(120), |world| world.try_settled(1).is_ok());
    assert!(settled, "{:?} {:?}", world.status(0), world.status(1));
    world.shut_down_and_check();
}
