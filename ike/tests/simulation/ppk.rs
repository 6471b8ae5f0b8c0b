//! Post-quantum preshared keys in IKE_AUTH (RFC 8784) and in IKE_INTERMEDIATE (RFC 9867).

use std::time::Duration;

use portcullis_ike::codec::{ExchangeType, Notify, NotifyType, PayloadChain, decode_chain};
use portcullis_ike::command::CommandKind;
use portcullis_ike::config::{Identity, Ppk, Secret, StartTransport};
use portcullis_ike::event::Event;
use portcullis_ike::status::{Reason, State};

use crate::configuration::{A, B, Pair};
use crate::created::rewritten;
use crate::said::is;
use crate::world::World;

const STARTS: [StartTransport; 3] = [StartTransport::Udp, StartTransport::UdpThenTcp, StartTransport::Tcp];
const PLAIN: &str = "aes256gcm16-prfsha384-x25519";
const HYBRID: &str = "aes256gcm16-prfsha384-x25519-ke1_mlkem768-ke2_mlkem512";

/// RFC 8784 section 3, and RFC 9867 with and without additional key exchanges: it is in the keys of both ends, and rekeys go
/// on from there.
#[test]
fn a_ppk_of_both_ends_is_in_the_keys() {
    for transport in STARTS {
        for (proposal, intermediate) in [(PLAIN, false), (HYBRID, false), (PLAIN, true), (HYBRID, true)] {
            for required in [(true, true), (true, false), (false, true), (false, false)] {
                let a = Ppk { intermediate, required: required.0, ..ppk("one", "key") };
                let b = Ppk { intermediate, required: required.1, ..ppk("one", "key") };
                let mut world = pair(transport, proposal, Some(a), Some(b)).world(1);
                world.traffic = Some(Duration::from_millis(100));
                comes_up(&mut world, true);
                for kind in [CommandKind::RekeyIke, CommandKind::RekeyChild { child: None }] {
                    world.command(0, kind);
                    world.run_for(Duration::from_secs(5));
                }
                comes_up(&mut world, true);
                world.shut_down_and_check();
            }
        }
    }
}

/// RFC 9867: an end that takes PPKs in IKE_AUTH alone gets them there.
#[test]
fn ends_that_differ_meet_in_ike_auth() {
    for (a, b) in [(true, false), (false, true)] {
        let [a, b] = [a, b].map(|intermediate| Ppk { intermediate, ..ppk("one", "key") });
        let mut world = pair(StartTransport::Udp, PLAIN, Some(a), Some(b)).world(1);
        comes_up(&mut world, true);
        world.shut_down_and_check();
    }
}

/// RFC 8784 section 3, table 1: optional at both ends, and not the same or not there.
#[test]
fn an_optional_ppk_is_done_without_where_the_other_end_lacks_it() {
    for transport in STARTS {
        for intermediate in [false, true] {
            let optional = |id: &str| Some(Ppk { required: false, intermediate, ..ppk(id, id) });
            for (a, b) in
                [(optional("one"), None), (None, optional("one")), (optional("one"), optional("two"))]
            {
                let mut world = pair(transport, PLAIN, a.clone(), b).world(1);
                comes_up(&mut world, false);
                let told = |event: &Event| matches!(event, Event::IkeEstablished { ppk: Some(false), .. });
                assert_eq!(world.saw(0, told), usize::from(a.is_some()), "the operator hears of it");
                world.shut_down_and_check();
            }
        }
    }
}

/// RFC 8784 section 3, table 1: required by one end at least, and not the same or not there.
#[test]
fn a_required_ppk_is_insisted_on() {
    let optional = |id: &str| Some(Ppk { required: false, ..ppk(id, id) });
    let required = |id: &str| Some(ppk(id, id));
    let refused = Reason::AuthenticationFailed;
    for transport in STARTS {
        for (a, b, reasons) in [
            (required("one"), None, (Reason::PeerNoPpk, Reason::None)),
            (None, required("one"), (refused, Reason::PeerNoPpk)),
            (required("one"), required("two"), (refused, Reason::PeerNoPpk)),
            (required("one"), optional("two"), (refused, Reason::PeerNoPpk)),
            (optional("one"), required("two"), (refused, Reason::PeerNoPpk)),
        ] {
            fails(pair(transport, PLAIN, a, b).world(1), reasons);
        }
    }
}

/// RFC 9867: the confirmation tells before IKE_AUTH that the keys differ.
#[test]
fn the_same_name_for_another_key_fails() {
    for (intermediate, responder) in [(false, Reason::AuthenticationFailed), (true, Reason::PeerNoPpk)] {
        let [a, b] = ["key", "another"].map(|key| Ppk { intermediate, ..ppk("one", key) });
        let world = pair(StartTransport::Udp, PLAIN, Some(a), Some(b)).world(1);
        fails(world, (Reason::AuthenticationFailed, responder));
    }
}

/// RFC 8784 section 6: a response without USE_PPK may be forged, so the right one is waited for.
#[test]
fn a_response_without_use_ppk_is_passed_over() {
    let both = || Some(ppk("one", "key"));
    let mut world = pair(StartTransport::Udp, PLAIN, both(), both()).world(1);
    world.distort = Some(hide_use_ppk);
    world.run_for(Duration::from_secs(2));
    assert_eq!(world.state(0), State::Connecting);
    world.distort = None;
    comes_up(&mut world, true);
    let failed = |event: &Event| matches!(event, Event::IkeFailed { is_initiator: true, .. });
    assert_eq!(world.saw(0, failed), 0, "the same attempt has gone on");
    world.shut_down_and_check();
}

/// RFC 8784 section 3: USE_PPK was exchanged, and the initiator names no PPK.
#[test]
fn an_initiator_that_names_no_ppk_is_refused() {
    let optional = || Some(Ppk { required: false, ..ppk("one", "key") });
    let mut world = pair(StartTransport::Udp, PLAIN, optional(), optional()).world(1);
    world.ledger.is_disturbed = true;
    world.rewrite = Some(|node, message, ledger| {
        (node == 0 && is(message, ExchangeType::IKE_AUTH, false)).then(|| {
            rewritten(message, ledger, |first, content| {
                let mut payloads = decode_chain(first, &content).unwrap();
                let is_name = |notify: &Notify<'_>| notify.notify_type == NotifyType::PPK_IDENTITY;
                payloads.retain(|payload| !payload.as_notify().is_some_and(is_name));
                let chain = PayloadChain::encode(&payloads).unwrap();
                (chain.first, chain.bytes)
            })
        })
    });
    fails(world, (Reason::AuthenticationFailed, Reason::PeerNoPpk));
}

/// The addresses may mean two connections, each with a PPK: one that has the other's is not let in by it.
#[test]
fn the_ppk_of_another_connection_is_refused() {
    for intermediate in [false, true] {
        let [one, two] = ["one", "two"].map(|id| Ppk { intermediate, ..ppk(id, id) });
        let pair = pair(StartTransport::Udp, PLAIN, Some(two.clone()), Some(one));
        let mut other = pair.b.clone();
        other.name = "other".into();
        other.remote_id = Identity::Fqdn("other".into());
        other.ppk = Some(two);
        let nodes = vec![(pair.config_a, vec![pair.a], A), (pair.config_b, vec![pair.b, other], B)];
        let mut world = World::new(1, nodes);
        world.run_for(Duration::from_secs(30));
        let status = world.status(0);
        assert_eq!(status.reason, Reason::AuthenticationFailed, "{intermediate}: {status:?}");
        let established = |event: &Event| matches!(event, Event::IkeEstablished { .. });
        assert_eq!((world.saw(0, established), world.saw(1, established)), (0, 0));
    }
}

fn comes_up(world: &mut World, with_ppk: bool) {
    let is_up = world.run_until_holds(Duration::from_secs(20), |world| world.try_settled(1).is_ok());
    assert!(is_up, "{:#?}\n{:#?}", world.status(0), world.status(1));
    for node in 0..2 {
        assert_eq!(world.status(node).ike_sas[0].ppk, with_ppk, "node {node}");
    }
}

fn fails(mut world: World, (a, b): (Reason, Reason)) {
    world.run_for(Duration::from_secs(70));
    assert_eq!((world.status(0).reason, world.status(1).reason), (a, b));
    let established = |event: &Event| matches!(event, Event::IkeEstablished { .. });
    assert_eq!((world.saw(0, established), world.saw(1, established)), (0, 0));
    world.shut_down_and_check();
}

fn hide_use_ppk(datagram: &mut [u8]) {
    const USE_PPK: [u8; 4] = [0, 0, 0x40, 0x33];
    const RESPONSE: [u8; 2] = [34, 0x20];
    if datagram.get(22..24) == Some(&RESPONSE)
        && let Some(at) = datagram.windows(4).position(|window| window == USE_PPK)
    {
        datagram[at + 3] = 0xff;
    }
}

fn ppk(id: &str, key: &str) -> Ppk {
    Ppk {
        id: id.as_bytes().into(),
        secret: Secret::new(key.as_bytes().to_vec()),
        required: true,
        intermediate: false,
    }
}

fn pair(transport: StartTransport, proposal: &str, a: Option<Ppk>, b: Option<Ppk>) -> Pair {
    let mut pair = Pair::new(transport).both(|connection| {
        connection.ike.proposals = vec![proposal.parse().unwrap()];
        // One attempt, and then a long wait, so that its outcome stays to be seen.
        connection.ike.retry_min = Duration::from_secs(600);
        connection.ike.retry_max = Duration::from_secs(600);
    });
    (pair.a.ppk, pair.b.ppk) = (a, b);
    pair
}
