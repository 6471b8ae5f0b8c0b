//! REDIRECT (RFC 5685), both sides: A initiates, B sends it to C.

use std::net::IpAddr;
use std::time::Duration;

use portcullis_ike::codec::{AddressRange, ExchangeType, NotifyType};
use portcullis_ike::command::CommandKind;
use portcullis_ike::config::{EndpointConfig, Identity, RedirectWhen, StartTransport};
use portcullis_ike::event::Event;
use portcullis_ike::path::IkeTransport;
use portcullis_ike::status::{Reason, State};

use crate::configuration::{A, B, Pair};
use crate::created::rewritten;
use crate::said::{is, notified, said};
use crate::world::World;

const STARTS: [StartTransport; 3] = [StartTransport::Udp, StartTransport::UdpThenTcp, StartTransport::Tcp];
const C: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 3));

/// Sections 3 and 6, and RFC 9329 section 7.2: the start is that of the configuration again.
#[test]
fn an_initiator_goes_where_it_is_sent() {
    for transport in STARTS {
        for when in [RedirectWhen::Init, RedirectWhen::Auth] {
            let mut world = world(transport, |pair| {
                (pair.b.redirect.to, pair.b.redirect.when) = (Some(C), when);
            });
            world.run_for(Duration::from_secs(5));
            is_up_with(&world, 2);
            assert!(world.status(1).ike_sas.is_empty(), "{when:?}");
            assert_eq!(world.saw(0, followed), 1);
            assert_eq!(world.nodes[1].endpoint.counters().redirects, 1);
            let child = |event: &Event| matches!(event, Event::ChildEstablished { .. });
            assert_eq!(world.saw(1, child), 0, "no child is made with a gateway that sends on");
            let started = |event: &Event| match event {
                Event::IkeEstablished { started_on, .. } => {
                    (*started_on == IkeTransport::Tcp) == (transport == StartTransport::Tcp)
                }
                _ => false,
            };
            assert!(world.saw(0, started) >= 1);
            world.shut_down_and_check();
        }
    }
}

/// Section 5: in the middle of a life, the new IKE SA is there before the old one goes.
#[test]
fn a_live_ike_sa_is_sent_elsewhere_without_a_gap() {
    for transport in STARTS {
        let mut world = world(transport, |_| {});
        world.run_for(Duration::from_secs(5));
        is_up_with(&world, 1);
        let from = world.now;
        world.command(1, CommandKind::Redirect { to: C });
        world.run_for(Duration::from_secs(20));
        is_up_with(&world, 2);
        let position = |is_it: fn(&Event) -> bool| {
            let later = |(at, event): &(_, Event)| *at > from && is_it(event);
            world.nodes[0].events.iter().position(later).unwrap()
        };
        let up = position(|event| matches!(event, Event::ChildEstablished { .. }));
        let gone = position(|event| matches!(event, Event::IkeRemoved { reason: Reason::Redirected, .. }));
        assert!(up < gone, "{transport:?}: {:#?}", world.nodes[0].events);
        assert!(world.status(1).ike_sas.is_empty());
        world.shut_down_and_check();
    }
}

/// Section 5: who stays after REDIRECT is disconnected. The gateway that it names is not there, so the old one is tried again.
#[test]
fn a_gateway_that_is_not_there_leads_back() {
    let mut world = world(StartTransport::Udp, |_| {});
    world.nodes[2].address = IpAddr::from([0, 0, 0, 0]);
    world.run_for(Duration::from_secs(5));
    is_up_with(&world, 1);
    let old = world.status(0).ike_sas[0].spis;
    world.command(1, CommandKind::Redirect { to: C });
    world.run_for(Duration::from_secs(20));
    assert_eq!(world.status(0).ike_sas[0].spis, old, "what there is serves on");
    assert!(matches!(world.state(0), State::DirectIp | State::DirectUdp));
    world.run_for(Duration::from_secs(240));
    is_up_with(&world, 1);
    assert_ne!(world.status(0).ike_sas[0].spis, old);
    world.shut_down_and_check();
}

/// Only to gateways that are allowed, and by a peer that was told so.
#[test]
fn what_is_not_allowed_is_not_followed() {
    for transport in STARTS {
        for when in [RedirectWhen::Init, RedirectWhen::Auth] {
            let mut world = world(transport, |pair| {
                (pair.b.redirect.to, pair.b.redirect.when) = (Some(C), when);
                pair.a.redirect.follow = vec![AddressRange::new(B, B).unwrap()];
            });
            world.run_for(Duration::from_secs(4));
            let status = world.status(0);
            assert_eq!((status.state, status.reason), (State::Blocked, Reason::RedirectRefused), "{when:?}");
            assert_eq!((world.saw(0, followed), world.saw(2, established)), (0, 0));
            world.shut_down_and_check();
        }
        let mut world = world(transport, |pair| {
            pair.b.redirect.to = Some(C);
            pair.a.redirect.follow = Vec::new();
        });
        world.run_for(Duration::from_secs(5));
        is_up_with(&world, 1);
        world.command(1, CommandKind::Redirect { to: C });
        world.run_for(Duration::from_secs(5));
        is_up_with(&world, 1);
        world.shut_down_and_check();
    }
}

/// Section 7: MAX_REDIRECTS within REDIRECT_LOOP_DETECT_PERIOD.
#[test]
fn gateways_do_not_send_us_round_in_circles() {
    for transport in STARTS {
        for when in [RedirectWhen::Init, RedirectWhen::Auth] {
            let mut world = world(transport, |pair| {
                (pair.b.redirect.to, pair.b.redirect.when) = (Some(C), when);
            });
            let mut c = world.nodes[2].config.1.clone();
            (c[0].redirect.to, c[0].redirect.when) = (Some(B), when);
            let now = world.now;
            world.nodes[2].endpoint.set_connections(now, c);
            world.run_for(Duration::from_secs(290));
            assert_eq!(world.saw(0, followed), 5, "{transport:?} {when:?}");
            let refused = |event: &Event| matches!(event, Event::Redirected { refused: Some(_), .. });
            assert!(world.saw(0, refused) >= 1);
            world.shut_down_and_check();
        }
    }
}

/// Section 3: a REDIRECT without our nonce is passed over, and the right answer waited for.
#[test]
fn a_redirect_without_our_nonce_is_passed_over() {
    let mut world = world(StartTransport::Udp, |pair| pair.b.redirect.to = Some(C));
    world.distort = Some(spoil_nonce);
    world.run_for(Duration::from_millis(500));
    assert_eq!(world.nodes[0].endpoint.counters().rejected["redirect_without_our_nonce"], 1);
    assert_eq!((world.state(0), world.saw(0, followed)), (State::Connecting, 0));
    world.distort = None;
    world.run_for(Duration::from_secs(5));
    is_up_with(&world, 2);
    world.shut_down_and_check();
}

fn followed(event: &Event) -> bool {
    matches!(event, Event::Redirected { refused: None, .. })
}

fn established(event: &Event) -> bool {
    matches!(event, Event::IkeEstablished { .. })
}

/// A has one IKE SA, with this node, which has one with A, and a child on it.
fn is_up_with(world: &World, peer: usize) {
    let (ours, theirs) = (world.status(0), world.status(peer));
    assert_eq!((ours.ike_sas.len(), theirs.ike_sas.len()), (1, 1), "{ours:#?} {theirs:#?}");
    assert_eq!(ours.ike_sas[0].spis, theirs.ike_sas[0].spis);
    assert_eq!((ours.ike_sas[0].children.len(), theirs.ike_sas[0].children.len()), (1, 1));
    assert!(matches!(ours.state, State::DirectIp | State::DirectUdp), "{ours:#?}");
}

/// Section 10: "only the original responder" redirects. One of the initiator's is passed over, and it is given no command for it.
#[test]
fn an_initiator_sends_nobody_elsewhere() {
    let mut world = world(StartTransport::Udp, |pair| {
        pair.b.redirect.follow = pair.a.redirect.follow.clone();
    });
    world.run_for(Duration::from_secs(5));
    is_up_with(&world, 1);
    world.command(0, CommandKind::Redirect { to: C });
    let refused = |event: &Event| matches!(event, Event::CommandDone { result: Err(_), .. });
    assert_eq!(world.saw(0, refused), 1);
    world.ledger.is_disturbed = true;
    world.sent_datagrams = Some(Vec::new());
    world.rewrite = Some(|node, message, ledger| {
        (node == 0 && is(message, ExchangeType::INFORMATIONAL, false)).then(|| {
            rewritten(message, ledger, |first, content| {
                notified((first, content), NotifyType::REDIRECT, &[1, 4, 198, 51, 100, 3])
            })
        })
    });
    world.command(0, CommandKind::RekeyChild { child: None });
    world.run_for(Duration::from_secs(30));
    assert!(said(&world).iter().any(|said| said.node == 0 && said.has(NotifyType::REDIRECT)));
    assert_eq!((world.saw(1, followed), world.saw(2, established)), (0, 0));
    is_up_with(&world, 1);
    world.shut_down_and_check();
}

/// Section 11: who an initiator is, is not known in IKE_SA_INIT. Two connections that its address may mean say different things:
/// it is sent elsewhere when it is authenticated, or not at all.
#[test]
fn nobody_is_sent_elsewhere_for_what_another_connection_says() {
    let mut pair = Pair::new(StartTransport::Udp);
    pair.a.redirect.follow = vec![AddressRange::from_prefix(IpAddr::from([198, 51, 100, 0]), 24).unwrap()];
    let mut other = pair.b.clone();
    other.name = "other".into();
    other.remote_id = Identity::Fqdn("other".into());
    (other.redirect.to, other.redirect.when) = (Some(C), RedirectWhen::Init);
    let nodes = vec![(pair.config_a, vec![pair.a], A), (pair.config_b, vec![pair.b, other], B)];
    let mut world = World::new(1, nodes);
    world.run_for(Duration::from_secs(5));
    is_up_with(&world, 1);
    assert_eq!(world.nodes[1].endpoint.counters().redirects, 0);
    world.shut_down_and_check();
}

fn spoil_nonce(datagram: &mut [u8]) {
    if datagram.get(22..24) == Some(&[34, 0x20])
        && let Some(last) = datagram.last_mut()
    {
        *last ^= 1;
    }
}

fn world(transport: StartTransport, bend: impl Fn(&mut Pair)) -> World {
    let mut pair = Pair::new(transport);
    pair.a.redirect.follow = vec![AddressRange::from_prefix(IpAddr::from([198, 51, 100, 0]), 24).unwrap()];
    let mut c = pair.b.clone();
    c.local_address = Some(C);
    bend(&mut pair);
    World::new(
        7,
        vec![
            (pair.config_a, vec![pair.a], A),
            (pair.config_b, vec![pair.b], B),
            (EndpointConfig::default(), vec![c], C),
        ],
    )
}
