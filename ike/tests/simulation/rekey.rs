//! Rekeys and deletions, from either side and from both at once (RFC 7296 sections 2.8 and 2.25).

use std::time::Duration;

use portcullis_ike::codec::{
    ExchangeType, Header, Notify, NotifyType, Payload, PayloadChain, ProtocolId, Spi,
};
use portcullis_ike::command::CommandKind;
use portcullis_ike::config::{StartMode, StartTransport};
use portcullis_ike::event::Event;
use portcullis_ike::status::Reason;

use crate::configuration::{Pair, child};
use crate::created::rewritten;
use crate::network::{Protocol, Tcp};
use crate::world::World;

const REKEY_CHILD: CommandKind = CommandKind::RekeyChild { child: None };

#[test]
fn a_child_is_rekeyed_from_either_side_without_loss() {
    for (transport, side) in STARTS {
        let mut world = running(transport, "aes256gcm16-esn");
        for _ in 0..5 {
            rekeys(&mut world, &[(side, REKEY_CHILD)]);
        }
        ends_without_loss(world, 1);
    }
}

/// RFC 7296 section 1.3.3: PFS, with an additional key exchange by RFC 9370 section 2.2.4.
#[test]
fn a_child_with_key_exchanges_of_its_own_is_rekeyed() {
    for (transport, side) in STARTS {
        for proposal in ["aes128gcm16-x25519", "chacha20poly1305-x25519-ke1_mlkem768-ke2_mlkem1024"] {
            let mut world = running(transport, proposal);
            rekeys(&mut world, &[(side, REKEY_CHILD)]);
            let status = world.status(0);
            assert_eq!(status.ike_sas[0].children[0].algorithms, proposal);
            ends_without_loss(world, 1);
        }
    }
}

/// RFC 7296 section 2.18 and RFC 9370 section 2.2.4.
#[test]
fn an_ike_sa_is_rekeyed_from_either_side_without_loss() {
    for (transport, side) in STARTS {
        let mut world = running(transport, "aes256gcm16-esn");
        let spis = world.status(0).ike_sas[0].spis;
        for _ in 0..3 {
            rekeys(&mut world, &[(side, CommandKind::RekeyIke)]);
        }
        assert_ne!(world.status(0).ike_sas[0].spis, spis);
        assert_eq!(world.status(0).ike_sas[0].algorithms, "aes256gcm16-prfsha384-x25519-ke1_mlkem768");
        ends_without_loss(world, 1);
    }
}

/// RFC 7296 section 2.8.1: both rekey the same pair at once; one of the two new pairs survives, on both sides the same.
#[test]
fn simultaneous_child_rekeys_leave_one_pair() {
    for (transport, _) in STARTS {
        for proposal in ["aes256gcm16-esn", "aes256gcm16-x25519", "aes256gcm16-x25519-ke1_mlkem512"] {
            for seed in 0..10 {
                let mut world = running_with_seed(transport, proposal, seed);
                for _ in 0..3 {
                    rekeys(&mut world, &[(0, REKEY_CHILD), (1, REKEY_CHILD)]);
                }
                ends_without_loss(world, 1);
            }
        }
    }
}

/// RFC 7296 section 2.8: the other end rekeys the new pair while the old one is still being deleted. The answer to that DELETE
/// moves no traffic to a pair which its initiator does not have yet.
#[test]
fn a_rekey_on_the_heels_of_another_uses_nothing_early() {
    for (transport, side) in STARTS {
        for offset in (0..80).step_by(2) {
            let mut world = running(transport, "aes256gcm16-esn");
            let before = world.early_uses;
            for (side, wait) in [(side, offset), (1 - side, 10_000)] {
                world.command(side, REKEY_CHILD);
                world.run_for(Duration::from_millis(wait));
            }
            assert_eq!(world.early_uses, before, "{transport:?}, {offset} ms later");
            ends_without_loss(world, 1);
        }
    }
}

/// RFC 7296 section 2.8.2.
#[test]
fn simultaneous_ike_rekeys_leave_one_ike_sa() {
    for (transport, _) in STARTS {
        for ike in ["aes256gcm16-prfsha384-x25519", "aes256gcm16-prfsha384-x25519-ke1_mlkem768"] {
            for seed in 0..10 {
                let pair = Pair::new(transport).both(|connection| {
                    connection.ike.proposals = vec![ike.parse().unwrap()];
                });
                let mut world = pair.world(seed);
                world.traffic = Some(Duration::from_millis(20));
                world.run_for(Duration::from_secs(5));
                for _ in 0..3 {
                    rekeys(&mut world, &[(0, CommandKind::RekeyIke), (1, CommandKind::RekeyIke)]);
                }
                ends_without_loss(world, 1);
            }
        }
    }
}

/// RFC 7296 section 2.25: child and IKE SA rekeyed at once from opposite sides.
#[test]
fn child_and_ike_rekeys_may_collide() {
    for (transport, _) in STARTS {
        for seed in 0..10 {
            let mut world = running_with_seed(transport, "aes256gcm16-x25519", seed);
            rekeys(&mut world, &[(0, CommandKind::RekeyIke), (1, REKEY_CHILD)]);
            rekeys(&mut world, &[(0, REKEY_CHILD), (1, CommandKind::RekeyIke)]);
            rekeys(
                &mut world,
                &[(0, REKEY_CHILD), (0, CommandKind::RekeyIke), (1, REKEY_CHILD), (1, CommandKind::RekeyIke)],
            );
            ends_without_loss(world, 1);
        }
    }
}

/// RFC 7296 section 2.25.1: one side deletes what the other rekeys.
#[test]
fn a_rekey_may_meet_a_delete() {
    for (transport, _) in STARTS {
        for seed in 0..10 {
            let mut world = running_with_seed(transport, "aes256gcm16-x25519", seed);
            world.command(0, REKEY_CHILD);
            world.command(1, CommandKind::Down { child: Some("net".into()) });
            assert!(
                world.run_until_holds(Duration::from_secs(120), |world| world.try_settled(1).is_ok()),
                "`start: always` brings it back: {:?} {:?}",
                world.status(0),
                world.status(1)
            );
            world.shut_down_and_check();
        }
    }
}

/// RFC 7296 section 2.25: "If a peer continues to receive TEMPORARY_FAILURE on the same IKE SA after several minutes, it SHOULD
/// conclude that the state information is out of sync and close the IKE SA." Here the peer has rekeyed it, and we were told that it
/// has not.
#[test]
fn an_ike_sa_whose_ends_are_out_of_sync_is_closed_after_minutes() {
    let mut world = running(StartTransport::Udp, "aes256gcm16-esn");
    world.ledger.is_disturbed = true;
    world.rewrite = Some(|node, message, ledger| {
        let (header, _) = Header::decode(message).ok()?;
        let is_answer = header.exchange == ExchangeType::CREATE_CHILD_SA && header.flags.response;
        (node == 1 && is_answer).then(|| {
            let notify = Notify {
                protocol: ProtocolId::NONE,
                spi: Spi::None,
                notify_type: NotifyType::TEMPORARY_FAILURE,
                data: Default::default(),
            };
            let chain = PayloadChain::encode(&[Payload::Notify(notify)]).unwrap();
            rewritten(message, ledger, |_, _| (chain.first, chain.bytes))
        })
    });
    world.traffic = None;
    let began = world.now;
    world.command(0, REKEY_CHILD);
    let is_closed = |world: &World| world.saw(0, |event| matches!(event, Event::IkeRemoved { .. })) == 1;
    assert!(world.run_until_holds(Duration::from_secs(600), is_closed));
    let after = world.now.since(began).as_secs();
    assert!((180..=480).contains(&after), "after {after} s");
    let reason = |event: &Event| matches!(event, Event::IkeRemoved { reason: Reason::ProtocolError, .. });
    assert_eq!(world.saw(0, reason), 1);
    world.rewrite = None;
    assert!(
        world.run_until_holds(Duration::from_secs(120), |world| world.try_settled(1).is_ok()),
        "and set up anew"
    );
    world.shut_down_and_check();
}

/// RFC 7296 section 2.9.2: "the new SA MUST NOT have narrower selectors than the original".
#[test]
fn a_rekey_that_narrows_is_deleted_and_the_old_pair_serves_on() {
    let mut world = running(StartTransport::Udp, "aes256gcm16-esn");
    world.ledger.is_disturbed = true;
    world.rewrite = Some(|node, message, ledger| {
        let (header, _) = Header::decode(message).ok()?;
        let is_answer = header.exchange == ExchangeType::CREATE_CHILD_SA && header.flags.response;
        (node == 1 && is_answer).then(|| {
            rewritten(message, ledger, |first, mut content| {
                // TSr: 10.2.0.0 to 10.2.255.255.
                let range = [10, 2, 0, 0, 10, 2, 255, 255];
                let at = content.windows(8).position(|octets| octets == range).unwrap();
                content[at + 6] = 127;
                (first, content)
            })
        })
    });
    let before = world.status(0).ike_sas[0].children[0].id;
    world.command(0, REKEY_CHILD);
    world.run_for(Duration::from_secs(5));
    let children = &world.status(0).ike_sas[0].children;
    let alive: Vec<_> = children.iter().map(|child| (child.id, child.in_use)).collect();
    assert_eq!(alive, [(before, true)]);
    let refused = |event: &Event| matches!(event, Event::ChildFailed { reason: Reason::TsUnacceptable, .. });
    assert_eq!(world.saw(0, refused), 1);
    assert_eq!(world.nodes[1].outbound.len(), 1, "the other end has deleted it as well");
    world.shut_down_and_check();
}

/// RFC 7296 section 2.8: the keys that a DELETE of a child left under are deleted before its answer comes. It is asked for again
/// under the new ones, and the peer, which has deleted the pair, says so without it.
#[test]
fn a_delete_that_was_not_answered_before_the_ike_sa_was_replaced_is_asked_again() {
    let mut world = running(StartTransport::Udp, "aes256gcm16-esn");
    world.traffic = None;
    let ms = Duration::from_millis;
    world.command(1, CommandKind::RekeyIke);
    world.run_for(ms(15));
    // Between CREATE_CHILD_SA and IKE_FOLLOWUP_KE.
    world.command(0, CommandKind::Down { child: Some("net".into()) });
    world.run_for(ms(7));
    world.weather.blocked = vec![(1, Protocol::Udp)];
    world.run_for(ms(6));
    world.weather.blocked.clear();
    assert_eq!(
        world.saw(1, |event| matches!(event, Event::ChildRemoved { .. })),
        1,
        "and its answer is lost"
    );
    world.run_for(Duration::from_secs(3));
    assert_eq!(world.saw(0, |event| matches!(event, Event::IkeRekeyed { .. })), 1);
    for node in 0..2 {
        let children = &world.status(node).ike_sas[0].children;
        assert!(children.is_empty(), "node {node}: {children:?}");
    }
    world.shut_down_and_check();
}

/// RFC 7296 section 2.25.1: a child that is taken down while either end rekeys it stays down, whether or not the rekey has come
/// so far that it can only be undone.
#[test]
fn a_child_that_is_taken_down_in_the_midst_of_its_rekey_stays_down() {
    for rekeys in 0..2 {
        for takes_down in 0..2 {
            for esp in ["aes256gcm16-esn", "aes256gcm16-x25519-ke1_mlkem512-ke2_x25519"] {
                for after_ms in (0..200).step_by(5) {
                    let pair = Pair::new(StartTransport::Udp).both(|connection| {
                        connection.children[0].proposals = vec![esp.parse().unwrap()];
                        connection.ike.retry_min = Duration::from_secs(600);
                        connection.ike.retry_max = Duration::from_secs(600);
                    });
                    let mut world = pair.world(after_ms);
                    world.run_for(Duration::from_secs(5));
                    world.command(rekeys, REKEY_CHILD);
                    world.run_for(Duration::from_millis(after_ms));
                    world.command(takes_down, CommandKind::Down { child: Some("net".into()) });
                    world.run_for(Duration::from_secs(30));
                    for node in 0..2 {
                        let pairs = world.nodes[node].inbound.keys();
                        let case = (rekeys, takes_down, esp, after_ms);
                        assert_eq!(pairs.len(), 0, "node {node}: {pairs:x?} in case {case:?}");
                    }
                    world.shut_down_and_check();
                }
            }
        }
    }
}

/// Lifetimes rekey by themselves, hours on end.
#[test]
fn lifetimes_rekey_children_and_ike_sa() {
    for (transport, _) in STARTS {
        let mut world = running(transport, "aes256gcm16-esn");
        world.traffic = Some(Duration::from_secs(1));
        world.run_for(Duration::from_secs(24 * 3600));
        world.assert_settled(1);
        let rekeyed =
            world.saw(0, |event| matches!(event, Event::ChildEstablished { replaces: Some(_), .. }));
        assert!((23..=30).contains(&rekeyed), "{rekeyed} child rekeys in 24 h");
        let rekeyed = world.saw(0, |event| matches!(event, Event::IkeRekeyed { .. }));
        assert!((5..=8).contains(&rekeyed), "{rekeyed} IKE rekeys in 24 h");
        assert_eq!(world.saw(0, |event| matches!(event, Event::IkeRemoved { .. })), 0);
        ends_without_loss(world, 1);
    }
}

/// A rekey under way survives the loss of its stream.
#[test]
fn a_stream_may_break_in_the_middle_of_a_rekey() {
    for after_ms in (0..120).step_by(7) {
        for kind in [REKEY_CHILD, CommandKind::RekeyIke] {
            let mut world = running(StartTransport::Tcp, "aes256gcm16-x25519-ke1_mlkem768");
            world.command(1, kind.clone());
            world.run_for(Duration::from_millis(after_ms));
            world.break_streams();
            world.run_for(Duration::from_secs(60));
            ends_without_loss(world, 1);
        }
    }
}

/// Several children over one IKE SA, made by CREATE_CHILD_SA.
#[test]
fn further_children_join_the_ike_sa() {
    for (transport, side) in STARTS {
        let mut pair = Pair::new(transport);
        for n in 0..4 {
            let (ours, theirs) = (format!("10.1{n}.0.0/24"), format!("2001:db8:{n}::/48"));
            pair.a.children.push(child(&format!("more{n}"), &ours, &theirs));
            pair.b.children.push(child(&format!("more{n}"), &theirs, &ours));
        }
        let _ = side;
        for child in &mut pair.a.children {
            child.start = StartMode::Always;
        }
        // Mixed families cannot be one child of tunnel mode's usual kind, but selectors are independent.
        let mut world = pair.world(3);
        world.run_for(Duration::from_secs(5));
        world.assert_settled(5);
        rekeys(&mut world, &[(0, REKEY_CHILD), (1, REKEY_CHILD), (0, CommandKind::RekeyIke)]);
        world.assert_settled(5);
        world.shut_down_and_check();
    }
}

const STARTS: [(StartTransport, usize); 4] = [
    (StartTransport::Udp, 0),
    (StartTransport::Udp, 1),
    (StartTransport::Tcp, 0),
    (StartTransport::UdpThenTcp, 1),
];

fn running(transport: StartTransport, esp: &str) -> World {
    running_with_seed(transport, esp, 7)
}

fn running_with_seed(transport: StartTransport, esp: &str, seed: u64) -> World {
    let pair = Pair::new(transport).both(|connection| {
        connection.children[0].proposals = vec![esp.parse().unwrap()];
    });
    let mut world = pair.world(seed);
    world.weather.tcp = Tcp::Works;
    world.traffic = Some(Duration::from_millis(20));
    world.run_for(Duration::from_secs(5));
    world.assert_settled(1);
    world
}

fn rekeys(world: &mut World, commands: &[(usize, CommandKind)]) {
    let before = world.early_uses;
    for (side, kind) in commands {
        world.command(*side, kind.clone());
    }
    world.run_for(Duration::from_secs(20));
    assert_eq!(world.early_uses, before, "a rekey uses nothing that the peer does not have");
    for node in 0..2 {
        let failed = world.nodes[node]
            .events
            .iter()
            .filter(|(_, event)| {
                matches!(event, Event::CommandDone { result: Err(_), .. } | Event::ChildFailed { .. })
            })
            .count();
        assert_eq!(failed, 0, "{:#?}", world.nodes[node].events);
    }
}

fn ends_without_loss(mut world: World, children: usize) {
    world.run_for(Duration::from_secs(10));
    world.assert_settled(children);
    assert_eq!((world.nodes[0].unknown_spi, world.nodes[1].unknown_spi), (0, 0), "packets were lost");
    for node in 0..2 {
        assert_eq!(world.nodes[node].inbound.len(), children, "old pairs are gone");
    }
    world.shut_down_and_check();
}
