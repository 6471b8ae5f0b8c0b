//! With ESP echo: rules 1 to 8 and 10.

use super::*;
use crate::action::EchoSize;
use crate::config::OnUnreachable;
use EspTransport as T;

const TCP_START: Basis = Basis { echo: true, ..BASE };
const UDP_START: Basis = Basis { started_on: IkeTransport::Udp, first: Udp, ..TCP_START };
const FOLLOWER: Basis = Basis { is_initiator: false, ..TCP_START };

/// Row 11, rule 3: data at once on the best carrier, echo over IP, after `stagger` over UDP; the first reply is used.
#[test]
fn on_a_tcp_start_the_first_echo_wins() {
    let mut machine = Machine::new(TCP_START).answering(&[T::Ip, T::Udp]).up();
    assert_eq!((machine.sent_on(), machine.state().0), (EspCarrier::Direct(Ip), State::Probing));
    machine.until(5.0);
    assert_eq!(machine.state(), (State::DirectIp, Reason::None, Evidence::Echo));
    assert_eq!(echoes(&machine, EchoSize::Small), [(0, T::Ip)]);
    let mut machine = Machine::new(TCP_START).answering(&[T::Udp]).up();
    machine.until(5.0);
    assert_eq!(machine.state(), (State::DirectUdp, Reason::IpUnanswered, Evidence::Echo));
    assert_eq!(echoes(&machine, EchoSize::Small), [(0, T::Ip), (250, T::Udp)]);
    assert_eq!(machine.dummies(), [0, 270, 1270, 2270, 4270], "the carrier chosen is shown at once");
}

/// Row 12: with a NAT UDP only.
#[test]
fn with_a_nat_only_udp_is_asked() {
    let basis = Basis { nat: (false, true), first: Udp, ..TCP_START };
    let mut machine = Machine::new(basis).answering(&[T::Ip, T::Udp]).up();
    machine.until(5.0);
    assert_eq!(machine.state(), (State::DirectUdp, Reason::Nat, Evidence::Echo));
    assert!(echoes(&machine, EchoSize::Small).iter().all(|(_, carrier)| *carrier == T::Udp));
}

/// Row 1, rule 2: UDP at once and confirmed, IP when its echo returned.
#[test]
fn on_a_udp_start_ip_is_used_when_its_echo_returned() {
    let mut machine = Machine::new(UDP_START).answering(&[T::Ip, T::Udp]).up();
    assert_eq!((machine.sent_on(), machine.state().2), (EspCarrier::Direct(Udp), Evidence::Ike));
    machine.until(0.1);
    assert_eq!(machine.state(), (State::DirectUdp, Reason::None, Evidence::Echo));
    machine.until(5.0);
    assert_eq!(machine.state(), (State::DirectIp, Reason::None, Evidence::Echo));
    assert_eq!(machine.times(|effect| matches!(effect, Effect::Path(_))), [270]);
}

/// Row 2.
#[test]
fn on_a_udp_start_silent_ip_leaves_udp() {
    let mut machine = Machine::new(UDP_START).answering(&[T::Udp]).up();
    machine.until(5.0);
    assert_eq!(machine.state(), (State::DirectUdp, Reason::IpUnanswered, Evidence::Echo));
    assert_eq!(verdicts(&machine), [(3270, Verdict::Answered(T::Udp))]);
}

/// Configuration part: `esp.transports` is an order, and a carrier that is not in it is never probed.
#[test]
fn carriers_that_are_not_allowed_are_never_asked_and_the_order_counts() {
    let policy =
        |transports: &[DirectCarrier]| EspPolicy { transports: transports.to_vec(), ..EspPolicy::default() };
    let mut machine = Machine::with(TCP_START, policy(&[Ip])).answering(&[T::Udp]).up();
    machine.until(10.0);
    assert!(echoes(&machine, EchoSize::Small).iter().all(|(_, carrier)| *carrier == T::Ip));
    assert_eq!(machine.state().0, State::Blocked);
    let mut machine = Machine::with(UDP_START, policy(&[Udp, Ip])).answering(&[T::Ip, T::Udp]).up();
    machine.until(5.0);
    assert_eq!(machine.state(), (State::DirectUdp, Reason::None, Evidence::Echo));
}

/// Row 18, rule 5: attempts × timeout + stagger + 1 RTT after a start on TCP.
#[test]
fn a_first_verification_that_fails_takes_its_budget() {
    let mut machine = Machine::new(TCP_START).up();
    machine.until(10.0);
    assert_eq!(machine.state(), (State::Blocked, Reason::EspUnreachable, Evidence::None));
    assert_eq!(machine.sent_on(), EspCarrier::Shut);
    let decided = Effect::Unreachable { first_verification: true };
    assert_eq!(machine.times(|effect| *effect == decided), [3270]);
    assert!(machine.carrier.detail().contains("ip and udp within 3.27 s"), "{}", machine.carrier.detail());
}

/// Rule 5: "neither: stay suspect".
#[test]
fn silence_of_ike_and_esp_decides_nothing() {
    let mut machine = Machine::new(TCP_START).up();
    machine.ike = false;
    machine.until(140.0);
    assert_eq!((machine.state().0, machine.sent_on()), (State::Suspect, EspCarrier::Direct(Ip)));
    assert_eq!(machine.unreachable(), [0_u64; 0]);
    machine.answers = vec![T::Ip];
    machine.until(160.0);
    assert_eq!(machine.state(), (State::DirectIp, Reason::None, Evidence::Echo));
}

/// Rule 5: IKE yes and echo no, at the same time. A path that comes back when the last echo of a verification has left has lost
/// them all.
#[test]
fn ike_that_comes_back_after_the_last_echo_has_it_asked_once_more() {
    for is_blocked in [false, true] {
        let mut machine = proven(&[T::Ip]);
        machine.ike = false;
        machine.answers.clear();
        // Suspect at 8.5 s, the last echoes at 10.5 s and 10.75 s, the budget over at 11.77 s.
        machine.outbound_until(11.0);
        assert_eq!(machine.state().0, State::Suspect);
        machine.ike = true;
        machine.carrier.ike_heard(machine.now, &mut machine.rng);
        machine.take();
        if !is_blocked {
            machine.answers = vec![T::Ip];
        }
        machine.until(11.78);
        assert_eq!((machine.state().0, machine.unreachable()), (State::Suspect, vec![]));
        machine.until(16.0);
        let decided = if is_blocked { vec![11_770 + 3270] } else { vec![] };
        assert_eq!(machine.unreachable(), decided);
        assert_eq!(machine.state().0, if is_blocked { State::Blocked } else { State::DirectIp });
    }
}

/// Row 17, rule 5: 3 s of traffic without an answer, then the budget.
#[test]
fn in_mid_life_a_decision_takes_three_seconds_and_the_budget() {
    let mut machine = proven(&[T::Ip]);
    machine.answers.clear();
    let cut = machine.now;
    machine.outbound_until(5.0 + 10.0);
    let decided = machine.unreachable();
    let first_packet = cut.as_nanos() / 1_000_000 + 500;
    assert_eq!(decided, [first_packet + 3000 + 3270]);
    assert!(machine.times(|e| *e == Effect::Unreachable { first_verification: false }) == decided);
    assert_eq!(machine.carrier.esp_status().decision_within, Duration::from_millis(6270));
}

/// Rule 5: an idle echo that stays unanswered for `timeout` starts `suspect`.
#[test]
fn an_idle_path_is_asked_every_idle_interval() {
    let mut machine = proven(&[T::Ip]);
    machine.until(31.0);
    let small = echoes(&machine, EchoSize::Small);
    assert_eq!(small.len(), 4, "{small:?}");
    machine.answers.clear();
    machine.until(41.0);
    assert_eq!(machine.state().0, State::DirectIp);
    machine.until(41.5);
    assert_eq!(machine.state().0, State::Suspect);
}

/// Rule 5: traffic in one direction is no suspicion.
#[test]
fn one_way_traffic_is_asked_and_never_suspect() {
    let mut machine = proven(&[T::Ip]);
    for _ in 0..100 {
        machine.outbound_until(machine.now.as_nanos() as f64 / 1e9 + 0.5);
        assert_eq!(machine.state().0, State::DirectIp);
    }
}

/// Rule 5: changes between IP and UDP are no falls.
#[test]
fn in_mid_life_udp_replaces_ip_that_fell_silent() {
    let mut machine = proven(&[T::Ip]);
    machine.answers = vec![T::Udp];
    machine.outbound_until(11.0);
    assert_eq!(machine.state(), (State::DirectUdp, Reason::IpUnanswered, Evidence::Echo));
    assert_eq!(machine.times(|effect| *effect == Effect::Fell), [0_u64; 0]);
}

/// Rule 5: one lost echo does not move ESP.
#[test]
fn the_carrier_in_use_is_kept_while_it_answers() {
    let mut machine = proven(&[T::Ip]);
    machine.answers.clear();
    machine.outbound_until(8.6);
    assert_eq!(machine.state().0, State::Suspect);
    machine.answers = vec![T::Ip, T::Udp];
    machine.outbound_until(12.0);
    assert_eq!(machine.state(), (State::DirectIp, Reason::None, Evidence::Echo));
}

/// Rule 5: at most one fall per hold time.
#[test]
fn within_the_hold_time_a_failed_verification_stays_suspect() {
    let basis = Basis { last_fall: Some(Time::ZERO), ..TCP_START };
    let mut machine = Machine::new(basis).up();
    machine.until(59.0);
    assert_eq!((machine.state().0, machine.unreachable()), (State::Suspect, vec![]));
    machine.until(75.0);
    assert_eq!(machine.unreachable().len(), 1);
    assert!(machine.unreachable()[0] >= 60_000);
}

/// Rule 5: "Echo yes and IKE no: ESP stays, the stream is dialled again."
#[test]
fn ike_that_is_silent_while_echo_answers_gets_another_stream() {
    let mut machine = proven(&[T::Ip]);
    machine.ike = false;
    machine.answers.clear();
    machine.outbound_until(8.6);
    assert_eq!(machine.state().0, State::Suspect);
    machine.answers = vec![T::Ip];
    machine.outbound_until(30.0);
    assert_eq!((machine.state().0, machine.sent_on()), (State::DirectIp, EspCarrier::Direct(Ip)));
    assert_eq!(machine.times(|effect| *effect == Effect::Redial).len(), 1);
}

/// Rule 5: local errors count for nothing.
#[test]
fn local_errors_are_local_down_and_decide_nothing() {
    let mut machine = proven(&[T::Ip]);
    machine.answers.clear();
    machine.carrier.local_send(machine.now, true, &mut machine.rng);
    machine.outbound_until(60.0);
    assert_eq!((machine.state().0, machine.unreachable()), (State::LocalDown, vec![]));
    // An address has come, and sending fails still.
    machine.carrier.local_change(machine.now, false, &mut machine.rng);
    machine.take();
    machine.outbound_until(62.0);
    assert_eq!(machine.state().0, State::Suspect);
    machine.outbound_until(70.0);
    assert_eq!((machine.state().0, machine.unreachable()), (State::LocalDown, vec![]));
    machine.answers = vec![T::Ip];
    machine.carrier.local_send(machine.now, false, &mut machine.rng);
    machine.take();
    machine.until(71.0);
    assert_eq!(machine.state().0, State::DirectIp);
}

/// Rule 5: ICMP and forged packets trigger one rate-limited probe.
#[test]
fn doubts_ask_once_per_interval_and_decide_nothing() {
    let mut machine = proven(&[T::Ip]);
    let before = echoes(&machine, EchoSize::Small).len();
    for _ in 0..1000 {
        machine.carrier.doubt(machine.now, &mut machine.rng);
        machine.take();
        let next = machine.now.as_nanos() as f64 / 1e9 + 0.01;
        machine.until(next);
    }
    assert_eq!(echoes(&machine, EchoSize::Small).len() - before, 1);
    assert_eq!(machine.state(), (State::DirectIp, Reason::None, Evidence::Echo));
}

/// Rule 4: nothing learned in 1 s and no NAT: with E the responder probes, and uses what answers.
#[test]
fn a_responder_that_learned_nothing_probes_after_a_second() {
    let mut machine = Machine::new(FOLLOWER).answering(&[T::Udp]).up();
    machine.until(0.9);
    assert_eq!((machine.sent_on(), echoes(&machine, EchoSize::Small)), (EspCarrier::Hold, vec![]));
    assert_eq!(machine.state().0, State::Probing);
    machine.until(5.0);
    assert_eq!(echoes(&machine, EchoSize::Small), [(1000, T::Ip), (1250, T::Udp)]);
    assert_eq!(machine.state(), (State::DirectUdp, Reason::IpUnanswered, Evidence::Echo));
}

/// Rule 4: "A responder that follows echoes once; until answered its evidence is `inbound`."
#[test]
fn a_responder_that_follows_echoes_once() {
    let mut machine = Machine::new(FOLLOWER).answering(&[T::Udp]).up();
    machine.inbound(0.3, arrival(Udp, "192.0.2.2:4500"));
    assert_eq!(machine.state(), (State::DirectUdp, Reason::None, Evidence::Inbound));
    machine.until(5.0);
    assert_eq!(machine.state().2, Evidence::Echo);
    assert_eq!(echoes(&machine, EchoSize::Small), [(300, T::Udp)]);
}

/// Rule 4: the initiator chooses. A responder whose carrier is silent waits for it to move, and does not fall.
#[test]
fn a_responder_does_not_choose_while_it_has_a_carrier() {
    let mut machine = Machine::new(FOLLOWER).answering(&[T::Ip]).up();
    machine.inbound(0.3, arrival(Ip, "192.0.2.2:0"));
    machine.until(5.0);
    machine.answers = vec![T::Udp];
    machine.outbound_until(40.0);
    assert_eq!((machine.state().0, machine.sent_on()), (State::Suspect, EspCarrier::Direct(Ip)));
    machine.inbound(40.1, arrival(Udp, "192.0.2.2:4500"));
    machine.until(41.0);
    assert_eq!(machine.state(), (State::DirectUdp, Reason::None, Evidence::Echo));
}

/// Rule 4: with E the new address is echoed, and no answer means back to the old.
#[test]
fn a_new_address_that_does_not_answer_is_left_again() {
    let basis = Basis { nat: (false, true), ..Basis { is_initiator: false, ..UDP_START } };
    let port = |machine: &Machine| machine.carrier.path().remote_port;
    let mut machine = Machine::new(basis).answering(&[T::Udp]).up();
    machine.until(2.0);
    machine.inbound(3.0, arrival(Udp, "192.0.2.2:1111"));
    assert_eq!(port(&machine), 1111);
    machine.until(5.0);
    assert_eq!(port(&machine), 1111, "it answers");
    machine.answers.clear();
    machine.inbound(6.0, arrival(Udp, "192.0.2.2:2222"));
    assert_eq!(port(&machine), 2222);
    machine.until(9.1);
    assert_eq!(port(&machine), 1111);
}

/// Rule 4: "behind NAT ourselves we echo first and move only on the answer".
#[test]
fn behind_a_nat_the_path_moves_on_the_answer() {
    let mut machine = Machine::new(Basis { nat: (true, false), ..UDP_START }).answering(&[T::Udp]).up();
    machine.until(2.0);
    let port = |machine: &Machine| machine.carrier.path().remote_port;
    machine.inbound(2.0, arrival(Udp, "192.0.2.2:1111"));
    assert_eq!(port(&machine), 4500);
    machine.until(2.1);
    assert_eq!(port(&machine), 1111);
    machine.answers.clear();
    machine.inbound(4.0, arrival(Udp, "192.0.2.2:2222"));
    machine.until(8.0);
    assert_eq!(port(&machine), 1111);
}

/// Rules 6 and 10: an echo moves nothing, but an address that it came from is asked back.
#[test]
fn an_idle_end_behind_a_new_mapping_is_found_by_its_echo() {
    let basis = Basis { nat: (false, true), ..Basis { is_initiator: false, ..UDP_START } };
    let mut machine = Machine::new(basis).answering(&[T::Udp]).up();
    machine.until(2.0);
    machine.inbound(2.0, Arrival { is_echo: true, ..arrival(Udp, "192.0.2.2:1111") });
    assert_eq!(machine.carrier.path().remote_port, 4500);
    machine.until(2.1);
    assert_eq!(machine.carrier.path().remote_port, 1111);
}

/// Rule 10: the end behind the NAT sends an echo without reply when idle.
#[test]
fn an_idle_end_behind_a_nat_refreshes_its_mapping_by_an_echo() {
    let policy = EspPolicy {
        probe: crate::config::ProbePolicy { idle_interval: Duration::from_secs(100), ..Default::default() },
        ..EspPolicy::default()
    };
    let basis = Basis { nat: (true, false), ..UDP_START };
    let mut machine = Machine::with(basis, policy).answering(&[T::Udp]).up();
    machine.until(45.0);
    let one_way = |effect: &Effect| matches!(effect, Effect::Echo(echo) if !echo.wants_reply);
    assert_eq!(machine.times(one_way), [20_000, 40_000]);
    assert_eq!(machine.times(|effect| *effect == Effect::Keepalive), [20_000, 40_000]);
}

/// Rule 3: a reply over IP from another address than IKE's means a NAT on that path.
#[test]
fn a_reply_from_a_foreign_address_means_a_nat() {
    let mut machine = Machine::new(TCP_START).up();
    let Some((_, Effect::Echo(echo))) = machine.log.iter().find(|(_, e)| matches!(e, Effect::Echo(_))) else {
        panic!("no echo");
    };
    let EchoRequest { child, identifier, sequence, nonce, .. } = *echo;
    let reply = Reply { child, identifier, sequence, nonce, carrier: T::Ip };
    let foreign = "203.0.113.9:0".parse().unwrap();
    machine.answers = vec![T::Udp];
    machine.carrier.echo_reply(machine.now, &reply, foreign, &mut machine.rng);
    machine.take();
    machine.until(5.0);
    assert_eq!(machine.state(), (State::DirectUdp, Reason::Nat, Evidence::Echo));
}

/// Rule 3: "after the small echo one at tunnel MTU with DF, whose failure lowers the path MTU".
#[test]
fn after_the_small_echo_the_largest_packet_is_asked() {
    let mut machine = Machine::new(TCP_START).answering(&[T::Ip]).up();
    machine.until(5.0);
    assert_eq!(echoes(&machine, EchoSize::PathMtu), [(20, T::Ip)]);
    assert_eq!(machine.times(|effect| *effect == Effect::LowerPathMtu), [0_u64; 0]);

    let mut machine = Machine::new(TCP_START).answering(&[T::Ip]).up();
    machine.until(0.015);
    let (now, reply) = machine.pending.remove(0);
    machine.answers.clear();
    if let Pending::Reply(reply) = reply {
        machine.carrier.echo_reply(now, &reply, SocketAddr::new(PEER, 4500), &mut machine.rng);
        machine.now = now;
        machine.take();
    }
    machine.until(3.5);
    assert_eq!(machine.times(|effect| *effect == Effect::LowerPathMtu), [3040]);
    assert_eq!(machine.state().0, State::DirectIp, "it is no suspicion");
}

/// Rule 6: one child dead while others live is rekeyed once; still dead, the IKE SA is unreachable.
#[test]
fn a_dead_child_beside_a_live_one_is_rekeyed_once() {
    let other = ChildId(2);
    let mut machine = proven(&[T::Ip, T::Udp]);
    machine.alive.push(other);
    machine.carrier.child_in_use(machine.now, &"other".into(), other, &mut machine.rng);
    machine.take();
    machine.until(6.0);
    machine.alive = vec![CHILD];
    machine.until(22.0);
    assert_eq!(machine.times(|effect| *effect == Effect::RekeyChild(other)).len(), 1);
    assert_eq!((machine.state().0, machine.unreachable()), (State::DirectIp, vec![]));
    // The new pair is no better.
    machine.carrier.child_in_use(machine.now, &"other".into(), ChildId(3), &mut machine.rng);
    machine.take();
    machine.until(30.0);
    assert_eq!(machine.times(|effect| matches!(effect, Effect::RekeyChild(_))).len(), 1);
    assert_eq!(machine.unreachable().len(), 1);
}

/// Rule 6: verdicts survive rekeys.
#[test]
fn a_rekey_asks_nothing_anew() {
    let mut machine = proven(&[T::Ip]);
    let before = echoes(&machine, EchoSize::Small).len();
    machine.alive.push(ChildId(7));
    machine.carrier.child_in_use(machine.now, &"net".into(), ChildId(7), &mut machine.rng);
    machine.take();
    machine.until(7.0);
    assert_eq!(echoes(&machine, EchoSize::Small).len(), before);
    assert_eq!(machine.state(), (State::DirectIp, Reason::None, Evidence::Echo));
}

/// Row 17 under FB, rule 7: echo on the stream, and ESP moves in place.
#[test]
fn with_fallback_esp_moves_into_the_stream_when_it_answers() {
    let mut machine = proven_with(fallback(), &[T::Ip, T::Tcp]);
    machine.answers = vec![T::Tcp];
    machine.outbound_until(13.0);
    assert_eq!(machine.sent_on(), EspCarrier::Stream(StreamId::dialled(1)));
    assert_eq!(machine.state(), (State::Tcp, Reason::EspUnreachable, Evidence::Echo));
    assert_eq!(machine.unreachable(), [0_u64; 0]);
    machine.carrier.stream_is(Some(StreamId::dialled(9)));
    assert_eq!(machine.sent_on(), EspCarrier::Stream(StreamId::dialled(9)));
}

/// Rule 7: "unanswered, no E, or no stream: re-establish".
#[test]
fn with_fallback_and_a_silent_stream_the_ike_sa_is_unreachable() {
    let mut machine = proven_with(fallback(), &[T::Ip]);
    machine.answers.clear();
    machine.outbound_until(20.0);
    assert_eq!(
        machine.log.iter().filter(|(_, e)| *e == Effect::Unreachable { first_verification: false }).count(),
        1
    );
    let mut machine = proven_with(fallback(), &[T::Ip]);
    machine.answers.clear();
    machine.carrier.stream_is(None);
    machine.outbound_until(20.0);
    assert_eq!(machine.unreachable().len(), 1);
}

/// Row 16: after a start on TCP the initiator starts anew, whatever the stream answers.
#[test]
fn with_fallback_a_first_verification_on_tcp_starts_anew() {
    let mut machine = Machine::with(TCP_START, fallback()).answering(&[T::Tcp]).up();
    machine.until(10.0);
    assert!(machine.log.contains(&(3270, Effect::Unreachable { first_verification: true })));
}

/// Row 17: after a start on UDP it moves in place.
#[test]
fn with_fallback_a_first_verification_on_udp_moves_in_place() {
    let mut machine = Machine::with(UDP_START, fallback()).answering(&[T::Tcp]).up();
    machine.until(10.0);
    assert_eq!(machine.state(), (State::Tcp, Reason::EspUnreachable, Evidence::Echo));
}

/// Rule 6: FC neither sends nor answers echo on a stream.
#[test]
fn under_fail_closed_nothing_is_ever_asked_on_a_stream() {
    let mut machine = proven(&[T::Ip]);
    machine.answers = vec![T::Tcp];
    machine.outbound_until(30.0);
    assert!(echoes(&machine, EchoSize::Small).iter().all(|(_, carrier)| *carrier != T::Tcp));
    assert!(!machine.carrier.path().echo.stream);
    assert!(Machine::with(TCP_START, fallback()).carrier.path().echo.stream);
}

/// Row 21 in place, rule 8: 5 echoes within 10 s bring ESP back; the first try after 30 s, less or more 20 %.
#[test]
fn esp_comes_back_in_place_when_echo_has_answered_five_times() {
    let mut machine = proven_with(fallback(), &[T::Ip, T::Tcp]);
    machine.answers = vec![T::Tcp];
    machine.outbound_until(13.0);
    assert_eq!(machine.state().0, State::Tcp);
    machine.answers = vec![T::Ip, T::Tcp];
    assert!(run_until(&mut machine, 60.0, |machine| machine.state().0 == State::Trial));
    let began = machine.now;
    assert!(run_until(&mut machine, 60.0, |machine| machine.state().0 == State::DirectIp));
    assert_eq!(machine.state(), (State::DirectIp, Reason::Returned, Evidence::Echo));
    let took = machine.now.since(began);
    assert!(took >= Duration::from_secs(4) && took <= Duration::from_secs(10), "{took:?}");
    assert!(machine.dummies().last().unwrap() * 1_000_000 >= began.as_nanos());
}

/// Row 21: a try that fails leaves ESP in TCP.
#[test]
fn a_return_that_fails_leaves_esp_in_tcp() {
    let mut machine = proven_with(fallback(), &[T::Ip, T::Tcp]);
    machine.answers = vec![T::Tcp];
    machine.outbound_until(80.0);
    assert_eq!(machine.state(), (State::Tcp, Reason::TrialFailed, Evidence::Echo));
}

/// Rule 7: FB follows a peer that puts ESP into TCP; FC verifies, and gives up if no direct data comes.
#[test]
fn esp_of_the_peer_in_tcp_is_followed_or_refused() {
    let in_tcp = Arrival { carrier: T::Tcp, ..arrival(Udp, "192.0.2.2:4500") };
    let mut machine = proven_with(fallback(), &[T::Ip]);
    machine.inbound(6.0, in_tcp);
    assert_eq!(machine.state(), (State::Tcp, Reason::EspUnreachable, Evidence::Inbound));

    let mut machine = proven(&[T::Ip]);
    machine.inbound(6.0, in_tcp);
    assert_eq!(machine.state().0, State::Suspect);
    machine.until(20.0);
    assert_eq!(machine.unreachable(), [9270], "echo answers, data does not come");

    let mut machine = proven(&[T::Ip]);
    machine.inbound(6.0, in_tcp);
    machine.inbound(7.0, arrival(Ip, "192.0.2.2:0"));
    machine.until(20.0);
    assert_eq!((machine.state().0, machine.unreachable()), (State::DirectIp, vec![]));
}

/// Rule 9: a responder stops ESP, and deletes the IKE SA three budgets later, unless the initiator has found a way.
#[test]
fn a_responder_stops_and_waits_for_its_initiator() {
    let stopped = || {
        let mut machine = Machine::new(FOLLOWER).answering(&[T::Ip]).up();
        machine.inbound(0.3, arrival(Ip, "192.0.2.2:0"));
        machine.until(5.0);
        machine.answers.clear();
        assert!(run_until(&mut machine, 40.0, |machine| machine.state().0 == State::Blocked));
        assert_eq!(machine.sent_on(), EspCarrier::Shut);
        machine
    };
    let mut machine = stopped();
    let stop = machine.now.as_nanos() / 1_000_000;
    machine.until(60.0);
    let wait = machine.unreachable()[0] - stop;
    assert!((3 * 3270 - 50..=3 * 3270).contains(&wait), "{wait}");
    let mut machine = stopped();
    machine.answers = vec![T::Udp];
    machine.until(machine.now.as_nanos() as f64 / 1e9 + 5.0);
    assert_eq!((machine.state().0, machine.unreachable()), (State::DirectUdp, vec![]));
}

/// Rule 5: silence of everything is asked about ever more rarely.
#[test]
fn echoes_are_bounded() {
    let mut machine = Machine::new(TCP_START).up();
    machine.ike = false;
    machine.until(3600.0);
    let sent = echoes(&machine, EchoSize::Small).len();
    assert!(sent < 3600 / 13 * 6 + 40, "{sent} in an hour of silence");
}

fn fallback() -> EspPolicy {
    EspPolicy { on_unreachable: OnUnreachable::TcpFallback, ..EspPolicy::default() }
}

/// An initiator whose carrier was proven, 5 s after its start on TCP.
fn proven(answers: &[T]) -> Machine {
    proven_with(EspPolicy::default(), answers)
}

fn proven_with(policy: EspPolicy, answers: &[T]) -> Machine {
    let mut machine = Machine::with(TCP_START, policy).answering(answers).up();
    machine.until(5.0);
    assert_eq!(machine.state().2, Evidence::Echo);
    machine
}

fn run_until(machine: &mut Machine, seconds: f64, holds: impl Fn(&Machine) -> bool) -> bool {
    let end = machine.now + Duration::from_secs_f64(seconds);
    while machine.now < end && !holds(machine) {
        let next = machine.now.as_nanos() as f64 / 1e9 + 0.05;
        machine.until(next);
    }
    holds(machine)
}

fn echoes(machine: &Machine, size: EchoSize) -> Vec<(u64, T)> {
    let echo = |(at, effect): &(u64, Effect)| match effect {
        Effect::Echo(echo) if echo.size == size => {
            Some((*at, crate::transport::probe::transport_of(&echo.route)))
        }
        _ => None,
    };
    machine.log.iter().filter_map(echo).collect()
}

fn verdicts(machine: &Machine) -> Vec<(u64, Verdict)> {
    let verdict = |(at, effect): &(u64, Effect)| match effect {
        Effect::Verified(verification) => Some((*at, verification.verdict)),
        _ => None,
    };
    machine.log.iter().filter_map(verdict).collect()
}

/// Rule 4: the ends may differ about a NAT; a responder that waits for UDP follows an initiator that knows of none.
#[test]
fn a_responder_behind_a_supposed_nat_follows_ip_from_the_address_of_ike() {
    let basis = Basis { nat: (false, true), first: Udp, ..FOLLOWER };
    let mut machine = Machine::new(basis).answering(&[T::Ip]).up();
    machine.until(5.0);
    assert_eq!((machine.sent_on(), echoes(&machine, EchoSize::Small)), (EspCarrier::Hold, vec![]));
    machine.inbound(5.0, arrival(Ip, "192.0.2.2:0"));
    machine.until(6.0);
    assert_eq!(machine.state(), (State::DirectIp, Reason::None, Evidence::Echo));
}
