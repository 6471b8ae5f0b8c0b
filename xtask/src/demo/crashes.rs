//! `kill -9` of either gateway in the middle of traffic: nothing leaves in clear, the tunnel is soon back, and the
//! capture that says so would have seen clear text.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use portcullis_vm_tests::capture::Capture;
use portcullis_vm_tests::{
    Artefacts, DataPlaneMode, Pair, PairOptions, Ping, Rate, Side, UdpFlow, inner_prefixes, until,
};

use super::account::Account;
use super::figures;

const BACK_WITHIN: Duration = Duration::from_secs(3);
const PACKETS_PER_SECOND: u32 = 5000;
/// Packets that meet the dead gateway before it is started again.
const PACKETS_WHILE_DEAD: u64 = 5000;

/// Kills both in turn, then shows with the guard off that the capture sees clear text.
pub(super) fn run(mode: DataPlaneMode, artefacts: &Artefacts, account: &mut Account) {
    account.part("kill -9 in the middle of traffic", |account| {
        let options = PairOptions { mode, b_starts: true, ..PairOptions::USUAL };
        let mut pair = Pair::new(options, artefacts)?.leave_books();
        let capture = Capture::start(&pair.lab.router, inner_prefixes())?;
        pair.b.start()?;
        pair.a.start()?;
        pair.wait_up(Duration::from_secs(20))?;
        let (there, back) = (flow(&pair, Side::A)?, flow(&pair, Side::B)?);
        for side in [Side::A, Side::B] {
            crash(&mut pair, side, [&there, &back], account)?;
        }
        for (name, flow) in [("a to b", there), ("b to a", back)] {
            let report = flow.finish()?;
            account
                .note(name, format!("{} sent, {} lost while a gateway was dead", report.sent, report.lost));
        }
        figures::drained(&pair, account)?;

        pair.a.stop()?;
        pair.b.stop()?;
        let report = ping(&pair, 3)?;
        account.expect_equal("pings answered with both daemons stopped", report, 0);
        figures::nothing_in_clear(&capture.finish()?, account);

        let control = Capture::start(&pair.lab.router, inner_prefixes())?;
        pair.a.release()?;
        pair.b.release()?;
        // Detaching the programs takes the links down for a moment.
        until(Duration::from_secs(5), || (ping(&pair, 1).ok()? == 1).then_some(()));
        let answered = ping(&pair, 10)?;
        let seen = control.finish()?.inner_clear;
        account.expect(
            "positive control: with the guard off the same capture sees clear text",
            seen >= 20 && answered == 10,
            format!("{seen} packets, {answered} of 10 pings answered"),
        );
        Ok(())
    });
}

fn flow(pair: &Pair, from: Side) -> Result<UdpFlow> {
    let end = |side: Side| (pair.lab.host(side), IpAddr::from(side.host().0));
    UdpFlow::start(end(from), end(from.other()), Rate::per_second(PACKETS_PER_SECOND))
}

fn ping(pair: &Pair, count: u16) -> Result<u32> {
    let ping = Ping { count, timeout: Duration::from_millis(300), ..Ping::to(Side::B.host().0) };
    Ok(ping.run(&pair.lab.host_a)?.answered)
}

fn crash(pair: &mut Pair, side: Side, flows: [&UdpFlow; 2], account: &mut Account) -> Result<()> {
    const LIMIT: Duration = Duration::from_secs(20);
    let received = flows.map(|flow| flow.progress().received);
    for (flow, received) in flows.into_iter().zip(received) {
        flow.wait(LIMIT, |p| p.received > received + 1000).context("traffic before the crash")?;
    }
    pair.gateway_mut(side).kill()?;
    let sent = flows.map(|flow| flow.progress().sent);
    for (flow, sent) in flows.into_iter().zip(sent) {
        flow.wait(LIMIT, |p| p.sent > sent + PACKETS_WHILE_DEAD)
            .context("traffic while the gateway is dead")?;
    }

    let restart = Instant::now();
    let numbers = flows.map(|flow| flow.progress().sent);
    pair.gateway_mut(side).start()?;
    for (flow, sent) in flows.into_iter().zip(numbers) {
        flow.wait(LIMIT, |p| p.latest > Some(sent)).context("traffic after the restart")?;
    }
    let outage = restart.elapsed();
    account.expect(
        &format!("tunnel back after a restart of {}", side.gateway_name()),
        outage <= BACK_WITHIN,
        format!("{:.2} s", outage.as_secs_f64()),
    );
    Ok(())
}
