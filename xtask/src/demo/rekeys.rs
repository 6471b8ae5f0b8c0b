//! Rekeys under load: not a packet lost, refused as a replay, or out of order.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use portcullis_vm_tests::capture::Capture;
use portcullis_vm_tests::status::ConnectionStatus;
use portcullis_vm_tests::{
    Artefacts, CHILD, DataPlaneMode, Pair, PairOptions, Rate, Side, UdpFlow, inner_prefixes,
};

use super::account::Account;
use super::figures;

const CHILD_REKEYS: usize = 10;
const IKE_REKEYS: usize = 3;
const WANTED_PACKETS_PER_SECOND: u32 = 20_000;
/// Aimed at, so that a sender that is held up at its end still reaches what is wanted.
const PACKETS_PER_SECOND: u32 = 20_500;

/// Why the kernel drops before a worker on the TUN path can read.
const QUEUES: [&str; 2] = ["tun_queue_full", "socket_rx_dropped"];

#[derive(Clone, Copy)]
enum Rekey {
    Child,
    Ike,
}

/// Runs them from gw-a, from gw-b, and from both at once.
pub(super) fn run(mode: DataPlaneMode, artefacts: &Artefacts, account: &mut Account) {
    account.part("Rekeys under load, numbered UDP both ways", |account| {
        let options = PairOptions { mode, ..PairOptions::USUAL };
        let mut pair = Pair::new(options, artefacts)?.leave_books();
        let capture = Capture::start(&pair.lab.router, inner_prefixes())?;
        pair.b.start()?;
        pair.a.start()?;
        pair.wait_up(Duration::from_secs(20))?;
        let backlog = backlog_drops();
        let (there, back) = (flow(&pair, Side::A)?, flow(&pair, Side::B)?);
        let both = [&there, &back];

        for (who, sides) in
            [("gw-a", &[Side::A][..]), ("gw-b", &[Side::B]), ("both at once", &[Side::A, Side::B])]
        {
            let child = (0..CHILD_REKEYS).try_for_each(|_| rekey(&pair, sides, Rekey::Child, both));
            let ike = (0..IKE_REKEYS).try_for_each(|_| rekey(&pair, sides, Rekey::Ike, both));
            let outcome = child.and(ike);
            account.expect(
                &format!("{CHILD_REKEYS} child and {IKE_REKEYS} IKE rekeys from {who}"),
                outcome.is_ok(),
                outcome.map_or_else(|e| format!("{e:#}"), |()| "new SPIs each time".to_owned()),
            );
        }

        let reports = [("a to b", there.finish()?), ("b to a", back.finish()?)];
        let (a, b) = figures::drained(&pair, account)?;
        let overrun = match mode {
            DataPlaneMode::Xdp => 0,
            DataPlaneMode::Tun => {
                let queues = QUEUES.iter().map(|reason| figures::drops((&a, &b), reason)).sum::<u64>();
                queues + (backlog_drops() - backlog)
            }
        };
        for (name, report) in &reports {
            let fast_enough = report.packets_per_second() >= f64::from(WANTED_PACKETS_PER_SECOND);
            let in_order = (report.duplicated, report.reordered, report.refused) == (0, 0, 0);
            let all_there = report.lost == 0 || overrun > 0;
            account.expect(name, in_order && all_there && fast_enough, report);
        }
        // A worker that gets no core overruns the kernel's queues, rekey or not. What is lost there has a name and a
        // count; a rekey loses nothing.
        let lost: u64 = reports.iter().map(|(_, report)| report.lost).sum();
        account.expect(
            "lost by rekeys",
            lost <= overrun,
            format!(
                "{}; {lost} in all, queues of the kernel dropped {overrun}; the gateways, for whatever reason: {}",
                lost.saturating_sub(overrun),
                figures::reasons((&a, &b))
            ),
        );
        let router = capture.finish()?;
        account.expect_equal("replay drops", figures::drops((&a, &b), "replay"), 0);
        figures::nothing_in_clear(&router, account);
        Ok(())
    });
}

fn flow(pair: &Pair, from: Side) -> Result<UdpFlow> {
    let end = |side: Side| (pair.lab.host(side), IpAddr::from(side.host().0));
    UdpFlow::start(end(from), end(from.other()), Rate::per_second(PACKETS_PER_SECOND))
}

/// Once traffic has flowed both ways, rekeys from every one of `sides` at the same time, and waits until the SPIs have
/// changed at both ends.
fn rekey(pair: &Pair, sides: &[Side], what: Rekey, flows: [&UdpFlow; 2]) -> Result<()> {
    const LIMIT: Duration = Duration::from_secs(5);
    /// A tenth of a second.
    const PACKETS_BETWEEN: u64 = 2000;
    let received = flows.map(|flow| flow.progress().received);
    for (flow, received) in flows.into_iter().zip(received) {
        flow.wait(LIMIT, |p| p.received >= received + PACKETS_BETWEEN).context("traffic before a rekey")?;
    }
    let before = [Side::A, Side::B].map(|side| spis(pair, side, what));
    std::thread::scope(|scope| {
        let commands: Vec<_> = sides
            .iter()
            .map(|side| {
                scope.spawn(move || {
                    let connection = side.connection();
                    match what {
                        Rekey::Child => pair.gateway(*side).verb(&["rekey", connection, "--child", CHILD]),
                        Rekey::Ike => pair.gateway(*side).verb(&["rekey", connection, "--ike"]),
                    }
                })
            })
            .collect();
        commands.into_iter().try_for_each(|command| {
            command.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).map(drop)
        })
    })?;
    for (side, before) in [Side::A, Side::B].into_iter().zip(before) {
        let before = before?;
        pair.gateway(side).wait_connection(side.connection(), LIMIT, |c| {
            spis_of(c, what).is_some_and(|now| now != before)
        })?;
    }
    Ok(())
}

fn spis(pair: &Pair, side: Side, what: Rekey) -> Result<(String, String)> {
    let connection = pair.gateway(side).connection(side.connection())?;
    spis_of(&connection, what).context("an SA to rekey")
}

/// The SPIs in use: of the child that sends, or of the IKE SA that owns it.
fn spis_of(connection: &ConnectionStatus, what: Rekey) -> Option<(String, String)> {
    connection.ike_sas.iter().find_map(|sa| {
        let child = sa.children.iter().find(|child| child.in_use)?;
        Some(match what {
            Rekey::Child => (child.spi_in.clone(), child.spi_out.clone()),
            Rekey::Ike => (sa.spi_i.clone(), sa.spi_r.clone()),
        })
    })
}

/// Packets that the kernel had no room for between two devices (the second column of /proc/net/softnet_stat): the links of
/// the laboratory drop there when a core is late.
fn backlog_drops() -> u64 {
    let text = std::fs::read_to_string("/proc/net/softnet_stat").unwrap_or_default();
    let dropped = text.lines().filter_map(|line| line.split_whitespace().nth(1));
    dropped.filter_map(|hex| u64::from_str_radix(hex, 16).ok()).sum()
}
