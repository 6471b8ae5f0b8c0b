//! Without ESP echo: rules 1, 3, 4 and 10.

use super::*;

const UDP_START: Basis = Basis { started_on: IkeTransport::Udp, first: Udp, ..BASE };

/// Row 4.
#[test]
fn a_udp_start_sends_on_udp_at_once_with_ike_as_evidence() {
    let mut machine = Machine::new(UDP_START).up();
    assert_eq!(machine.sent_on(), EspCarrier::Direct(Udp));
    assert_eq!(machine.state(), (State::DirectUdp, Reason::None, Evidence::Ike));
    machine.inbound(1.0, arrival(Udp, "192.0.2.2:4500"));
    assert_eq!(machine.state(), (State::DirectUdp, Reason::None, Evidence::Inbound));
}

/// Row 13 and rule 4.
#[test]
fn an_initiator_on_tcp_shows_its_carrier_with_four_dummies() {
    let mut machine = Machine::new(BASE).up();
    assert_eq!(machine.state().0, State::Unverified);
    machine.until(20.0);
    assert_eq!(machine.dummies(), [0, 1000, 2000, 4000]);
    assert_eq!(machine.carrier.next_timeout(), None);
}

/// Rule 4: "until something arrives on it".
#[test]
fn dummies_stop_when_something_arrives() {
    let mut machine = Machine::new(BASE).up();
    machine.inbound(0.5, arrival(Ip, "192.0.2.2:0"));
    machine.until(20.0);
    assert_eq!(machine.dummies(), [0]);
    assert_eq!(machine.state(), (State::DirectIp, Reason::None, Evidence::Inbound));
}

/// Rule 4.
#[test]
fn a_responder_on_tcp_holds_then_follows_what_arrives() {
    let mut machine = Machine::new(RESPONDER).up();
    assert_eq!(machine.sent_on(), EspCarrier::Hold);
    machine.inbound(0.3, arrival(Udp, "192.0.2.2:7777"));
    assert_eq!(machine.times(|effect| matches!(effect, Effect::Path(_))), [300]);
    assert_eq!((machine.sent_on(), machine.carrier.path().remote_port), (EspCarrier::Direct(Udp), 7777));
    assert_eq!(machine.state(), (State::DirectUdp, Reason::None, Evidence::Inbound));
}

/// Rule 4.
#[test]
fn a_responder_that_learned_nothing_in_a_second_uses_ip_unless_there_is_a_nat() {
    let mut machine = Machine::new(RESPONDER).up();
    assert_eq!(machine.carrier.next_timeout(), Some(at(1.0)));
    machine.until(1.0);
    assert_eq!(machine.sent_on(), EspCarrier::Direct(Ip));
    let natted = Machine::new(Basis { nat: (false, true), first: Udp, ..RESPONDER }).up();
    assert_eq!(natted.carrier.next_timeout(), None);
    assert_eq!(natted.sent_on(), EspCarrier::Hold);
}

/// Rule 4: only the responder follows a carrier, and an echo or an old packet moves nothing.
#[test]
fn old_packets_and_echoes_move_nothing() {
    let packet = arrival(Udp, "192.0.2.2:7777");
    let mut responder = Machine::new(RESPONDER).up();
    responder.inbound(0.1, Arrival { is_highest: false, ..packet });
    responder.inbound(0.1, Arrival { is_echo: true, ..packet });
    assert_eq!(responder.sent_on(), EspCarrier::Hold);
    let mut initiator = Machine::new(BASE).up();
    initiator.inbound(0.1, packet);
    assert_eq!(initiator.sent_on(), EspCarrier::Direct(Ip));
}

/// Rule 3.
#[test]
fn esp_over_ip_from_a_foreign_address_means_a_nat() {
    let foreign = arrival(Ip, "198.51.100.9:0");
    let mut initiator = Machine::new(BASE).up();
    initiator.inbound(0.1, foreign);
    assert_eq!(initiator.sent_on(), EspCarrier::Direct(Udp));
    let mut responder = Machine::new(RESPONDER).up();
    responder.inbound(0.1, foreign);
    assert_eq!((responder.sent_on(), responder.carrier.next_timeout()), (EspCarrier::Hold, None));
    let mut ip_only = Machine::with(BASE, EspPolicy { transports: vec![Ip], ..EspPolicy::default() }).up();
    ip_only.inbound(0.1, foreign);
    assert_eq!(ip_only.state(), (State::Blocked, Reason::CarrierNotAllowed, Evidence::None));
}

/// Rule 4 and RFC 7296 section 2.23.
#[test]
fn address_and_port_follow_at_most_once_a_second_and_never_behind_a_nat() {
    let udp = Basis { started_on: IkeTransport::Udp, first: Udp, nat: (false, true), ..RESPONDER };
    let mut machine = Machine::new(udp).up();
    let port = |machine: &Machine| machine.carrier.path().remote_port;
    machine.inbound(1.0, arrival(Udp, "192.0.2.2:1111"));
    assert_eq!(port(&machine), 1111);
    machine.inbound(1.5, arrival(Udp, "192.0.2.2:2222"));
    assert_eq!(port(&machine), 1111);
    machine.inbound(2.0, arrival(Udp, "192.0.2.2:2222"));
    assert_eq!(port(&machine), 2222);
    let mut behind = Machine::new(Basis { nat: (true, false), ..udp }).up();
    behind.inbound(1.0, arrival(Udp, "192.0.2.2:1111"));
    assert_eq!(port(&behind), 4500);
}

/// Rule 10.
#[test]
fn the_end_behind_a_nat_keeps_the_mapping_when_idle() {
    let basis = Basis { nat: (true, false), ..UDP_START };
    let mut machine = Machine::new(basis).up();
    assert_eq!(machine.state().1, Reason::Nat);
    machine.inbound(10.0, arrival(Udp, "192.0.2.2:4500"));
    machine.until(20.0);
    machine.outbound(30.0);
    machine.inbound(30.1, arrival(Udp, "192.0.2.2:4500"));
    machine.until(60.0);
    let keepalives = |machine: &Machine| machine.times(|effect| *effect == Effect::Keepalive);
    assert_eq!(keepalives(&machine), [20_000, 60_000]);
    assert_eq!(machine.dummies(), [0, 1000, 2000, 4000, 20_000, 60_000]);
    let mut childless = Machine::new(basis);
    childless.until(20.0);
    assert_eq!((keepalives(&childless), childless.dummies()), (vec![20_000], vec![]));
}

/// Rule 1: 30 s without an answer while IKE answers lead to the next allowed carrier, then to unreachable.
#[test]
fn traffic_without_an_answer_tries_every_carrier_and_then_gives_up() {
    let mut machine = Machine::new(BASE).up();
    machine.outbound_until(32.0);
    assert_eq!(machine.sent_on(), EspCarrier::Direct(Udp));
    assert!(machine.dummies().contains(&30_520), "the new carrier is shown: {:?}", machine.dummies());
    machine.outbound_until(65.0);
    assert_eq!(machine.state(), (State::Blocked, Reason::EspUnreachable, Evidence::None));
    assert_eq!(machine.unreachable().len(), 1);
    assert!(machine.log.contains(&(61_020, Effect::Unreachable { first_verification: true })));
}

/// Rule 1: behind a NAT there is no other carrier.
#[test]
fn behind_a_nat_silence_leads_to_unreachable_at_once() {
    let mut machine = Machine::new(Basis { nat: (true, false), ..UDP_START }).up();
    machine.outbound_until(32.0);
    assert_eq!(machine.unreachable(), [30_520]);
    assert!(machine.log.contains(&(30_520, Effect::Unreachable { first_verification: false })));
}

/// Rule 1: "while IKE answers".
#[test]
fn silence_of_ike_and_esp_is_not_unreachable() {
    let mut machine = Machine::new(BASE).up();
    machine.ike = false;
    machine.outbound_until(100.0);
    assert_eq!(machine.state().1, Reason::UnverifiedTimeout);
    assert_eq!(machine.sent_on(), EspCarrier::Direct(Ip));
    machine.inbound(100.5, arrival(Ip, "192.0.2.2:0"));
    assert_eq!(machine.state(), (State::DirectIp, Reason::None, Evidence::Inbound));
}

/// Rule 1: `never` is the default on row 5, and may be configured; a time that is configured holds on row 5 too.
#[test]
fn the_timeout_of_silence_depends_on_row_and_configuration() {
    let gives_up = |basis, unverified_timeout| {
        let policy = EspPolicy { unverified_timeout, transports: vec![Udp], ..EspPolicy::default() };
        let mut machine = Machine::with(Basis { first: Udp, ..basis }, policy).up();
        machine.outbound_until(100.0);
        machine.unreachable().first().copied()
    };
    let row_5 = Basis { separate: false, stream: None, ..UDP_START };
    assert_eq!(gives_up(row_5, UnverifiedTimeout::ByRow), None);
    assert_eq!(gives_up(UDP_START, UnverifiedTimeout::ByRow), Some(30_520));
    assert_eq!(gives_up(UDP_START, UnverifiedTimeout::Never), None);
    let ten = UnverifiedTimeout::After(Duration::from_secs(10));
    assert_eq!(gives_up(row_5, ten), Some(10_520));
}

/// Rule 9: a responder deletes after three budgets, and not before its initiator can have tried every carrier by silence.
#[test]
fn a_responder_gives_up_when_its_initiator_had_the_time_and_three_budgets_more() {
    let mut machine = Machine::new(Basis { first: Udp, nat: (false, true), ..RESPONDER }).up();
    machine.inbound(0.1, arrival(Udp, "192.0.2.2:7777"));
    machine.outbound_until(31.5);
    assert_eq!((machine.state().0, machine.unreachable()), (State::Blocked, vec![]));
    machine.until(100.0);
    let (carriers, budget) = (1, 3270);
    assert_eq!(machine.unreachable(), [30_620 + 30_000 * carriers + 3 * budget]);
}
