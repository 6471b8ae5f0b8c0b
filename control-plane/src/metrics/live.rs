//! Events, counted as they happen.

use std::sync::Arc;

use portcullis_data_plane::event::DataPlaneEvent;
use portcullis_ike::event::Event;
use portcullis_ike::status::{Reason, State};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::{OTHER, Shown};

/// Upper bounds of the handshake histogram, in seconds: from one round trip in a data centre to the point where the
/// dial is given up.
const HANDSHAKE_BUCKETS: [f64; 12] = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];
/// Around one attempt, and around the budget of a verification, in seconds.
const VERIFICATION_BUCKETS: [f64; 9] = [0.01, 0.05, 0.25, 1.0, 2.5, 3.25, 3.5, 5.0, 10.0];

/// Families of events.
#[derive(Debug)]
pub(super) struct Live {
    state_changes: Family<StateChange, Counter>,
    ike_established: Family<Established, Counter>,
    ike_failures: Family<Failure, Counter>,
    ike_rekeys: Family<Rekey, Counter>,
    ike_removed: Family<Failure, Counter>,
    child_established: Family<ChildEstablished, Counter>,
    child_failures: Family<Failure, Counter>,
    child_removed: Family<ChildRemoved, Counter>,
    streams: Family<Stream, Counter>,
    esp_fallbacks: Family<Failure, Counter>,
    esp_refusals: Family<Failure, Counter>,
    esp_returns: Family<Failure, Counter>,
    esp_probes: Family<EspProbe, Counter>,
    esp_verifications: Family<EspVerdict, Counter>,
    esp_verification: Family<Verdict, Histogram, VerificationBuckets>,
    handshake: Family<StartedOn, Histogram, HandshakeBuckets>,
    handshake_bytes: Family<HandshakeBytes, Counter>,
    acquires: Family<Connection, Counter>,
    local_changes: Counter,
    tun_restores: Counter,
    routing_restores: Counter,
}

#[derive(Clone, Debug)]
struct HandshakeBuckets;

impl MetricConstructor<Histogram> for HandshakeBuckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(HANDSHAKE_BUCKETS)
    }
}

#[derive(Clone, Debug)]
struct VerificationBuckets;

impl MetricConstructor<Histogram> for VerificationBuckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(VERIFICATION_BUCKETS)
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Connection {
    connection: Arc<str>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct StateChange {
    connection: Arc<str>,
    state: &'static str,
    reason: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Established {
    connection: Arc<str>,
    role: &'static str,
    transport: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Failure {
    connection: Arc<str>,
    reason: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Rekey {
    connection: Arc<str>,
    by: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct ChildEstablished {
    connection: Arc<str>,
    by: &'static str,
    kind: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct ChildRemoved {
    connection: Arc<str>,
    cause: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Stream {
    connection: Arc<str>,
    event: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct EspProbe {
    connection: Arc<str>,
    carrier: &'static str,
    result: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct EspVerdict {
    connection: Arc<str>,
    verdict: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Verdict {
    verdict: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct StartedOn {
    started_on: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct HandshakeBytes {
    transport: &'static str,
    direction: &'static str,
}

impl Live {
    /// Makes every family known to the registry.
    pub(super) fn register(registry: &mut Registry) -> Self {
        let live = Self {
            state_changes: Family::default(),
            ike_established: Family::default(),
            ike_failures: Family::default(),
            ike_rekeys: Family::default(),
            ike_removed: Family::default(),
            child_established: Family::default(),
            child_failures: Family::default(),
            child_removed: Family::default(),
            streams: Family::default(),
            esp_fallbacks: Family::default(),
            esp_refusals: Family::default(),
            esp_returns: Family::default(),
            esp_probes: Family::default(),
            esp_verifications: Family::default(),
            esp_verification: Family::new_with_constructor(VerificationBuckets),
            handshake: Family::new_with_constructor(HandshakeBuckets),
            handshake_bytes: Family::default(),
            acquires: Family::default(),
            local_changes: Counter::default(),
            tun_restores: Counter::default(),
            routing_restores: Counter::default(),
        };
        let r = registry;
        r.register(
            "connection_state_changes",
            "Changes to a state, with the reason",
            live.state_changes.clone(),
        );
        r.register("ike_established", "IKE SAs that were authenticated", live.ike_established.clone());
        r.register("ike_failures", "IKE SAs that could not be set up", live.ike_failures.clone());
        r.register("ike_rekeys", "IKE SAs that got new keys", live.ike_rekeys.clone());
        r.register("ike_removed", "IKE SAs that ended", live.ike_removed.clone());
        r.register("child_established", "Child SA pairs that came into use", live.child_established.clone());
        r.register(
            "child_failures",
            "Child SAs that could not be set up or rekeyed",
            live.child_failures.clone(),
        );
        r.register("child_removed", "Child SA pairs that ended", live.child_removed.clone());
        r.register("ike_streams", "TCP streams of IKE SAs lost and restored", live.streams.clone());
        r.register("esp_fallbacks", "Times that ESP went into TCP", live.esp_fallbacks.clone());
        r.register(
            "esp_refusals",
            "Times that a connection was blocked instead of carried",
            live.esp_refusals.clone(),
        );
        r.register(
            "esp_returns",
            "Attempts to bring ESP from TCP back to a direct carrier, by outcome",
            live.esp_returns.clone(),
        );
        r.register(
            "esp_probes",
            "Carriers asked by ESP echo in verifications, by what came back",
            live.esp_probes.clone(),
        );
        r.register(
            "esp_verifications",
            "Verifications of the carriers of ESP that are over",
            live.esp_verifications.clone(),
        );
        r.register("esp_verification_seconds", "Time that verifications took", live.esp_verification.clone());
        r.register(
            "ike_handshake_seconds",
            "Time from the first IKE_SA_INIT to authentication, as initiator",
            live.handshake.clone(),
        );
        r.register("ike_handshake_bytes", "Octets of IKE handshakes", live.handshake_bytes.clone());
        r.register("acquires", "Packets that asked for an SA", live.acquires.clone());
        r.register(
            "tun_restores",
            "TUN devices that something removed or switched off and that are back",
            live.tun_restores.clone(),
        );
        r.register(
            "routing_restores",
            "Times that something removed routes or rules that lead into the TUN device and they were put back",
            live.routing_restores.clone(),
        );
        r.register("local_changes", "Changes of addresses or links of this host", live.local_changes.clone());
        live
    }

    /// Counts an event of IKE.
    pub(super) fn observe(&self, shown: &Shown<'_>, event: &Event) {
        match event {
            Event::StateChanged { connection, from, to, reason, .. } => {
                let connection = shown.label(connection);
                if let Some((family, reason)) = self.turn(*from, *to, *reason) {
                    let labels = Failure { connection: connection.clone(), reason: reason.label() };
                    family.get_or_create(&labels).inc();
                }
                let change = StateChange { connection, state: to.label(), reason: reason.label() };
                self.state_changes.get_or_create(&change).inc();
            }
            Event::IkeEstablished {
                connection,
                is_initiator,
                transport,
                started_on,
                handshake,
                udp_bytes,
                tcp_bytes,
                ..
            } => {
                let role = if *is_initiator { "initiator" } else { "responder" };
                let connection = shown.label(connection);
                let labels = Established { connection, role, transport: transport.label() };
                self.ike_established.get_or_create(&labels).inc();
                if *is_initiator {
                    let labels = StartedOn { started_on: started_on.label() };
                    self.handshake.get_or_create(&labels).observe(handshake.as_secs_f64());
                }
                for (transport, bytes) in [("udp", udp_bytes), ("tcp", tcp_bytes)] {
                    for (direction, bytes) in [("outbound", bytes.0), ("inbound", bytes.1)] {
                        self.handshake_bytes
                            .get_or_create(&HandshakeBytes { transport, direction })
                            .inc_by(bytes);
                    }
                }
            }
            Event::IkeFailed { connection, reason, .. } => {
                let connection = connection.as_ref().map_or_else(|| OTHER.into(), |c| shown.label(c));
                self.ike_failures.get_or_create(&Failure { connection, reason: reason.label() }).inc();
            }
            Event::IkeRekeyed { connection, by_us, .. } => {
                self.ike_rekeys
                    .get_or_create(&Rekey { connection: shown.label(connection), by: by(*by_us) })
                    .inc();
            }
            Event::IkeRemoved { connection, reason, .. } => {
                let connection = shown.label(connection);
                self.ike_removed.get_or_create(&Failure { connection, reason: reason.label() }).inc();
            }
            Event::ChildEstablished { connection, replaces, by_us, .. } => {
                let kind = if replaces.is_some() { "rekey" } else { "new" };
                let labels = ChildEstablished { connection: shown.label(connection), by: by(*by_us), kind };
                self.child_established.get_or_create(&labels).inc();
            }
            Event::ChildFailed { connection, reason, .. } => {
                let connection = shown.label(connection);
                self.child_failures.get_or_create(&Failure { connection, reason: reason.label() }).inc();
            }
            Event::ChildRemoved { connection, rekeyed, .. } => {
                let cause = if *rekeyed { "rekeyed" } else { "deleted" };
                self.child_removed
                    .get_or_create(&ChildRemoved { connection: shown.label(connection), cause })
                    .inc();
            }
            Event::Stream { connection, up } => {
                let event = if *up { "restored" } else { "lost" };
                self.streams.get_or_create(&Stream { connection: shown.label(connection), event }).inc();
            }
            Event::EspProbed { connection, carrier, answered, .. } => {
                let result = if *answered { "answered" } else { "unanswered" };
                let connection = shown.label(connection);
                let labels = EspProbe { connection, carrier: carrier.label(), result };
                self.esp_probes.get_or_create(&labels).inc();
            }
            Event::EspVerified { connection, verification, .. } => {
                let verdict = verification.verdict.label();
                let labels = EspVerdict { connection: shown.label(connection), verdict };
                self.esp_verifications.get_or_create(&labels).inc();
                self.esp_verification
                    .get_or_create(&Verdict { verdict })
                    .observe(verification.took.as_secs_f64());
            }
            // Those that are refused are counted as rejected messages.
            Event::Redirected { .. } | Event::CommandDone { .. } | Event::Keys(_) => {}
        }
    }

    /// What a change of state means for ESP: into TCP, stopped, or out of TCP. A new reason in the same state is none.
    fn turn(&self, from: State, to: State, reason: Reason) -> Option<(&Family<Failure, Counter>, Reason)> {
        match (from, to) {
            (State::Trial, State::Tcp) => Some((&self.esp_returns, Reason::TrialFailed)),
            (State::Tcp | State::Trial, State::DirectIp | State::DirectUdp) => {
                Some((&self.esp_returns, reason))
            }
            (from, State::Tcp) if from != State::Tcp => Some((&self.esp_fallbacks, reason)),
            (from, State::Blocked) if from != State::Blocked => Some((&self.esp_refusals, reason)),
            _ => None,
        }
    }

    /// Counts an event of the data plane.
    pub(super) fn observe_data_plane(&self, shown: &Shown<'_>, event: &DataPlaneEvent) {
        match event {
            DataPlaneEvent::Acquire { policy, .. } => {
                let connection = shown.label(&policy.connection);
                self.acquires.get_or_create(&Connection { connection }).inc();
            }
            DataPlaneEvent::LocalChange => {
                self.local_changes.inc();
            }
            DataPlaneEvent::TunRestored { .. } => {
                self.tun_restores.inc();
            }
            DataPlaneEvent::RoutingRestored { .. } => {
                self.routing_restores.inc();
            }
            DataPlaneEvent::RoutesChanged => {}
            // Every one is also a local change.
            DataPlaneEvent::InterfaceLost { .. } | DataPlaneEvent::InterfaceReturned { .. } => {}
            // Counted from the snapshot.
            DataPlaneEvent::Inbound { .. }
            | DataPlaneEvent::Outbound { .. }
            | DataPlaneEvent::SoftLifetime { .. }
            | DataPlaneEvent::HardLifetime { .. }
            | DataPlaneEvent::EchoReply { .. }
            | DataPlaneEvent::LocalSend { .. }
            | DataPlaneEvent::PathDoubt { .. }
            | DataPlaneEvent::GuardRestored { .. } => {}
        }
    }
}

fn by(us: bool) -> &'static str {
    if us { "us" } else { "peer" }
}
