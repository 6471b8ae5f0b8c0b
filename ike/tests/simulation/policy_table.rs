//! The table of the transport policy, row by row: what either end shows and does, whichever node initiates.

use std::collections::BTreeSet;
use std::time::Duration;

use portcullis_ike::config::{OnUnreachable, RemoteAddress, SeparateTransports, StartTransport};
use portcullis_ike::path::{DirectCarrier, EspCarrier, IkeTransport};
use portcullis_ike::status::{Evidence, Reason, State};

use crate::configuration::{A, NAT, Pair};
use crate::network::{Nat, Tcp, Weather};
use crate::world::World;

use Evidence::{Echo, Inbound};
use StartTransport::{Tcp as OnTcp, UdpThenTcp as OnUdp};
use State::{Blocked, Connecting, DirectIp, DirectUdp, Idle, PeerDead, Suspect, Tcp as InTcp, Unverified};

const SECOND: Duration = Duration::from_secs(1);

/// A row of the policy in one of its forms.
struct Row {
    number: u8,
    form: &'static str,
    pair: Pair,
    is_behind_nat: bool,
    weather: Weather,
    course: Vec<Turn>,
}

/// What happens next.
enum Turn {
    /// Time passes until both ends show this.
    Until(Duration, [Seen; 2]),
    /// Time passes.
    For(Duration),
    /// Both ends have data from now on.
    Traffic,
    Weather(Weather),
    BreakStreams,
}

/// What an end shows: state, reason, evidence, and what carries ESP and IKE of its SA.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Seen {
    state: State,
    reason: Reason,
    evidence: Evidence,
    sa: Option<Sa>,
}

/// IKE's transport, SEPARATE_TRANSPORTS agreed, and what carries ESP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Sa(IkeTransport, bool, Esp);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Esp {
    Hold,
    Ip,
    Udp,
    Tcp,
    Shut,
}

const TCP_S_IP: Option<Sa> = Some(Sa(IkeTransport::Tcp, true, Esp::Ip));
const TCP_S_UDP: Option<Sa> = Some(Sa(IkeTransport::Tcp, true, Esp::Udp));
const TCP_S_TCP: Option<Sa> = Some(Sa(IkeTransport::Tcp, true, Esp::Tcp));
const TCP_TCP: Option<Sa> = Some(Sa(IkeTransport::Tcp, false, Esp::Tcp));
const UDP_IP: Option<Sa> = Some(Sa(IkeTransport::Udp, false, Esp::Ip));
const UDP_UDP: Option<Sa> = Some(Sa(IkeTransport::Udp, false, Esp::Udp));

#[test]
fn every_row_is_walked_from_both_ends() {
    let mut walked = BTreeSet::new();
    let mut failures = Vec::new();
    for initiator in 0..2 {
        for row in rows() {
            walked.insert(row.number);
            let name = format!("row {}, {}, node {initiator} initiates", row.number, row.form);
            failures.extend(walk(row, initiator).err().map(|why| format!("{name}: {why}")));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(walked, (1..=21).collect());
}

fn rows() -> Vec<Row> {
    use Reason::{
        EspUnreachable, IkeTcpUnreachable, IkeUdpUnreachable, IkeUnreachable, IpUnanswered, PeerNoSeparate,
        PeerSilent, Returned, SeparateOff, TrialFailed,
    };
    let blocked = |reason| [ended(Blocked, reason), ended(Idle, Reason::None)];
    vec![
        row(1, "", udp()).until(10, both(DirectIp, Reason::None, Echo, TCP_S_IP)),
        row(2, "", udp())
            .weather(without_ip())
            .until(10, both(DirectUdp, IpUnanswered, Echo, TCP_S_UDP))
            .traffic()
            .passes(30)
            .until(0, both(DirectUdp, IpUnanswered, Echo, TCP_S_UDP)),
        row(3, "", udp()).nat().until(10, both(DirectUdp, Reason::Nat, Echo, TCP_S_UDP)),
        row(4, "", without_echo(udp()))
            .until(1, each(DirectUdp, Reason::None, [Evidence::Ike, Inbound], TCP_S_UDP))
            .traffic()
            .until(3, both(DirectUdp, Reason::None, Inbound, TCP_S_UDP)),
        row(5, "no S at the responder", strongswan(udp()))
            .until(1, from_a_dummy(UDP_IP))
            .traffic()
            .until(3, both(DirectIp, Reason::None, Inbound, UDP_IP)),
        row(5, "NAT", strongswan(udp()))
            .nat()
            .traffic()
            .until(5, both(DirectUdp, Reason::Nat, Inbound, UDP_UDP)),
        row(
            5,
            "UDP alone is allowed",
            strongswan(udp()).both(|c| c.esp.transports = vec![DirectCarrier::Udp]),
        )
        .traffic()
        .until(5, both(DirectUdp, Reason::None, Inbound, UDP_UDP)),
        row(5, "off", separate(udp(), SeparateTransports::Off))
            .traffic()
            .until(5, both(DirectIp, Reason::None, Echo, UDP_IP)),
        row(6, "", separate(strongswan(udp()), SeparateTransports::Require))
            .passes(50)
            .until(0, [ended(Connecting, Reason::None), ended(Idle, Reason::None)])
            .until(20, blocked(PeerNoSeparate)),
        row(7, "refused", udp())
            .weather(tcp(Tcp::Refused))
            .until(3, reasons(DirectIp, [IkeTcpUnreachable, Reason::None], Echo, UDP_IP)),
        row(7, "silent", udp())
            .weather(tcp(Tcp::Silent))
            .passes(10)
            .until(3, reasons(DirectIp, [IkeTcpUnreachable, Reason::None], Echo, UDP_IP)),
        row(8, "refused", separate(udp(), SeparateTransports::Require))
            .weather(tcp(Tcp::Refused))
            .until(3, blocked(IkeTcpUnreachable)),
        row(8, "silent", separate(udp(), SeparateTransports::Require))
            .weather(tcp(Tcp::Silent))
            .passes(10)
            .until(3, blocked(IkeTcpUnreachable)),
        row(9, "", udp())
            .weather(Weather { udp_blocked: true, ..Weather::default() })
            .until(12, reasons(DirectIp, [IkeUdpUnreachable, Reason::None], Echo, TCP_S_IP)),
        row(10, "refused", on_tcp()).weather(tcp(Tcp::Refused)).until(2, blocked(IkeTcpUnreachable)),
        row(10, "silent", on_tcp()).weather(tcp(Tcp::Silent)).until(12, blocked(IkeTcpUnreachable)),
        row(10, "after row 9", udp())
            .weather(Weather { udp_blocked: true, tcp: Tcp::Refused, ..Weather::default() })
            .until(12, blocked(IkeUnreachable)),
        row(11, "IP", on_tcp()).until(5, both(DirectIp, Reason::None, Echo, TCP_S_IP)),
        row(11, "UDP", on_tcp())
            .weather(without_ip())
            .until(8, reasons(DirectUdp, [IpUnanswered, Reason::None], Echo, TCP_S_UDP)),
        row(12, "", on_tcp()).nat().until(8, both(DirectUdp, Reason::Nat, Echo, TCP_S_UDP)),
        row(13, "", without_echo(on_tcp()))
            .until(1, from_a_dummy(TCP_S_IP))
            .traffic()
            .until(3, both(DirectIp, Reason::None, Inbound, TCP_S_IP)),
        row(13, "NAT", without_echo(on_tcp()))
            .nat()
            .traffic()
            .until(5, both(DirectUdp, Reason::Nat, Inbound, TCP_S_UDP)),
        row(13, "IP stops passing", without_echo(on_tcp()))
            .traffic()
            .until(3, both(DirectIp, Reason::None, Inbound, TCP_S_IP))
            .then(without_ip())
            .until(40, both(DirectUdp, Reason::None, Inbound, TCP_S_UDP)),
        row(14, "peer", falls_back(strongswan(on_tcp())))
            .traffic()
            .until(3, reasons(InTcp, [PeerNoSeparate, SeparateOff], Inbound, TCP_TCP)),
        row(14, "off", falls_back(separate(without_echo(on_tcp()), SeparateTransports::Off)))
            .traffic()
            .until(3, reasons(InTcp, [SeparateOff, PeerNoSeparate], Inbound, TCP_TCP)),
        row(15, "fail-closed", strongswan(on_tcp())).until(3, blocked(PeerNoSeparate)),
        row(15, "require", falls_back(separate(strongswan(on_tcp()), SeparateTransports::Require)))
            .until(3, blocked(PeerNoSeparate)),
        row(16, "", falls_back(on_tcp()))
            .weather(without_direct())
            .traffic()
            .until(10, reasons(InTcp, [EspUnreachable, PeerNoSeparate], Inbound, TCP_TCP)),
        row(17, "UDP start", falls_back(udp()))
            .after_ike_sa_init()
            .then(without_direct())
            .traffic()
            .until(10, each(InTcp, EspUnreachable, [Echo, Inbound], TCP_S_TCP)),
        row(17, "mid-life, in place", falls_back(on_tcp()))
            .traffic()
            .until(10, both(DirectIp, Reason::None, Echo, TCP_S_IP))
            .then(without_direct())
            .until(10, both(InTcp, EspUnreachable, Echo, TCP_S_TCP)),
        row(17, "mid-life, without echo as row 16", falls_back(without_echo(on_tcp())))
            .traffic()
            .until(10, both(DirectIp, Reason::None, Inbound, TCP_S_IP))
            .then(without_direct())
            .until(120, reasons(InTcp, [EspUnreachable, PeerNoSeparate], Inbound, TCP_TCP)),
        row(18, "of row 16", on_tcp())
            .weather(without_direct())
            .until(10, [ended(Blocked, EspUnreachable), ended(Idle, Reason::PeerDeleted)]),
        row(18, "of row 17", on_tcp())
            .traffic()
            .until(10, both(DirectIp, Reason::None, Echo, TCP_S_IP))
            .then(without_direct())
            .until(10, [ended(Blocked, EspUnreachable), ended(Idle, Reason::PeerDeleted)]),
        row(18, "of row 17, without echo", without_echo(on_tcp()))
            .traffic()
            .until(3, both(DirectIp, Reason::None, Inbound, TCP_S_IP))
            .then(without_direct())
            .passes(55)
            .until(0, [from_a_dummy(TCP_S_UDP)[0], stopped(EspUnreachable)])
            .until(15, [ended(Blocked, EspUnreachable), ended(Idle, Reason::PeerDeleted)]),
        row(19, "", on_tcp())
            .traffic()
            .until(10, both(DirectIp, Reason::None, Echo, TCP_S_IP))
            .then(Weather { tcp_stalled: true, tcp: Tcp::Silent, ..without_direct() })
            .until(10, both(Suspect, Reason::None, Echo, TCP_S_IP))
            .passes(130)
            .until(0, both(Suspect, Reason::None, Echo, TCP_S_IP))
            .until(60, [ended(PeerDead, PeerSilent); 2]),
        row(20, "", on_tcp())
            .traffic()
            .until(10, both(DirectIp, Reason::None, Echo, TCP_S_IP))
            .break_streams()
            .until(0, both(DirectIp, Reason::None, Echo, TCP_S_IP))
            .passes(60)
            .until(0, both(DirectIp, Reason::None, Echo, TCP_S_IP)),
        row(21, "in place", falls_back(on_tcp()))
            .traffic()
            .until(10, both(DirectIp, Reason::None, Echo, TCP_S_IP))
            .then(without_direct())
            .until(10, both(InTcp, EspUnreachable, Echo, TCP_S_TCP))
            .then(Weather::default())
            .until(60, both(DirectIp, Returned, Echo, TCP_S_IP)),
        row(21, "a trial that fails", falls_back(on_tcp()))
            .weather(without_direct())
            .traffic()
            .until(10, reasons(InTcp, [EspUnreachable, PeerNoSeparate], Inbound, TCP_TCP))
            .until(60, reasons(InTcp, [TrialFailed, PeerNoSeparate], Inbound, TCP_TCP)),
        row(21, "a trial that succeeds", falls_back(on_tcp()))
            .weather(without_direct())
            .traffic()
            .until(10, reasons(InTcp, [EspUnreachable, PeerNoSeparate], Inbound, TCP_TCP))
            .then(Weather::default())
            .until(60, reasons(DirectIp, [Returned, Reason::None], Echo, TCP_S_IP)),
    ]
}

fn row(number: u8, form: &'static str, pair: Pair) -> Row {
    Row { number, form, pair, is_behind_nat: false, weather: Weather::default(), course: Vec::new() }
}

impl Row {
    /// The initiator is behind a NAT.
    fn nat(mut self) -> Self {
        self.pair.b.remote_address = RemoteAddress::Any;
        Self { is_behind_nat: true, ..self }
    }

    /// From the start on.
    fn weather(self, weather: Weather) -> Self {
        Self { weather, ..self }
    }

    fn then(self, weather: Weather) -> Self {
        self.turn(Turn::Weather(weather))
    }

    fn traffic(self) -> Self {
        self.turn(Turn::Traffic)
    }

    fn break_streams(self) -> Self {
        self.turn(Turn::BreakStreams)
    }

    /// Until its response is there: one RTT, and half of one more.
    fn after_ike_sa_init(self) -> Self {
        self.turn(Turn::For(Weather::default().latency * 3))
    }

    fn passes(self, seconds: u32) -> Self {
        self.turn(Turn::For(SECOND * seconds))
    }

    fn until(self, seconds: u32, ends: [Seen; 2]) -> Self {
        self.turn(Turn::Until(SECOND * seconds, ends))
    }

    fn turn(mut self, turn: Turn) -> Self {
        self.course.push(turn);
        self
    }
}

fn udp() -> Pair {
    Pair::new(OnUdp)
}

fn on_tcp() -> Pair {
    Pair::new(OnTcp)
}

/// The initiator's.
fn separate(mut pair: Pair, separate: SeparateTransports) -> Pair {
    pair.a.ike.separate_transports = separate;
    pair
}

fn falls_back(pair: Pair) -> Pair {
    pair.both(|connection| connection.esp.on_unreachable = OnUnreachable::TcpFallback)
}

/// The responder's ESP echo is not believed: its number is another.
fn without_echo(mut pair: Pair) -> Pair {
    pair.config_b.esp_echo_notify = 50_001;
    pair
}

/// The responder knows neither SEPARATE_TRANSPORTS nor ESP echo.
fn strongswan(pair: Pair) -> Pair {
    let mut pair = without_echo(pair);
    pair.b.ike.separate_transports = SeparateTransports::Off;
    pair
}

fn tcp(tcp: Tcp) -> Weather {
    Weather { tcp, ..Weather::default() }
}

fn without_ip() -> Weather {
    Weather { ip_blocked: true, ..Weather::default() }
}

fn without_direct() -> Weather {
    Weather { ip_blocked: true, udp_blocked: true, ..Weather::default() }
}

fn each(state: State, reason: Reason, evidence: [Evidence; 2], sa: Option<Sa>) -> [Seen; 2] {
    evidence.map(|evidence| Seen { state, reason, evidence, sa })
}

fn both(state: State, reason: Reason, evidence: Evidence, sa: Option<Sa>) -> [Seen; 2] {
    each(state, reason, [evidence; 2], sa)
}

fn reasons(state: State, reasons: [Reason; 2], evidence: Evidence, sa: Option<Sa>) -> [Seen; 2] {
    reasons.map(|reason| Seen { state, reason, evidence, sa })
}

/// The initiator has sent a dummy, and nothing has come back.
fn from_a_dummy(sa: Option<Sa>) -> [Seen; 2] {
    let reason = Reason::None;
    let responder = Seen { state: DirectIp, reason, evidence: Inbound, sa };
    [Seen { state: Unverified, evidence: Evidence::None, ..responder }, responder]
}

/// A responder that has stopped ESP and gives its initiator time (rule 9).
fn stopped(reason: Reason) -> Seen {
    let sa = Some(Sa(IkeTransport::Tcp, true, Esp::Shut));
    Seen { state: Blocked, reason, evidence: Evidence::None, sa }
}

/// An end without an IKE SA.
fn ended(state: State, reason: Reason) -> Seen {
    Seen { state, reason, evidence: Evidence::None, sa: None }
}

fn walk(row: Row, initiator: usize) -> Result<(), String> {
    let Row { number, pair, is_behind_nat, weather, course, .. } = row;
    let fails_closed = [&pair.a, &pair.b].iter().any(|c| c.esp.on_unreachable == OnUnreachable::FailClosed);
    let mut world = pair.world_from(initiator, u64::from(number));
    world.nat = is_behind_nat.then(|| Nat::new(A, NAT));
    world.weather = weather;
    let seen = |world: &World| [initiator, 1 - initiator].map(|node| look(world, node));
    for (step, turn) in course.into_iter().enumerate() {
        match turn {
            Turn::Until(most, wanted) => {
                if !world.run_until_holds(most, |world| seen(world) == wanted) {
                    return Err(format!("step {step}: {:?}\n  in place of {wanted:?}", seen(&world)));
                }
            }
            Turn::For(duration) => world.run_for(duration),
            Turn::Traffic => world.traffic = Some(Duration::from_millis(100)),
            Turn::Weather(weather) => world.weather = weather,
            Turn::BreakStreams => world.break_streams(),
        }
    }
    if fails_closed && world.esp_in_tcp > 0 {
        return Err(format!("{} ESP packets in TCP", world.esp_in_tcp));
    }
    world.weather = Weather::default();
    world.shut_down_and_check();
    Ok(())
}

fn look(world: &World, node: usize) -> Seen {
    let status = world.status(node);
    let sa = status.ike_sas.first().and_then(|sa| {
        let esp = match sa.esp_path?.carrier {
            EspCarrier::Hold => Esp::Hold,
            EspCarrier::Direct(DirectCarrier::Ip) => Esp::Ip,
            EspCarrier::Direct(DirectCarrier::Udp) => Esp::Udp,
            EspCarrier::Stream(_) => Esp::Tcp,
            EspCarrier::Shut => Esp::Shut,
        };
        Some(Sa(sa.transport, sa.separate_transports, esp))
    });
    Seen { state: status.state, reason: status.reason, evidence: status.evidence, sa }
}
