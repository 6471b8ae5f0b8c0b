//! Children that a packet asks for: its selectors come first, and stay in (RFC 7296 section 2.9).

use std::time::Duration;

use portcullis_ike::codec::{
    ExchangeType, NON_ESP_MARKER, Payload, TrafficSelector, decode_chain, without_non_esp_marker,
};
use portcullis_ike::command::{CommandKind, Fact, PacketSelectors};
use portcullis_ike::config::{ChildConfig, StartMode, StartTransport};

use crate::configuration::{Pair, child};
use crate::created;
use crate::world::World;

/// In IKE_AUTH and in CREATE_CHILD_SA; a rekey is for no packet.
#[test]
fn the_packets_own_selectors_come_first() {
    let mut pair = on_traffic();
    pair.a
        .children
        .push(ChildConfig { start: StartMode::OnTraffic, ..child("more", "10.11.0.0/16", "10.12.0.0/16") });
    pair.b.children.push(child("more", "10.12.0.0/16", "10.11.0.0/16"));
    let mut world = pair.world(1);
    world.sent_datagrams = Some(Vec::new());
    acquire(&mut world, "net", "10.1.0.7/32[tcp/1025]", "10.2.0.9/32[tcp/80]");
    acquire(&mut world, "more", "10.11.0.7/32[icmp]", "10.12.0.9/32[icmp]");
    world.run_for(Duration::from_secs(5));
    world.assert_settled(2);
    world.command(0, CommandKind::RekeyChild { child: Some("net".into()) });
    world.run_for(Duration::from_secs(5));
    let asked = offers(&world);
    let net = (selectors(&["10.1.0.0/16"]), selectors(&["10.2.0.0/16"]));
    assert_eq!(asked.len(), 3);
    assert_eq!(
        asked[0],
        (
            ExchangeType::IKE_AUTH,
            selectors(&["10.1.0.7/32[tcp/1025]", "10.1.0.0/16"]),
            selectors(&["10.2.0.9/32[tcp/80]", "10.2.0.0/16"])
        )
    );
    assert_eq!(
        asked[1],
        (
            ExchangeType::CREATE_CHILD_SA,
            selectors(&["10.11.0.7/32[icmp]", "10.11.0.0/16"]),
            selectors(&["10.12.0.9/32[icmp]", "10.12.0.0/16"])
        )
    );
    assert_eq!(asked[2], (ExchangeType::CREATE_CHILD_SA, net.0, net.1));
    world.shut_down_and_check();
}

/// Where several configured children fit in part, it is the one that the packet belongs to.
#[test]
fn a_responder_that_narrows_keeps_the_packet_in() {
    for (remote, taken) in [("10.2.8.9/32[udp/53]", "10.2.8.0/24"), ("10.2.9.9/32[udp/53]", "10.2.9.0/24")] {
        let mut pair = on_traffic();
        pair.b.children =
            vec![child("eight", "10.2.8.0/24", "10.1.0.0/16"), child("nine", "10.2.9.0/24", "10.1.0.0/16")];
        let mut world = pair.world(1);
        acquire(&mut world, "net", "10.1.0.7/32[udp/1025]", remote);
        world.run_for(Duration::from_secs(5));
        let status = world.status(0);
        let children = &status.ike_sas[0].children;
        assert_eq!(children.len(), 1, "{remote}");
        assert_eq!(children[0].selectors.1.to_vec(), selectors(&[taken]), "{remote}");
        assert_eq!(children[0].selectors.0.to_vec(), selectors(&["10.1.0.0/16"]), "{remote}");
        world.shut_down_and_check();
    }
}

/// A responder may take the packet alone; and what is not the child's own is not offered.
#[test]
fn selectors_of_a_packet_are_offered_only_where_the_child_selects_it() {
    let mut world = on_traffic().world(1);
    world.sent_datagrams = Some(Vec::new());
    acquire(&mut world, "net", "10.1.0.7/32[tcp/1025]", "10.99.0.9/32[tcp/80]");
    world.run_for(Duration::from_secs(5));
    let asked = offers(&world);
    assert_eq!(asked[0].1, selectors(&["10.1.0.7/32[tcp/1025]", "10.1.0.0/16"]));
    assert_eq!(asked[0].2, selectors(&["10.2.0.0/16"]));
    world.shut_down_and_check();

    let mut pair = on_traffic();
    pair.b.children[0].local_ts = selectors(&["10.2.0.9/32[tcp/80]"]);
    let mut world = pair.world(1);
    acquire(&mut world, "net", "10.1.0.7/32[tcp/1025]", "10.2.0.9/32[tcp/80]");
    world.run_for(Duration::from_secs(5));
    assert_eq!(
        world.status(0).ike_sas[0].children[0].selectors.1.to_vec(),
        selectors(&["10.2.0.9/32[tcp/80]"])
    );
    world.shut_down_and_check();
}

/// A packet whose child was taken down before it came up is forgotten.
#[test]
fn down_forgets_the_packet() {
    let mut world = on_traffic().world(1);
    acquire(&mut world, "net", "10.1.0.7/32[tcp/1025]", "10.2.0.9/32[tcp/80]");
    world.command(0, CommandKind::Down { child: None });
    world.run_for(Duration::from_secs(5));
    world.sent_datagrams = Some(Vec::new());
    world.command(0, CommandKind::Up { child: None });
    world.run_for(Duration::from_secs(5));
    assert_eq!(offers(&world)[0].1, selectors(&["10.1.0.0/16"]));
    world.shut_down_and_check();
}

fn on_traffic() -> Pair {
    let mut pair = Pair::new(StartTransport::Udp).both(|connection| {
        connection.ike.proposals = vec!["aes256gcm16-prfsha384-x25519".parse().unwrap()];
    });
    pair.a.children[0].start = StartMode::OnTraffic;
    pair
}

fn acquire(world: &mut World, child: &str, local: &str, remote: &str) {
    let packet = PacketSelectors { local: local.parse().unwrap(), remote: remote.parse().unwrap() };
    let now = world.now;
    let fact = Fact::Acquire { connection: "c".into(), child: child.into(), packet };
    world.nodes[0].endpoint.fact(now, fact);
}

type Offer = (ExchangeType, Vec<TrafficSelector>, Vec<TrafficSelector>);

/// TSi and TSr of the requests of node 0, without repetitions.
fn offers(world: &World) -> Vec<Offer> {
    let mut seen = Vec::new();
    let mut offers = Vec::new();
    for (_, _, datagram) in world.sent_datagrams.iter().flatten().filter(|(node, ..)| *node == 0) {
        assert!(datagram.starts_with(&NON_ESP_MARKER));
        let message = without_non_esp_marker(datagram).unwrap();
        let Some((header, first, content)) = created::content(message, &world.ledger) else { continue };
        if header.flags.response || seen.contains(&header.message_id) {
            continue;
        }
        seen.push(header.message_id);
        let (mut ts_i, mut ts_r) = (None, None);
        for payload in decode_chain(first, &content).unwrap() {
            match payload {
                Payload::TsI(ts) => ts_i = Some(ts.ip()),
                Payload::TsR(ts) => ts_r = Some(ts.ip()),
                _ => {}
            }
        }
        offers.extend(ts_i.zip(ts_r).map(|(ts_i, ts_r)| (header.exchange, ts_i, ts_r)));
    }
    offers
}

fn selectors(texts: &[&str]) -> Vec<TrafficSelector> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}
