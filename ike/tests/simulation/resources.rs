//! Several Child SAs with the same selectors, one for each resource (RFC 9611).

use std::collections::BTreeSet;
use std::time::Duration;

use portcullis_ike::codec::{ExchangeType, NotifyType, Payload, PayloadChain, decode_chain};
use portcullis_ike::command::CommandKind;
use portcullis_ike::config::{StartMode, StartTransport};
use portcullis_ike::event::Event;

use crate::configuration::Pair;
use crate::created::rewritten;
use crate::said::{is, said};
use crate::world::World;

const STARTS: [StartTransport; 3] = [StartTransport::Udp, StartTransport::UdpThenTcp, StartTransport::Tcp];
const CREATE: ExchangeType = ExchangeType::CREATE_CHILD_SA;

/// They are all there and in use, at both ends by the same policy, through rekeys of each and of the IKE SA, and come and go
/// together.
#[test]
fn every_resource_has_a_child_sa_of_its_own() {
    for transport in STARTS {
        for esp in ["aes256gcm16-esn", "aes256gcm16-x25519-ke1_mlkem512"] {
            let pair = pair(transport, 4, 4)
                .both(|connection| connection.children[0].proposals = vec![esp.parse().unwrap()]);
            let mut world = pair.world(1);
            world.traffic = Some(Duration::from_millis(20));
            settles(&mut world, 4);
            for node in &world.nodes {
                let resources: BTreeSet<_> =
                    node.in_use.keys().map(|(_, child, resource)| (child.to_string(), *resource)).collect();
                assert_eq!(resources, (0..4).map(|resource| ("net".to_owned(), resource)).collect());
            }
            let before = ids(&world);
            for kind in [CommandKind::RekeyChild { child: Some("net".into()) }, CommandKind::RekeyIke] {
                world.command(0, kind);
                world.run_for(Duration::from_secs(20));
                settles(&mut world, 4);
            }
            assert!(ids(&world).is_disjoint(&before), "each was rekeyed");
            assert_eq!(world.saw(0, |event| matches!(event, Event::CommandDone { result: Ok(_), .. })), 2);

            world.command(0, CommandKind::Down { child: Some("net".into()) });
            world.run_for(Duration::from_secs(10));
            assert!(world.nodes.iter().all(|node| node.outbound.is_empty()), "all of them go");
            world.command(0, CommandKind::Up { child: Some("net".into()) });
            settles(&mut world, 4);
            world.shut_down_and_check();
        }
    }
}

/// SA_RESOURCE_INFO is in the request and in the response, not for the first Child SA, and not in a rekey.
#[test]
fn the_notification_is_where_a_further_child_sa_is_made() {
    let mut world = pair(StartTransport::Udp, 2, 2).world(1);
    world.sent_datagrams = Some(Vec::new());
    settles(&mut world, 2);
    world.command(1, CommandKind::RekeyChild { child: None });
    world.run_for(Duration::from_secs(5));
    settles(&mut world, 2);
    let said = said(&world);
    let with: Vec<_> = said.iter().filter(|said| said.has(NotifyType::SA_RESOURCE_INFO)).collect();
    assert_eq!(with.len(), 2, "{with:#?}");
    assert!(with[0].is(0, CREATE, false) && with[1].is(1, CREATE, true), "{with:#?}");
    for said in with {
        let (_, data) = said.notifies.iter().find(|(kind, _)| *kind == NotifyType::SA_RESOURCE_INFO).unwrap();
        assert_eq!(data[..], 1_u32.to_be_bytes());
    }
    world.shut_down_and_check();
}

/// A responder that takes fewer answers TS_MAX_QUEUE, once: what there is serves, and nothing looks wrong.
#[test]
fn a_responder_takes_as_many_as_it_is_configured_for() {
    for transport in STARTS {
        for (ours, theirs) in [(4, 1), (4, 2), (2, 4)] {
            let mut world = pair(transport, ours, theirs).world(1);
            let expected = usize::from(ours.min(theirs));
            settles(&mut world, expected);
            world.run_for(Duration::from_secs(1800));
            settles(&mut world, expected);
            let told = world.nodes[1].endpoint.counters().rejected.get("ts_max_queue").copied();
            assert_eq!(told, (theirs < ours).then_some(1));
            assert_eq!(world.status(0).detail, "");
            let failed = |event: &Event| matches!(event, Event::ChildFailed { .. });
            assert_eq!((world.saw(0, failed), world.saw(1, failed)), (0, 0));
            world.shut_down_and_check();
        }
    }
}

/// NO_ADDITIONAL_SAS, here because the responder has no room.
#[test]
fn a_responder_without_room_leaves_what_there_is() {
    let mut pair = pair(StartTransport::Udp, 4, 4);
    pair.config_b.max_children = 2;
    let mut world = pair.world(1);
    settles(&mut world, 2);
    world.run_for(Duration::from_secs(600));
    settles(&mut world, 2);
    assert_eq!(world.status(0).detail, "");
    world.shut_down_and_check();
}

/// A peer that does not know RFC 9611 makes an ordinary Child SA: it is deleted, and no other is asked for.
#[test]
fn an_ordinary_child_sa_in_answer_is_deleted() {
    let mut world = pair(StartTransport::Udp, 4, 1).world(1);
    world.ledger.is_disturbed = true;
    world.sent_datagrams = Some(Vec::new());
    world.rewrite = Some(|node, message, ledger| {
        (node == 0 && is(message, CREATE, false)).then(|| {
            rewritten(message, ledger, |first, content| {
                let mut payloads = decode_chain(first, &content).unwrap();
                payloads.retain(|payload| match payload {
                    Payload::Notify(notify) => notify.notify_type != NotifyType::SA_RESOURCE_INFO,
                    _ => true,
                });
                let chain = PayloadChain::encode(&payloads).unwrap();
                (chain.first, chain.bytes)
            })
        })
    });
    world.run_for(Duration::from_secs(600));
    settles(&mut world, 1);
    let asked = said(&world).iter().filter(|said| said.is(0, CREATE, false)).count();
    assert_eq!(asked, 1);
    world.shut_down_and_check();
}

/// Both ends want them, and ask for each other's at once; over links that lose, double and reorder.
#[test]
fn both_ends_may_ask_at_once() {
    for transport in STARTS {
        for seed in 0..10 {
            for loss in [0, 10] {
                let pair =
                    pair(transport, 3, 3).both(|connection| connection.children[0].start = StartMode::Always);
                let mut world = pair.world(seed);
                world.weather.loss = loss;
                world.weather.duplicates = loss;
                world.weather.jitter = Duration::from_millis(20);
                world.run_for(Duration::from_secs(120));
                world.weather.loss = 0;
                settles(&mut world, 3);
                for _ in 0..2 {
                    world.command(0, CommandKind::RekeyChild { child: None });
                    world.command(1, CommandKind::RekeyChild { child: None });
                    world.run_for(Duration::from_secs(30));
                }
                settles(&mut world, 3);
                world.shut_down_and_check();
            }
        }
    }
}

/// RFC 4478: the next IKE SA has them too; one that gets fewer takes over all the same.
#[test]
fn another_ike_sa_takes_over_with_what_it_gets() {
    for fewer in [false, true] {
        let mut pair = pair(StartTransport::Udp, 3, 3);
        pair.a.ike.reauth_after = Some(Duration::from_secs(600));
        let mut world = pair.world(1);
        settles(&mut world, 3);
        let before = world.status(0).ike_sas[0].id;
        if fewer {
            world.nodes[1].spis.lock().unwrap().slots = Some(4);
        }
        world.run_for(Duration::from_secs(700));
        let is_replaced = |world: &World| world.status(0).ike_sas.iter().all(|ike_sa| ike_sa.id != before);
        assert!(world.run_until_holds(Duration::from_secs(60), is_replaced));
        settles(&mut world, if fewer { 1 } else { 3 });
        world.shut_down_and_check();
    }
}

fn pair(transport: StartTransport, ours: u8, theirs: u8) -> Pair {
    let mut pair = Pair::new(transport);
    pair.a.children[0].per_resource = ours;
    pair.b.children[0].per_resource = theirs;
    pair
}

fn settles(world: &mut World, children: usize) {
    let settled =
        world.run_until_holds(Duration::from_secs(120), |world| world.try_settled(children).is_ok());
    assert!(settled, "{:?}\n{:#?}\n{:#?}", world.try_settled(children), world.status(0), world.status(1));
}

fn ids(world: &World) -> BTreeSet<portcullis_ike::action::ChildId> {
    world.status(0).ike_sas[0].children.iter().map(|child| child.id).collect()
}
