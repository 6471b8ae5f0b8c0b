//! ESP is blocked at the router: what each policy does, how long it took to know, and the way back.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use portcullis_vm_tests::capture::{Capture, Counts};
use portcullis_vm_tests::status::ConnectionStatus;
use portcullis_vm_tests::{
    Artefacts, Blocked, DataPlaneMode, Pair, PairOptions, Ping, Side, Way, inner_prefixes, until,
};

use super::account::Account;
use super::figures;

/// The whole block: neither IP protocol 50 nor UDP 4500 passes.
const BOTH: [Blocked; 2] = [Blocked::Protocol50, Blocked::Udp4500];
/// What a machine that runs other things too may add to a decision.
const BUSY: Duration = Duration::from_secs(4);
const LIMIT: Duration = Duration::from_secs(60);

/// Blocks one carrier, then all of them under either policy.
pub(super) fn run(mode: DataPlaneMode, artefacts: &Artefacts, account: &mut Account) {
    account.part("Blocked: IP protocol 50 in the middle of traffic, ESP moves to UDP", |account| {
        let stage = Stage::up("fail-closed", mode, artefacts)?;
        stage.block(&[Blocked::Protocol50])?;
        stage.expect(Side::A, ("direct_udp", "ip_unanswered"), Within::MidLife, account)?;
        stage.expect(Side::B, ("direct_udp", "none"), Within::Any, account)?;
        stage.pings(true, account)?;
        stage.close(account, |counts, account| account.expect_equal("ESP in TCP", counts.esp_tcp, 0))
    });
    account.part("Blocked: IP protocol 50 and UDP 4500, fail-closed: traffic stops", |account| {
        let stage = Stage::up("fail-closed", mode, artefacts)?;
        stage.block(&BOTH)?;
        stage.expect(Side::A, ("blocked", "esp_unreachable"), Within::MidLife, account)?;
        stage.pings(false, account)?;
        stage.unblock()?;
        stage.is_back(account)?;
        stage.pings(true, account)?;
        stage.close(account, |counts, account| account.expect_equal("ESP in TCP", counts.esp_tcp, 0))
    });
    account.part("Blocked: IP protocol 50 and UDP 4500, tcp-fallback: traffic flows in TCP", |account| {
        let stage = Stage::up("tcp-fallback", mode, artefacts)?;
        stage.block(&BOTH)?;
        stage.expect(Side::A, ("tcp", "esp_unreachable"), Within::MidLife, account)?;
        stage.expect(Side::B, ("tcp", "esp_unreachable"), Within::Any, account)?;
        stage.pings(true, account)?;
        let in_tcp = stage.router.counts().esp_tcp;
        account.expect("ESP in TCP at the router", in_tcp > 0, in_tcp);
        stage.unblock()?;
        stage.expect(Side::A, ("direct_ip", "returned"), Within::Any, account)?;
        stage.pings(true, account)?;
        stage.close(account, |_, _| {})
    });
}

/// When a decision has to be there.
#[derive(Clone, Copy)]
enum Within {
    /// What `status` promised before the block: 3 s and the budget.
    MidLife,
    /// When it comes.
    Any,
}

struct Stage {
    pair: Pair,
    router: Capture,
    promised: Duration,
    since: std::cell::Cell<Instant>,
}

impl Stage {
    /// Both gateways with this policy, and an echo has proven IP.
    fn up(policy: &str, mode: DataPlaneMode, artefacts: &Artefacts) -> Result<Self> {
        let options = PairOptions { mode, ..PairOptions::USUAL };
        let mut pair = Pair::new(options, artefacts)?.leave_books();
        for side in [Side::A, Side::B] {
            let mut config = pair.gateway(side).configuration()?;
            let esp = format!("connections/{}/esp", side.connection());
            config.set(&format!("{esp}/on_unreachable"), policy);
            // The demo does not wait for half a minute to see the way back; probes have the timers that ship.
            config.set(&format!("connections/{}/ike/retry_min", side.connection()), "1s");
            config.set(&format!("{esp}/hold_time"), "1s");
            if policy == "tcp-fallback" {
                config.set(&format!("{esp}/fallback/trial_first"), "2s");
            }
            pair.gateway(side).configure(config)?;
        }
        let router = Capture::start(&pair.lab.router, inner_prefixes())?;
        pair.b.start()?;
        pair.a.start()?;
        let is_proven = |c: &ConnectionStatus| (&*c.state, &*c.evidence) == ("direct_ip", "echo");
        let a = pair.a.wait_connection(Side::A.connection(), LIMIT, is_proven)?;
        pair.b.wait_connection(Side::B.connection(), LIMIT, is_proven)?;
        let esp = &a.ike_sas.first().context("an IKE SA")?.esp;
        let promised = Duration::from_secs_f64(esp.decision_within_seconds);
        Ok(Self { pair, router, promised, since: std::cell::Cell::new(Instant::now()) })
    }

    /// ESP is proven outside of TCP again: over UDP where an attempt was verifying at the moment of the unblocking, and
    /// its echoes over IP had been sent before.
    fn is_back(&self, account: &mut Account) -> Result<()> {
        let is_proven = |c: &ConnectionStatus| c.state.starts_with("direct_") && c.evidence == "echo";
        let found = self.pair.a.wait_connection(Side::A.connection(), LIMIT, is_proven)?;
        account.expect(
            "gw-a says that ESP is proven again",
            true,
            format!("{}, {}", found.state, found.evidence),
        );
        Ok(())
    }

    fn block(&self, what: &[Blocked]) -> Result<()> {
        what.iter().try_for_each(|what| self.pair.lab.block(*what, Way::Both))?;
        self.since.set(Instant::now());
        // Traffic meets the block: a ping that nobody answers.
        self.ping(1).map(drop)
    }

    fn unblock(&self) -> Result<()> {
        let stopped = self.pair.lab.filtered()?;
        anyhow::ensure!(stopped > 0, "the router had nothing to stop");
        self.pair.lab.unblock()?;
        self.since.set(Instant::now());
        Ok(())
    }

    fn expect(
        &self,
        side: Side,
        (state, reason): (&str, &str),
        within: Within,
        account: &mut Account,
    ) -> Result<()> {
        let gateway = self.pair.gateway(side);
        // Traffic goes on: silence is noticed where something is sent.
        let found = until(LIMIT, || {
            let connection = gateway.connection(side.connection()).ok()?;
            let is_it = connection.state == state && (reason == "none" || connection.reason == reason);
            if is_it {
                return Some(connection);
            }
            self.ping(1).ok()?;
            None
        });
        let took = self.since.get().elapsed();
        let in_time = match within {
            Within::MidLife => took <= self.promised + BUSY,
            Within::Any => true,
        };
        let promise = match within {
            Within::MidLife => format!(", promised within {:.2} s", self.promised.as_secs_f64()),
            Within::Any => String::new(),
        };
        let text = match &found {
            Some(c) => format!(
                "{}, reason {}, evidence {}, after {:.2} s{promise}",
                c.state,
                c.reason,
                c.evidence,
                took.as_secs_f64()
            ),
            None => format!("{:?}\n{}", gateway.connection(side.connection())?, gateway.log_tail()),
        };
        let what = format!("{} says {state}", side.gateway_name());
        account.expect(&what, found.is_some() && in_time, text);
        anyhow::ensure!(found.is_some(), "{what}: it does not");
        Ok(())
    }

    fn pings(&self, pass: bool, account: &mut Account) -> Result<()> {
        const COUNT: u16 = 10;
        if pass {
            // The other end may learn of the way a moment later.
            until(LIMIT, || (self.ping(1).ok()? == 1).then_some(()));
        }
        let answered = self.ping(COUNT)?;
        let wanted = if pass { u32::from(COUNT) } else { 0 };
        account.expect("pings answered", answered == wanted, format!("{answered} of {COUNT}"));
        Ok(())
    }

    fn ping(&self, count: u16) -> Result<u32> {
        let ping = Ping { count, timeout: Duration::from_millis(200), ..Ping::to(Side::B.host().0) };
        Ok(ping.run(&self.pair.lab.host_a)?.answered)
    }

    fn close(mut self, account: &mut Account, check: impl FnOnce(&Counts, &mut Account)) -> Result<()> {
        figures::drained(&self.pair, account)?;
        let counts = self.router.finish()?;
        figures::none_in_clear(&counts, account);
        check(&counts, account);
        self.pair.a.stop()?;
        self.pair.b.stop()
    }
}
