//! strongSwan as the peer: it knows neither SEPARATE_TRANSPORTS nor ESP echo nor TCP, and its ESP, which is in user space
//! here, is in UDP always. `docs/interoperability.md` has the table of what was seen.

mod bad_certificates;
mod certificates;
mod life;
mod matrix;
mod nat;
mod on_tcp;
mod on_udp;
mod redirect;
mod succession;

use std::time::Duration;

use portcullis_vm_tests::capture::{Capture, Counts};
use portcullis_vm_tests::status::ConnectionStatus;
use portcullis_vm_tests::strongswan::{IkeSa, StrongswanPair};
use portcullis_vm_tests::{CHILD, DaemonConfig, PairOptions, Ping, Side, inner_prefixes, tcp_transfer};

use crate::{SOON, artefacts, change, nothing_in_clear};

/// gw-a's connection.
const OURS: &str = "site-b";
/// strongSwan's.
const THEIRS: &str = "site-a";

/// Portcullis as gw-a, not started, and strongSwan as gw-b; the router is watched.
struct Scene {
    pair: StrongswanPair,
    router: Capture,
}

impl Scene {
    /// gw-a's connection differs from the file that ships in `differs`: YAML by path below it.
    fn new(transport: &'static str, differs: &[(&str, &str)]) -> Self {
        Self::with(PairOptions { transport, ..PairOptions::USUAL }, differs)
    }

    /// The same, with a translator on the router if the options say so.
    fn with(options: PairOptions, differs: &[(&str, &str)]) -> Self {
        let pair = StrongswanPair::new(options, &artefacts()).unwrap();
        change(&pair.a, |config: &mut DaemonConfig| {
            for (key, value) in differs {
                config.set_yaml(&format!("connections/{OURS}/{key}"), value).unwrap();
            }
        });
        let router = Capture::start(&pair.lab.router, inner_prefixes()).unwrap();
        println!("measured: strongSwan {}", pair.b.version().unwrap());
        Self { pair, router }
    }

    /// Starts gw-a, which initiates, and waits until the child is there at both ends.
    fn up(mut self) -> Self {
        self.pair.a.start().unwrap();
        self.wait_up();
        self
    }

    /// Waits until the child is there at both ends.
    fn wait_up(&self) -> (ConnectionStatus, IkeSa) {
        let ours = self.pair.a.wait_connection(OURS, SOON, ConnectionStatus::is_up);
        let ours = ours.unwrap_or_else(|error| panic!("{error:#}\n{}", self.pair.b.log_tail()));
        let theirs = self.pair.b.wait_sas(SOON, |sas| matches!(sas, [sa] if is_up(sa))).unwrap();
        (ours, theirs.into_iter().next().unwrap())
    }

    /// Waits until gw-a says this.
    fn says(&self, state: &str, reason: &str, evidence: &str) -> ConnectionStatus {
        let said = |c: &ConnectionStatus| (&*c.state, &*c.reason, &*c.evidence) == (state, reason, evidence);
        self.pair.a.wait_connection(OURS, SOON, said).unwrap()
    }

    /// Pings of both families, and 10 MB over TCP, from either host to the other.
    fn carries_traffic(&self) {
        const BYTES: u64 = 10_000_000;
        for side in [Side::A, Side::B] {
            let (from, to) = (self.pair.lab.host(side), self.pair.lab.host(side.other()));
            let (v4, v6) = side.other().host();
            for destination in [v4.into(), std::net::IpAddr::from(v6)] {
                let report = Ping::to(destination).run(from).unwrap();
                assert_eq!(report.answered, report.sent, "{destination}\n{}", self.logs());
            }
            let moved = tcp_transfer((from, side.host().0.into()), (to, v4.into()), BYTES).unwrap();
            println!("measured: {:.0} Mbit/s of TCP from {side:?}", moved.mbit_per_second());
        }
    }

    /// Nothing from host-a arrives at host-b, or leaves gw-a in clear.
    fn stays_shut(&self) {
        let (v4, v6) = Side::B.host();
        for destination in [v4.into(), std::net::IpAddr::from(v6)] {
            let ping = Ping { count: 5, timeout: Duration::from_millis(100), ..Ping::to(destination) };
            assert_eq!(ping.run(&self.pair.lab.host_a).unwrap().answered, 0, "{destination}");
        }
        nothing_in_clear(&self.router.counts());
    }

    fn logs(&self) -> String {
        format!("gw-a:\n{}\nstrongSwan:\n{}", self.pair.a.log_tail(), self.pair.b.log_tail())
    }

    /// What the router saw: nothing in clear.
    fn finish(self) -> Counts {
        let counts = self.router.finish().unwrap();
        nothing_in_clear(&counts);
        assert_eq!(counts.tcp_unreadable, 0);
        counts
    }
}

fn is_up(sa: &IkeSa) -> bool {
    sa.state == "ESTABLISHED" && sa.installed(CHILD).is_some()
}
