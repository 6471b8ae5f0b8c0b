//! ESP is blocked: the router stops one carrier or all of them, and each end says what it measured and does what its
//! policy says (transport policy rules 3, 5, 7 to 9, rows 1 to 3, 7 to 12 and 16 to 21).
//!
//! In every scenario nothing crosses the router in clear, the filter has met what it was to stop, a decision takes no longer
//! than its budget and a busy machine's share, and `/metrics` says what `status` says.

mod at_start;
mod broken_streams;
mod in_mid_life;
mod in_tcp;
mod large_udp;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use portcullis_vm_tests::capture::{Capture, Counts};
use portcullis_vm_tests::status::ConnectionStatus;
use portcullis_vm_tests::{Blocked, DataPlaneMode, Metrics, Nat, Pair, PairOptions, Ping, Side, Way, until};

use crate::{SOON, artefacts, capture, change, nothing_in_clear};

/// What a machine that runs other things too may add to a decision.
const BUSY: Duration = Duration::from_secs(4);

/// State, reason and evidence; a `*` at the end is anything.
type Says = (&'static str, &'static str, &'static str);

/// Gateways and what is between them.
struct Scene {
    transport: &'static str,
    nat: Nat,
    mode: DataPlaneMode,
    /// `esp.on_unreachable` of gw-a and gw-b.
    policies: [&'static str; 2],
    /// What the router stops from the start.
    filters: &'static [(Blocked, Way)],
    /// Timers as they ship, not shortened.
    default_timers: bool,
}

const FAIL_CLOSED: [&str; 2] = ["fail-closed"; 2];

impl Scene {
    const USUAL: Self = Self {
        transport: "tcp",
        nat: Nat::None,
        mode: DataPlaneMode::Xdp,
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
        let started = Instant::now();
        pair.a.start().unwrap();
        Stage { pair, router, started }
    }
}

/// A running scene.
struct Stage {
    pair: Pair,
    router: Capture,
    started: Instant,
}

impl Stage {
    /// Waits until a side says this, and `/metrics` with it; returns what its status says then.
    fn wait(&self, side: Side, (state, reason, evidence): Says) -> ConnectionStatus {
        let name = side.connection();
        let said = |c: &ConnectionStatus| {
            let is = |wanted: &str, found: &str| match wanted.strip_suffix('*') {
                Some(start) => found.starts_with(start),
                None => found == wanted,
            };
            is(state, &c.state) && is(reason, &c.reason) && is(evidence, &c.evidence)
        };
        let gateway = self.pair.gateway(side);
        let connection = gateway.wait_connection(name, SOON, said).unwrap();
        let agrees = until(SOON, || {
            let metrics = gateway.metrics().ok()?;
            let connection = gateway.connection(name).ok()?;
            agree(&metrics, &connection).then_some(())
        });
        assert!(agrees.is_some(), "{}: metrics and status differ: {connection:?}", gateway.name());
        connection
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

    /// The longest verification of a side that came to this, by its own histogram.
    fn verification(&self, side: Side, verdict: &str) -> Duration {
        let metrics = self.pair.gateway(side).metrics().unwrap();
        let value = |suffix: &str| {
            let name = format!("portcullis_esp_verification_seconds_{suffix}");
            metrics.sum(&name, &[("verdict", verdict)]).unwrap_or(0.0)
        };
        assert!(value("count") >= 1.0, "{side:?} has come to {verdict}\n{}", self.logs());
        Duration::from_secs_f64(value("sum") / value("count"))
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

/// One scrape and one status say the same.
fn agree(metrics: &Metrics, connection: &ConnectionStatus) -> bool {
    let is_one = |metric: &str, label: &str, value: &str| {
        metrics.sum(metric, &[("connection", &connection.name), (label, value)]) == Some(1.0)
    };
    is_one("portcullis_connection_state", "state", &connection.state)
        && is_one("portcullis_connection_reason", "reason", &connection.reason)
        && is_one("portcullis_connection_evidence", "evidence", &connection.evidence)
        && connection
            .esp_transport
            .as_deref()
            .is_none_or(|esp| is_one("portcullis_connection_esp_transport", "transport", esp))
}

/// A verification was within its budget.
fn within_budget(took: Duration, budget_seconds: f64) {
    let most = Duration::from_secs_f64(budget_seconds) + BUSY;
    assert!(took <= most, "{took:?} for a budget of {budget_seconds} s");
}
