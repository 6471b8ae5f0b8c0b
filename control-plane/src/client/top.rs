//! What the workers do between two looks.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::IsTerminal;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::{data_plane_of, http};
use crate::status::{DataPlane, Worker};

/// To the upper left corner, and away with what was there.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Shows rates every `interval`, `count` times or until the daemon or this process ends; on a terminal in one place.
///
/// # Errors
/// If no daemon answers on the socket.
pub fn follow(socket: &Path, interval: Duration, count: Option<u64>) -> Result<()> {
    let look = || -> Result<(Instant, DataPlane)> {
        let body = http::request(socket, "GET", "/v1/data-plane", None)?;
        Ok((Instant::now(), data_plane_of(&body)?))
    };
    let clear = if std::io::stdout().is_terminal() { CLEAR } else { "" };
    let mut before = look()?;
    let mut shown = 0;
    while count.is_none_or(|count| shown < count) {
        std::thread::sleep(interval);
        let now = look()?;
        println!("{clear}{}", page(&before.1, &now.1, now.0 - before.0));
        before = now;
        shown += 1;
    }
    Ok(())
}

/// One page: a line for each worker, what was dropped, and how the packets travel.
fn page(before: &DataPlane, now: &DataPlane, time: Duration) -> String {
    let mut page = String::new();
    // Writing to a string does not fail.
    let _ = write_page(&mut page, before, now, time.as_secs_f64());
    page
}

fn write_page(page: &mut String, before: &DataPlane, now: &DataPlane, seconds: f64) -> std::fmt::Result {
    writeln!(
        page,
        "{:>6} {:>6} {:>12} {:>10} {:>12} {:>10} {:>6} {:>7} {:>7} {:>10} {:>8}",
        "worker",
        "busy",
        "packets in",
        "Mbit/s",
        "packets out",
        "Mbit/s",
        "batch",
        "ns each",
        "joined",
        "handed on",
        "dropped"
    )?;
    for (worker, before) in now.workers.iter().zip(&before.workers) {
        let of = |counts: fn(&Worker) -> &BTreeMap<String, u64>| {
            counts(worker).values().sum::<u64>().saturating_sub(counts(before).values().sum()) as f64
        };
        let (received, sent) = (of(|w| &w.received), of(|w| &w.sent));
        let mbit = |octets: f64| octets * 8.0 / 1e6 / seconds;
        let busy = worker.busy_seconds - before.busy_seconds;
        let batches = worker.batches.saturating_sub(before.batches) as f64;
        let handed_over = worker.handed_over.saturating_sub(before.handed_over) as f64;
        writeln!(
            page,
            "{:>6} {:>5.0}% {:>10.0}/s {:>10.1} {:>10.0}/s {:>10.1} {:>6} {:>7} {:>7} {:>8.0}/s {:>6.0}/s",
            worker.index,
            100.0 * busy / seconds,
            received / seconds,
            mbit(of(|w| &w.received_bytes)),
            sent / seconds,
            mbit(of(|w| &w.sent_bytes)),
            share(received, batches, 1.0, ""),
            share(busy * 1e9, received, 1.0, ""),
            share(of(|w| &w.joined), sent, 100.0, "%"),
            handed_over / seconds,
            of(|w| &w.drops) / seconds,
        )?;
    }
    let rates = |now: &BTreeMap<String, u64>, before: &BTreeMap<String, u64>| -> Vec<String> {
        let mut grown: Vec<_> = now
            .iter()
            .map(|(name, count)| (name, count.saturating_sub(before.get(name).copied().unwrap_or(0))))
            .filter(|(_, count)| *count > 0)
            .collect();
        grown.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        grown.iter().map(|(name, count)| format!("{name} {:.0}/s", *count as f64 / seconds)).collect()
    };
    let line = |rates: Vec<String>| if rates.is_empty() { "nothing".to_owned() } else { rates.join(", ") };
    let total = |plane: &DataPlane, counts: fn(&Worker) -> &BTreeMap<String, u64>| {
        let mut total = BTreeMap::new();
        for (name, count) in plane.workers.iter().flat_map(counts) {
            *total.entry(name.clone()).or_default() += count;
        }
        total
    };
    writeln!(page)?;
    writeln!(
        page,
        "from:    {}",
        line(rates(&total(now, |w| &w.received), &total(before, |w| &w.received)))
    )?;
    writeln!(page, "to:      {}", line(rates(&total(now, |w| &w.sent), &total(before, |w| &w.sent))))?;
    writeln!(page, "dropped: {}", line(rates(&now.drops, &before.drops)))?;
    for (interface, verdicts) in &now.xdp {
        let none = BTreeMap::new();
        let before = before.xdp.get(interface).unwrap_or(&none);
        writeln!(page, "XDP {interface}: {}", line(rates(verdicts, before)))?;
    }
    let table = now.sa_table;
    write!(
        page,
        "SAs:     {} inbound, {} outbound of {}; {} packets wait",
        table.inbound, table.outbound, table.slots, now.accounting.held
    )
}

/// `part` of `whole`; a dash of nothing.
fn share(part: f64, whole: f64, scale: f64, unit: &str) -> String {
    if whole > 0.0 { format!("{:.0}{unit}", scale * part / whole) } else { "-".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::render::tests::idle_data_plane;
    use crate::status::ByPath;

    #[test]
    fn a_page_shows_what_happened_between_two_looks() {
        let worker = |received: u64, busy_seconds: f64| {
            let counts = |count: u64| BTreeMap::from([("tun".to_owned(), count)]);
            let none = ByPath { af_xdp: 0, socket: 0 };
            Worker {
                index: 0,
                esp_in: none,
                esp_out: none,
                received: counts(received),
                received_bytes: counts(received * 1250),
                sent: counts(received),
                sent_bytes: counts(received * 1250),
                drops: counts(received / 100),
                held: 0,
                handed_over: 0,
                moved_sas: 0,
                joined: counts(received / 2),
                batches: received / 50,
                busy_seconds,
            }
        };
        let look = |worker, dropped| {
            let mut look = idle_data_plane();
            look.workers = vec![worker];
            look.drops = BTreeMap::from([("replay".to_owned(), dropped), ("no_sa".to_owned(), 7)]);
            look
        };
        let text =
            page(&look(worker(1000, 0.5), 10), &look(worker(21_000, 1.5), 210), Duration::from_secs(2));
        let words: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
        let expected =
            ["0", "50%", "10000/s", "100.0", "10000/s", "100.0", "50", "50000", "50%", "0/s", "100/s"];
        assert_eq!(words, expected, "{text}");
        assert!(
            text.contains("dropped: replay 100/s\n") && text.contains("from:    tun 10000/s\n"),
            "{text}"
        );
    }

    #[test]
    fn a_worker_without_work_has_no_figures_for_each() {
        assert_eq!(share(0.0, 0.0, 1.0, ""), "-");
        assert_eq!(share(1.0, 3.0, 100.0, "%"), "33%");
    }
}
