//! The gateway as a whole: guard, workers, XDP, IKE messages.

use std::collections::BTreeSet;

use portcullis_common::DropReason;
use portcullis_data_plane::counters::{Sink, Source, WorkerSnapshot};
use portcullis_ike::event::Counters;
use portcullis_ike::path::{EspTransport, IkeTransport};

use super::page::{Family, Page};
use crate::snapshot::Snapshot;

/// Adds everything that has no `connection` label.
pub(super) fn add(page: &mut Page, snapshot: &Snapshot) {
    page.gauge("build_info", "The running version; always 1")
        .sample([("version", env!("CARGO_PKG_VERSION").into())], 1u64);
    page.gauge("uptime_seconds", "How long the daemon has run").only(snapshot.clock.uptime.as_secs_f64());
    guard(page, snapshot);
    workers(page, snapshot);
    esp_transports(page, snapshot);
    sa_table(page, snapshot);
    drops(page, snapshot);
    interfaces(page, snapshot);
    ike(page, snapshot);
    certificates(page, snapshot);
}

/// One sample for each configured file, however many connections name it.
fn certificates(page: &mut Page, snapshot: &Snapshot) {
    let files: BTreeSet<_> = snapshot.config.connections.iter().flat_map(|c| &c.expiring).collect();
    let expiry = page.gauge(
        "certificate_expiry_timestamp_seconds",
        "When the first certificate or revocation list of a configured file is out of date, since 1970",
    );
    for file in files {
        expiry.sample(
            [("file", file.file.clone().into()), ("kind", file.kind.label().into())],
            file.until.as_secs_f64(),
        );
    }
}

fn guard(page: &mut Page, snapshot: &Snapshot) {
    let guard = &snapshot.data_plane.guard;
    page.gauge("guard_installed", "1 while the kernel holds every policy of the guard").only(guard.installed);
    page.gauge("guard_policies", "Policies of the guard").only(guard.policies);
    page.counter("guard_restores", "Times that something took policies away and they were put back")
        .only(guard.restores);
    let drops = page.counter("guard_drops", "Packets that the guard stopped");
    drops.sample([("direction", "outbound".into())], guard.drops.outbound);
    drops.sample([("direction", "inbound".into())], guard.drops.inbound);
}

fn workers(page: &mut Page, snapshot: &Snapshot) {
    let workers = &snapshot.data_plane.workers;
    let number = |index: usize| index.to_string().into();
    // The tasks of streams count together, beside the workers.
    let all: Vec<_> = workers
        .iter()
        .enumerate()
        .map(|(index, worker)| (index.to_string(), worker))
        .chain([("streams".to_owned(), &snapshot.data_plane.streams)])
        .collect();
    let received = page.counter("worker_received_packets", "Packets that a worker received, by source");
    for (name, worker) in &all {
        for (source, count) in Source::ALL.iter().zip(worker.received) {
            received.sample([("worker", name.clone().into()), ("source", source.label().into())], count);
        }
    }
    let bytes = page.counter("worker_received_bytes", "Octets that a worker received, by source");
    for (name, worker) in &all {
        for (source, count) in Source::ALL.iter().zip(worker.received_bytes) {
            bytes.sample([("worker", name.clone().into()), ("source", source.label().into())], count);
        }
    }
    let sent = page.counter("worker_sent_packets", "Packets that a worker sent, by sink");
    for (name, worker) in &all {
        for (sink, count) in Sink::ALL.iter().zip(worker.sent) {
            sent.sample([("worker", name.clone().into()), ("sink", sink.label().into())], count);
        }
    }
    let bytes = page.counter("worker_sent_bytes", "Octets that a worker sent, by sink");
    for (name, worker) in &all {
        for (sink, count) in Sink::ALL.iter().zip(worker.sent_bytes) {
            bytes.sample([("worker", name.clone().into()), ("sink", sink.label().into())], count);
        }
    }
    let originated =
        page.counter("worker_originated_packets", "Packets of our own making: ICMP errors, dummies");
    for (index, worker) in workers.iter().enumerate() {
        originated.sample([("worker", number(index))], worker.originated);
    }
    let held = page.gauge("worker_held_packets", "Packets that wait for a carrier");
    for (index, worker) in workers.iter().enumerate() {
        held.sample([("worker", number(index))], worker.held);
    }
    let handed_over =
        page.counter("worker_handed_over_packets", "Packets passed to the worker that owns their SA");
    for (index, worker) in workers.iter().enumerate() {
        handed_over.sample([("worker", number(index))], worker.handed_over);
    }
    let moved = page.counter("worker_moved_sas", "SAs that it gave to another worker");
    for (index, worker) in workers.iter().enumerate() {
        moved.sample([("worker", number(index))], worker.sas_moved);
    }
    let joined = page.counter(
        "worker_joined_packets",
        "Packets that were given to the kernel together with others of their flow",
    );
    for (index, worker) in workers.iter().enumerate() {
        for (sink, count) in [(Sink::Tun, worker.tun_joined), (Sink::Udp, worker.esp_joined)] {
            joined.sample([("worker", number(index)), ("sink", sink.label().into())], count);
        }
    }
    let batches = page.counter("worker_batches", "Rounds in which a worker found packets");
    for (index, worker) in workers.iter().enumerate() {
        batches.sample([("worker", number(index))], worker.batches);
    }
    let busy = page.counter("worker_busy_seconds", "Time in rounds in which a worker found packets");
    for (index, worker) in workers.iter().enumerate() {
        busy.sample([("worker", number(index))], worker.busy_ns as f64 / 1e9);
    }
}

/// ESP by what carried it, whichever part of the data plane moved it.
fn esp_transports(page: &mut Page, snapshot: &Snapshot) {
    let (workers, streams) = (&snapshot.data_plane.workers, &snapshot.data_plane.streams);
    let total = |of: fn(&WorkerSnapshot) -> &[(u64, u64); 2], carrier: usize| {
        workers.iter().map(|worker| of(worker)[carrier]).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1))
    };
    let (tcp_in, tcp_out) = (Source::Tcp as usize, Sink::Tcp as usize);
    let counts = [
        ("inbound", EspTransport::Ip, total(|worker| &worker.esp_received, 0)),
        ("inbound", EspTransport::Udp, total(|worker| &worker.esp_received, 1)),
        ("inbound", EspTransport::Tcp, (streams.received[tcp_in], streams.received_bytes[tcp_in])),
        ("outbound", EspTransport::Ip, total(|worker| &worker.esp_sent, 0)),
        ("outbound", EspTransport::Udp, total(|worker| &worker.esp_sent, 1)),
        ("outbound", EspTransport::Tcp, (streams.sent[tcp_out], streams.sent_bytes[tcp_out])),
    ];
    let packets = page.counter("esp_transport_packets", "ESP packets, by what carried them");
    for (direction, transport, (count, _)) in counts {
        packets.sample([("direction", direction.into()), ("transport", transport.label().into())], count);
    }
    let bytes = page.counter("esp_transport_bytes", "Octets of ESP packets, by what carried them");
    for (direction, transport, (_, count)) in counts {
        bytes.sample([("direction", direction.into()), ("transport", transport.label().into())], count);
    }
}

fn sa_table(page: &mut Page, snapshot: &Snapshot) {
    let table = snapshot.data_plane.sas;
    page.gauge("sa_table_slots", "Slots of the SA table, for each direction").only(u64::from(table.slots));
    let used = page.gauge("sa_table_used", "Slots of the SA table in use");
    used.sample([("direction", "inbound".into())], u64::from(table.inbound));
    used.sample([("direction", "outbound".into())], u64::from(table.outbound));
}

/// Every reason has a sample from the start, so that an alert on its rate sees the first packet.
fn drops(page: &mut Page, snapshot: &Snapshot) {
    let family = page.counter("drops", "Packets that were not forwarded, by reason and by what dropped them");
    for reason in DropReason::ALL {
        let workers =
            snapshot.data_plane.workers.iter().map(|worker| worker.drops[*reason as usize]).sum::<u64>();
        family.sample([("reason", reason.label().into()), ("path", "worker".into())], workers);
        let streams = snapshot.data_plane.streams.drops[*reason as usize];
        family.sample([("reason", reason.label().into()), ("path", "stream".into())], streams);
        let verdicts = snapshot.data_plane.interfaces.iter().flat_map(|interface| &interface.xdp);
        let xdp = verdicts
            .filter(|(verdict, ..)| verdict.drop_reason() == Some(*reason))
            .map(|(_, n, _)| n)
            .sum::<u64>();
        family.sample([("reason", reason.label().into()), ("path", "xdp".into())], xdp);
    }
}

fn interfaces(page: &mut Page, snapshot: &Snapshot) {
    let interfaces = &snapshot.data_plane.interfaces;
    let paths = page.gauge("interface_path", "The path that packets of an interface take; always 1");
    for interface in interfaces {
        let labels = [
            ("interface", interface.name.clone().into()),
            ("role", interface.role.label().into()),
            ("path", interface.path.label().into()),
        ];
        paths.sample(labels, 1u64);
    }
    let packets = page.counter("xdp_packets", "Packets that an XDP program saw, by verdict");
    for interface in interfaces {
        for (verdict, count, _) in &interface.xdp {
            packets.sample(
                [("interface", interface.name.clone().into()), ("verdict", verdict.label().into())],
                *count,
            );
        }
    }
    let bytes = page.counter("xdp_bytes", "Octets of the frames that an XDP program saw, by verdict");
    for interface in interfaces {
        for (verdict, _, count) in &interface.xdp {
            bytes.sample(
                [("interface", interface.name.clone().into()), ("verdict", verdict.label().into())],
                *count,
            );
        }
    }
}

fn ike(page: &mut Page, snapshot: &Snapshot) {
    let counters: Vec<&Counters> = snapshot.shards.iter().map(|shard| &shard.counters).collect();
    let sum = |of: fn(&Counters) -> u64| counters.iter().map(|c| of(c)).sum::<u64>();
    let transports = [IkeTransport::Udp, IkeTransport::Tcp];

    let messages = page.counter("ike_messages", "IKE messages");
    for (index, transport) in transports.iter().enumerate() {
        for (direction, count) in [
            ("inbound", counters.iter().map(|c| c.messages_in[index]).sum::<u64>()),
            ("outbound", counters.iter().map(|c| c.messages_out[index]).sum::<u64>()),
        ] {
            messages
                .sample([("transport", transport.label().into()), ("direction", direction.into())], count);
        }
    }
    let bytes = page.counter("ike_bytes", "Octets of IKE messages");
    for (index, transport) in transports.iter().enumerate() {
        for (direction, count) in [
            ("inbound", counters.iter().map(|c| c.bytes_in[index]).sum::<u64>()),
            ("outbound", counters.iter().map(|c| c.bytes_out[index]).sum::<u64>()),
        ] {
            bytes.sample([("transport", transport.label().into()), ("direction", direction.into())], count);
        }
    }
    page.counter("ike_streams_refused", "TCP streams of strangers closed as too many or too slow")
        .only(snapshot.turned_away.streams);
    page.counter("ike_datagrams_dropped", "IKE datagrams dropped because their shard was busy")
        .only(snapshot.turned_away.datagrams);
    page.counter("ike_retransmissions", "Requests sent again over UDP").only(sum(|c| c.retransmissions));
    page.counter("ike_responses_repeated", "Stored responses sent again").only(sum(|c| c.responses_repeated));
    page.counter("ike_cookies", "COOKIE notifications sent").only(sum(|c| c.cookies_sent));
    page.counter("ike_puzzles_given", "Puzzles that initiators were asked to solve")
        .only(sum(|c| c.puzzles_given));
    let solutions = page.counter("ike_puzzle_solutions", "Solutions of puzzles that initiators sent");
    solutions.sample([("result", "right".into())], sum(|c| c.puzzle_solutions[0]));
    solutions.sample([("result", "wrong".into())], sum(|c| c.puzzle_solutions[1]));
    page.counter("ike_puzzles_waived", "Requests served although they solved no puzzle")
        .only(sum(|c| c.puzzles_waived));
    let taken = page.counter("ike_puzzles_taken", "Puzzles that responders asked this gateway to solve");
    taken.sample([("result", "solved".into())], sum(|c| c.puzzles_taken[0]));
    taken.sample([("result", "given_up".into())], sum(|c| c.puzzles_taken[1]));
    page.counter("ike_redirects", "Initiators that were sent to another gateway").only(sum(|c| c.redirects));
    page.counter("ike_stream_reconnects", "TCP streams dialled again for a live IKE SA")
        .only(sum(|c| c.stream_reconnects));
    page.counter("ike_esp_in_tcp_delivered", "ESP packets that came in TCP and went to the data plane")
        .only(sum(|c| c.esp_in_tcp_delivered));
    let dropped = page
        .counter("ike_esp_in_tcp_dropped", "ESP packets that came in TCP and did not reach the data plane");
    sample_by_reason(dropped, counters.iter().map(|c| &c.esp_in_tcp_dropped));
    page.counter("ike_returns", "Trials that brought ESP from TCP back to a direct carrier")
        .only(sum(|c| c.returns));
    page.counter("ike_trials_failed", "Trials of direct carriers that failed").only(sum(|c| c.trials_failed));
    page.gauge("ike_half_open", "IKE SAs that are not authenticated yet").only(sum(|c| c.half_open));
    page.gauge("ike_stranger_bytes", "Octets kept for IKE SAs of strangers that are not authenticated")
        .only(sum(|c| c.stranger_bytes));
    page.gauge("ike_stranger_streams", "TCP streams without an authenticated IKE SA")
        .only(sum(|c| c.stranger_streams));
    let rejected = page.counter("ike_rejected", "Messages dropped or answered with an error");
    sample_by_reason(rejected, counters.iter().map(|c| &c.rejected));
}

/// One sample for each reason, over all shards.
fn sample_by_reason<'a>(
    family: &mut Family,
    shards: impl Iterator<Item = &'a std::collections::BTreeMap<&'static str, u64>>,
) {
    let mut sums = std::collections::BTreeMap::<&'static str, u64>::new();
    for (reason, count) in shards.flatten() {
        *sums.entry(reason).or_default() += count;
    }
    for (reason, count) in sums {
        family.sample([("reason", reason.into())], count);
    }
}
