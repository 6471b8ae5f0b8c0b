//! From a snapshot to what is shown.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use portcullis_common::DropReason;
use portcullis_data_plane::counters::{Sink, Source, WorkerSnapshot};
use portcullis_data_plane::handle::DataPlaneReport;
use portcullis_ike::action::ChildId;
use portcullis_ike::config::OnUnreachable;
use portcullis_ike::path::EspTransport;
use portcullis_ike::status::{ChildStatus, EspStatus, Evidence, IkeSaStatus, Reason, State};
use portcullis_ike::time::Time;

use super::{
    Accounting, ByPath, Child, Connection, DataPlane, Esp, Guard, Handshake, IkeSa, Interface,
    LastVerification, Merged, Nat, Policy, SaTable, SentReceived, Status, Worker, connections,
};
use crate::snapshot::{Clock, ShardSnapshot, Snapshot};

impl Status {
    /// What to show of a snapshot.
    pub fn of(snapshot: &Snapshot) -> Self {
        Self {
            instance: snapshot.config.instance.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: snapshot.clock.uptime.as_secs(),
            policy_store_problem: None,
            connections: connections(snapshot).map(|merged| connection(&merged, &snapshot.clock)).collect(),
            data_plane: DataPlane::of(&snapshot.data_plane),
        }
    }

    /// What to show of one connection, if it is configured.
    pub fn of_connection(snapshot: &Snapshot, name: &str) -> Option<Connection> {
        let merged = connections(snapshot).find(|merged| &*merged.config.ike.name == name)?;
        Some(connection(&merged, &snapshot.clock))
    }
}

fn connection(merged: &Merged<'_>, clock: &Clock) -> Connection {
    let status = merged.status;
    let newest = merged.ike_sas.first().map(|(_, sa)| *sa);
    Connection {
        name: merged.config.ike.name.to_string(),
        state: status.map_or(State::Idle, |s| s.state).label().to_owned(),
        reason: status.map_or(Reason::None, |s| s.reason).label().to_owned(),
        evidence: status.map_or(Evidence::None, |s| s.evidence).label().to_owned(),
        detail: status.map(|s| s.detail.clone()).unwrap_or_default(),
        ike_transport: newest.map(|sa| sa.transport.label().to_owned()),
        esp_transport: status.and_then(|s| s.esp_transport).map(|esp| esp.label().to_owned()),
        next_attempt_in_seconds: status.and_then(|s| s.next_attempt).map(|at| clock.until(at).as_secs()),
        policy: Policy {
            on_unreachable: on_unreachable(merged.config.ike.esp.on_unreachable).to_owned(),
            source: merged.config.policy_source.label().to_owned(),
        },
        ike_sas: merged.ike_sas.iter().map(|(shard, sa)| ike_sa(shard, sa, clock)).collect(),
    }
}

fn on_unreachable(policy: OnUnreachable) -> &'static str {
    match policy {
        OnUnreachable::FailClosed => "fail-closed",
        OnUnreachable::TcpFallback => "tcp-fallback",
    }
}

fn ike_sa(shard: &ShardSnapshot, sa: &IkeSaStatus, clock: &Clock) -> IkeSa {
    let handshake = shard.handshakes.get(&sa.id);
    IkeSa {
        initiator: sa.is_initiator,
        spi_i: format!("{:016x}", sa.spis.0),
        spi_r: format!("{:016x}", sa.spis.1),
        transport: sa.transport.label().to_owned(),
        separate_transports: sa.separate_transports,
        full_transcript_auth: sa.full_transcript_auth,
        ppk: sa.ppk,
        remote: sa.remote.to_string(),
        remote_id: sa.remote_id.clone(),
        nat: Nat { local: sa.nat.0, remote: sa.nat.1 },
        esp: esp(&sa.esp, clock),
        algorithms: sa.algorithms.clone(),
        established_at: wall(clock, sa.established),
        rekeyed_at: wall(clock, sa.rekeyed),
        next_rekey_at: wall(clock, sa.next_rekey),
        leaves_at: sa.leaves.map(|at| wall(clock, at)),
        rekeys: handshake.map_or(0, |h| h.rekeys),
        handshake: handshake.map(|h| Handshake {
            seconds: h.duration.as_secs_f64(),
            udp_bytes: SentReceived { sent: h.udp_bytes.0, received: h.udp_bytes.1 },
            tcp_bytes: SentReceived { sent: h.tcp_bytes.0, received: h.tcp_bytes.1 },
        }),
        children: sa.children.iter().map(|c| child(shard, c, clock)).collect(),
    }
}

fn esp(esp: &EspStatus, clock: &Clock) -> Esp {
    let rtt = |(carrier, rtt): &(EspTransport, Option<Duration>)| {
        rtt.map(|rtt| (carrier.label().to_owned(), rtt.as_secs_f64()))
    };
    Esp {
        echo: esp.echo,
        budget_seconds: esp.budget.as_secs_f64(),
        decision_within_seconds: esp.decision_within.as_secs_f64(),
        last_verification: esp.verification.map(|verification| LastVerification {
            at: wall(clock, verification.at),
            seconds: verification.took.as_secs_f64(),
            verdict: verification.verdict.label().to_owned(),
        }),
        rtt_seconds: esp.rtt.iter().filter_map(rtt).collect(),
        next_return_in_seconds: esp.next_return.map(|at| clock.until(at).as_secs()),
    }
}

fn child(shard: &ShardSnapshot, child: &ChildStatus, clock: &Clock) -> Child {
    let id: ChildId = child.id;
    let (inbound, outbound) = shard.usage.get(&id).copied().unwrap_or_default();
    let selectors = |side: &[_]| side.iter().map(ToString::to_string).collect();
    Child {
        name: child.name.to_string(),
        spi_in: format!("{:08x}", child.spis.0),
        spi_out: format!("{:08x}", child.spis.1),
        algorithms: child.algorithms.clone(),
        esn: child.esn,
        in_use: child.in_use,
        local_ts: selectors(&child.selectors.0),
        remote_ts: selectors(&child.selectors.1),
        packets_in: inbound.packets,
        packets_out: outbound.packets,
        bytes_in: inbound.bytes,
        bytes_out: outbound.bytes,
        established_at: wall(clock, child.established),
        next_rekey_at: wall(clock, child.next_rekey),
    }
}

fn wall(clock: &Clock, time: Time) -> String {
    let wall: SystemTime = clock.wall_of(time);
    humantime::format_rfc3339_millis(wall).to_string()
}

impl DataPlane {
    /// What the data plane counts, by the words of the API.
    pub fn of(report: &DataPlaneReport) -> Self {
        let books = report.accounting();
        let verdicts =
            report.interfaces.iter().filter(|interface| !interface.xdp.is_empty()).map(|interface| {
                let counts =
                    interface.xdp.iter().map(|(verdict, packets, _)| (verdict.label().to_owned(), *packets));
                (interface.name.to_string(), counts.collect())
            });
        Self {
            mode: report.mode.label().to_owned(),
            interfaces: report
                .interfaces
                .iter()
                .map(|interface| Interface {
                    name: interface.name.to_string(),
                    role: interface.role.label().to_owned(),
                    path: interface.path.label().to_owned(),
                    reason: interface.reason.clone(),
                })
                .collect(),
            guard: Guard {
                installed: report.guard.installed,
                backend: report.guard.backend.to_string(),
                policies: report.guard.policies as u64,
                restores: report.guard.restores,
                drops_outbound: report.guard.drops.outbound,
                drops_inbound: report.guard.drops.inbound,
            },
            sa_table: SaTable {
                slots: report.sas.slots,
                inbound: report.sas.inbound,
                outbound: report.sas.outbound,
            },
            workers: report.workers.iter().enumerate().map(|(index, counts)| worker(index, counts)).collect(),
            xdp: verdicts.collect(),
            drops: DropReason::ALL.iter().map(|r| (r.label().to_owned(), books.dropped(*r))).collect(),
            accounting: Accounting {
                received: books.received.iter().sum::<u64>() + books.originated,
                sent: books.sent.iter().sum(),
                dropped: books.drops.iter().sum(),
                held: books.held,
            },
        }
    }
}

fn worker(index: usize, counts: &WorkerSnapshot) -> Worker {
    let received = |source: Source| counts.received[source as usize];
    let sent = |sink: Sink| counts.sent[sink as usize];
    let by_label = |labels: &[&'static str], values: &[u64]| -> BTreeMap<String, u64> {
        labels.iter().map(|label| (*label).to_owned()).zip(values.iter().copied()).collect()
    };
    Worker {
        index,
        // IKE arrives on the UDP socket too, and is passed on.
        esp_in: ByPath {
            af_xdp: received(Source::Wan),
            socket: (received(Source::Udp) + received(Source::RawIp)).saturating_sub(sent(Sink::Ike)),
        },
        esp_out: ByPath { af_xdp: sent(Sink::Wan), socket: sent(Sink::Udp) + sent(Sink::RawIp) },
        received: by_label(&Source::ALL.map(Source::label), &counts.received),
        received_bytes: by_label(&Source::ALL.map(Source::label), &counts.received_bytes),
        sent: by_label(&Sink::ALL.map(Sink::label), &counts.sent),
        sent_bytes: by_label(&Sink::ALL.map(Sink::label), &counts.sent_bytes),
        drops: DropReason::ALL
            .iter()
            .map(|reason| (reason.label().to_owned(), counts.drops[*reason as usize]))
            .filter(|(_, count)| *count > 0)
            .collect(),
        held: counts.held,
        handed_over: counts.handed_over,
        moved_sas: counts.sas_moved,
        joined: by_label(&[Sink::Tun, Sink::Udp].map(Sink::label), &[counts.tun_joined, counts.esp_joined]),
        batches: counts.batches,
        busy_seconds: counts.busy_ns as f64 / 1e9,
    }
}
