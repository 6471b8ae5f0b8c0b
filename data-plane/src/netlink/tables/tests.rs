use netlink_packet_route::neighbour::NeighbourHeader;
use netlink_packet_route::route::RouteHeader;

use super::*;

const WAN: u32 = 2;

#[test]
fn a_neighbour_is_usable_in_every_state_that_has_an_address_and_in_no_other() {
    use NeighbourState::{
        Delay, Failed, Incomplete, Noarp, None as NoState, Permanent, Probe, Reachable, Stale,
    };
    for (state, is_usable, is_fresh) in [
        (Reachable, true, true),
        (Stale, true, false),
        (Delay, true, false),
        (Probe, true, false),
        (Permanent, true, true),
        (Noarp, true, true),
        (Incomplete, false, false),
        (Failed, false, false),
        (NoState, false, false),
    ] {
        let mut tables = Tables::default();
        tables.apply(&Message::NewNeighbour(neighbour(state)), 0);
        assert_eq!(tables.neighbour_of(WAN, address()).map(|n| n.is_fresh), Some(is_fresh), "{state:?}");
        let published = tables.publish().and_then(|s| s.neighbour(WAN, address()));
        assert_eq!(published, is_usable.then_some([2; 6]), "{state:?}");
    }
}

#[test]
fn a_neighbour_that_only_grows_older_is_no_new_snapshot() {
    let mut tables = Tables::default();
    tables.apply(&Message::NewNeighbour(neighbour(NeighbourState::Reachable)), 0);
    let first = tables.publish().unwrap();
    tables.apply(&Message::NewNeighbour(neighbour(NeighbourState::Stale)), 0);
    assert!(tables.publish().is_none());
    tables.apply(&Message::NewNeighbour(neighbour(NeighbourState::Failed)), 0);
    let second = tables.publish().unwrap();
    assert!(second.version() > first.version());
    assert_eq!(second.neighbour(WAN, address()), None);
}

#[test]
fn a_replaced_route_asks_for_a_new_reading_because_its_predecessor_is_not_told() {
    let mut tables = Tables::default();
    assert!(!tables.apply(&Message::NewRoute(route(254)), 0).reread_routes);
    assert!(tables.apply(&Message::NewRoute(route(254)), FLAG_REPLACE).reread_routes);
}

#[test]
fn routes_of_other_tables_are_not_ours_to_follow() {
    let mut tables = Tables::default();
    tables.apply(&Message::NewRoute(route(252)), 0);
    assert!(tables.publish().is_none());
    let mut large = route(0);
    large.attributes.push(RouteAttribute::Table(0x5012_3456));
    tables.apply(&Message::NewRoute(large), 0);
    assert!(tables.publish().is_none());
    tables.apply(&Message::NewRoute(route(254)), 0);
    assert_eq!(tables.publish().unwrap().route(address()).map(|r| r.ifindex), Some(WAN));
}

#[test]
fn a_dead_next_hop_is_passed_over() {
    let hop = |interface_index, flags| {
        let mut hop = RouteNextHop::default();
        (hop.interface_index, hop.flags) = (interface_index, flags);
        hop
    };
    let mut multipath = route(254);
    let hops = vec![hop(7, RouteNextHopFlags::Dead), hop(8, RouteNextHopFlags::empty())];
    multipath.attributes = vec![RouteAttribute::MultiPath(hops)];
    let mut tables = Tables::default();
    tables.apply(&Message::NewRoute(multipath), 0);
    assert_eq!(tables.publish().unwrap().route(address()).map(|r| r.ifindex), Some(8));
}

fn neighbour(state: NeighbourState) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header =
        NeighbourHeader { family: AddressFamily::Inet, ifindex: WAN, state, ..NeighbourHeader::default() };
    message.attributes = vec![
        NeighbourAttribute::Destination(NeighbourAddress::Inet([192, 0, 2, 9].into())),
        NeighbourAttribute::LinkLayerAddress(vec![2; 6]),
    ];
    message
}

fn route(table: u8) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: AddressFamily::Inet,
        table,
        kind: RouteType::Unicast,
        ..RouteHeader::default()
    };
    message.attributes = vec![RouteAttribute::Oif(WAN)];
    message
}

fn address() -> IpAddr {
    [192, 0, 2, 9].into()
}
