//! ESP is blocked: the router stops one carrier or all of them, and each end says what it measured and does what its
//! policy says (transport policy rules 3, 5, 7 to 9, rows 1 to 3, 7 to 12 and 16 to 21).
//!
//! In every scenario nothing crosses the router in clear, the filter has met what it was to stop, every state that is waited
//! for is the same in status, API, metrics, events and log, and a decision takes no longer than `status` promises, by the times
//! of the events themselves.

mod at_start;
mod broken_streams;
mod in_mid_life;
mod in_tcp;
mod large_udp;
mod outage_of_many;
mod policy_flips;

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use portcullis_vm_tests::capture::{Capture, Counts};
use portcullis_vm_tests::status::ConnectionStatus;
use portcullis_vm_tests::{
    Blocked, DaemonEvent, DataPlaneMode, Nat, Pair, PairOptions, Ping, Side, UdpFlow, Way, until,
};

use crate::{SOON, artefacts, capture, change, flow, nothing_in_clear};

/// What a machine that runs other things too may add to a decision: turns of the processor that a daemon waits for.
const SLACK: Duration = Duration::from_secs(2);

/// State, reason and evidence; a `*` at the end is anything.
type Says = (&'static str, &'static str, &'static str);

/// Gateways and what is between them.
struct Scene {
    transport: &'static str,
    nat: Nat,
    mode: DataPlaneMode,
    /// `esp.transports` of both.
    esp_transports: &'static str,
    /// `esp.on_unreachable` of gw-a and gw-b.
    policies: [&'static str; 2],
    /// What the router stops from the start.
    filters: &'static [(Blocked, Way)],
    /// Timers as they ship, not shortened.
    default_timers: bool,
}

const FAIL_CLOSED: [&str; 2] = ["fail-closed"; 2];
const FALLBACK: [&str; 2] = ["tcp-fallback"; 2];
const BOTH: &[(Blocked, Way)] = &[(Blocked::Protocol50, Way::Both), (Blocked::Udp4500, Way::Both)];
/// ESP is in TCP because nothing else passes.
const FALLEN: Says = ("tcp", "esp_unreachable", "*");
/// Slow enough to lose little of a machine.
const PACKETS_PER_SECOND: u32 = 200;

impl Scene {
    const USUAL: Self = Self {
        transport: "tcp",
        nat: Nat::None,
        mode: DataPlaneMode::Xdp,
        esp_transports: "[ip, udp]",
        policies: FAIL_CLOSED,
        filters: &[],
        default_timers: false,
    };

    /// Starts both daemons; gw-a initiates.
    fn start(self) -> Stage {
        let options =
            PairOptions { nat: self.nat, transport: self.transport, mode: self.mode, ..PairOptions::USUAL };
        let mut pair = Pair::new(options, &artefacts()).unwrap();
        for (side, policy) in [Side::A, Side::B].into_iter().zip(self.policies) {
            change(pair.gateway(side), |config| {
                let esp = format!("connections/{}/esp", side.connection());
                let ike = format!("connections/{}/ike", side.connection());
                config.set(&format!("{esp}/on_unreachable"), policy);
                config.set_yaml(&format!("{esp}/transports"), self.esp_transports).unwrap();
                if self.default_timers {
                    return;
                }
                let probe = "{ timeout: 300ms, attempts: 3, stagger: 100ms, idle_interval: 1s }";
                config.set_yaml(&format!("{esp}/probe"), probe).unwrap();
                config.set(&format!("{esp}/hold_time"), "1s");
                if policy == "tcp-fallback" {
                    config.set(&format!("{esp}/fallback/trial_first"), "1s");
                }
                config.set(&format!("{ike}/retry_min"), "1s");
                config.set(&format!("{ike}/retry_max"), "2s");
                config.set(&format!("{ike}/tcp_timeout"), "1s");
                config.set(&format!("{ike}/retransmit_after"), "300ms");
            });
        }
        for (what, way) in self.filters {
            pair.lab.block(*what, *way).unwrap();
        }
        let router = capture(&pair);
        pair.b.start().unwrap();
        pair.a.start().unwrap();
        Stage { pair, router }
    }
}

/// A running scene.
struct Stage {
    pair: Pair,
    router: Capture,
}

impl Stage {
    /// Waits until a side says this, and says the same everywhere; returns what its status says then.
    fn wait(&self, side: Side, says: Says) -> ConnectionStatus {
        let said = |c: &ConnectionStatus| matches(says, [&c.state, &c.reason, &c.evidence]);
        let gateway = self.pair.gateway(side);
        let connection = gateway.wait_connection(side.connection(), SOON, said).unwrap();
        gateway.agreed(side.connection()).unwrap();
        connection
    }

    /// How long after `since` a side came to this, by the times of its events.
    fn came_to(&self, side: Side, says: Says, since: SystemTime) -> Duration {
        let is_it = |event: &&DaemonEvent| {
            is_change(side, event)
                && event.time >= since
                && matches(says, ["to", "reason", "evidence"].map(|key| event.text(key)))
        };
        let at = self.pair.gateway(side).events().read(|events| events.iter().find(is_it).map(|e| e.time));
        let at = at.unwrap_or_else(|| panic!("{side:?} came to {says:?}\n{}", self.logs()));
        at.duration_since(since).unwrap_or_default()
    }

    /// Both sides are on IP, everywhere, and no event has said anything else since.
    fn nothing_changed(&self, since: SystemTime) {
        for side in [Side::A, Side::B] {
            self.wait(side, ("direct_ip", "*", "echo"));
            let is_news = |event: &&DaemonEvent| is_change(side, event) && event.time >= since;
            let events = self.pair.gateway(side).events();
            let changes: Vec<_> = events.read(|events| events.iter().filter(is_news).cloned().collect());
            assert_eq!(changes, [], "{side:?}");
        }
    }

    /// When gw-a first began to set the connection up, by its own event.
    fn began(&self) -> SystemTime {
        let is_change = |event: &&DaemonEvent| is_change(Side::A, event);
        let first = self.pair.a.events().read(|events| events.iter().find(is_change).map(|e| e.time));
        first.unwrap_or_else(|| panic!("a first event\n{}", self.logs()))
    }

    /// Pings pass both ways.
    fn passes(&self) {
        for side in [Side::A, Side::B] {
            let ping =
                Ping { count: 1, timeout: Duration::from_millis(300), ..Ping::to(side.other().host().0) };
            until(SOON, || (ping.run(self.pair.lab.host(side)).unwrap().answered == 1).then_some(()))
                .unwrap_or_else(|| panic!("an answer to a ping from {side:?}\n{}", self.logs()));
        }
    }

    /// No ping passes.
    fn stays_shut(&self) {
        for side in [Side::A, Side::B] {
            let (v4, v6) = side.other().host();
            for destination in [IpAddr::from(v4), v6.into()] {
                let ping = Ping { count: 3, timeout: Duration::from_millis(100), ..Ping::to(destination) };
                let answered = ping.run(self.pair.lab.host(side)).unwrap().answered;
                assert_eq!(answered, 0, "nothing passes from {side:?} to {destination}");
            }
        }
    }

    fn logs(&self) -> String {
        format!("gw-a:\n{}\ngw-b:\n{}", self.pair.a.log_tail(), self.pair.b.log_tail())
    }

    /// The first verification of a side that came to this, by its own event; `carrier` is the one that answered.
    fn verification(&self, side: Side, verdict: &str, carrier: Option<&str>) -> Duration {
        let is_it = |event: &&DaemonEvent| {
            event.kind == "esp_verified"
                && event.connection == side.connection()
                && event.text("verdict") == verdict
                && event.body["carrier"].as_str() == carrier
        };
        let seconds = self.pair.gateway(side).events().read(|events| {
            let found = events.iter().find(is_it);
            found.and_then(|event| event.body["seconds"].as_f64())
        });
        let seconds =
            seconds.unwrap_or_else(|| panic!("{side:?} has come to {verdict} {carrier:?}\n{}", self.logs()));
        Duration::from_secs_f64(seconds)
    }

    /// What the router saw: nothing in clear, and the filter had something to do.
    fn finish(self) -> (Pair, Counts) {
        assert!(self.pair.lab.filtered().unwrap() > 0, "the filter has met what it stops");
        let counts = self.router.finish().unwrap();
        nothing_in_clear(&counts);
        assert_eq!(counts.tcp_unreadable, 0);
        (self.pair, counts)
    }
}

/// A figure for the operator's page; `cargo xtask test scenarios -- --nocapture blocked` shows them.
fn measured(what: &str, took: Duration) {
    println!("measured: {what}: {:.2} s", took.as_secs_f64());
}

/// Numbered traffic both ways.
fn flows(stage: &Stage) -> Vec<UdpFlow> {
    [Side::A, Side::B].map(|side| flow(&stage.pair.lab, side, PACKETS_PER_SECOND)).into()
}

/// Ends flows that may have lost, and have doubled nothing.
fn end(flows: Vec<UdpFlow>) {
    for flow in flows {
        let report = flow.finish().unwrap();
        assert_eq!((report.duplicated, report.refused), (0, 0), "{report}");
    }
}

/// A change of a side's connection.
fn is_change(side: Side, event: &DaemonEvent) -> bool {
    event.kind == "state_changed" && event.connection == side.connection()
}

/// State, reason and evidence are as `says`.
fn matches((state, reason, evidence): Says, found: [&str; 3]) -> bool {
    let is = |(wanted, found): (&str, &str)| match wanted.strip_suffix('*') {
        Some(start) => found.starts_with(start),
        None => found == wanted,
    };
    [state, reason, evidence].into_iter().zip(found).all(is)
}

/// A decision was taken within what `status` promises.
fn within(took: Duration, promised_seconds: f64) {
    let most = Duration::from_secs_f64(promised_seconds) + SLACK;
    assert!(took <= most, "{took:?} where {promised_seconds} s are promised");
}
