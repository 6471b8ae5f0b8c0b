//! Every configured connection, also the one that is down.

use std::time::Duration;

use portcullis_ike::status::{Evidence, IkeSaStatus, Reason, State};
use portcullis_ike::time::Time;

use super::Shown;
use super::page::{Label, Page};
use crate::snapshot::Snapshot;
use crate::status::{Merged, connections};

/// Adds the gauges of connections.
pub(super) fn add(page: &mut Page, snapshot: &Snapshot, shown: &Shown<'_>) {
    let all: Vec<Merged<'_>> = connections(snapshot).collect();
    let by_state = page.gauge("connections", "Configured connections, by state");
    for state in State::ALL {
        let count = all.iter().filter(|c| state_of(c) == *state).count();
        by_state.sample([("state", state.label().into())], count);
    }

    let own: Vec<&Merged<'_>> = all.iter().filter(|c| shown.has_own(c.config)).collect();
    let name = |c: &Merged<'_>| -> (&'static str, Label) { ("connection", c.config.ike.name.clone().into()) };
    let states = page.gauge("connection_state", "1 for the state the connection is in, 0 for all others");
    for c in &own {
        for state in State::ALL {
            states.sample([name(c), ("state", state.label().into())], state_of(c) == *state);
        }
    }
    let up = page.gauge("connection_up", "1 while a Child SA of the connection is in use");
    for c in &own {
        up.sample([name(c)], c.ike_sas.iter().any(|(_, sa)| sa.children.iter().any(|child| child.in_use)));
    }
    let reasons = page.gauge("connection_reason", "Why the connection is in its state; always 1");
    for c in &own {
        reasons
            .sample([name(c), ("reason", c.status.map_or(Reason::None, |s| s.reason).label().into())], 1u64);
    }
    let evidence = page.gauge("connection_evidence", "What proves the carrier of ESP; always 1");
    for c in &own {
        let word = c.status.map_or(Evidence::None, |s| s.evidence).label();
        evidence.sample([name(c), ("evidence", word.into())], 1u64);
    }
    let ike = page.gauge("connection_ike_transport", "What carries IKE of the newest IKE SA; always 1");
    for c in &own {
        if let Some((_, sa)) = c.ike_sas.first() {
            ike.sample([name(c), ("transport", sa.transport.label().into())], 1u64);
        }
    }
    let esp = page.gauge("connection_esp_transport", "What carries ESP, while ESP may leave; always 1");
    for c in &own {
        if let Some(carrier) = c.status.and_then(|status| status.esp_transport) {
            esp.sample([name(c), ("transport", carrier.label().into())], 1u64);
        }
    }
    let ike_sas = page.gauge("connection_ike_sas", "IKE SAs of the connection");
    for c in &own {
        ike_sas.sample([name(c)], c.ike_sas.len());
    }
    let child_sas = page.gauge("connection_child_sas", "Child SA pairs of the connection");
    for c in &own {
        child_sas.sample([name(c)], c.ike_sas.iter().map(|(_, sa)| sa.children.len()).sum::<usize>());
    }
    let age = page.gauge("connection_established_seconds", "Time since the newest IKE SA was authenticated");
    for c in &own {
        if let Some((_, sa)) = c.ike_sas.first() {
            age.sample([name(c)], snapshot.clock.now.since(sa.established).as_secs_f64());
        }
    }
    let keys: Vec<_> =
        own.iter().flat_map(|c| keys_of(c).into_iter().map(move |keys| (name(c), keys))).collect();
    let age = |keys: &Keys| snapshot.clock.now.since(keys.since).as_secs_f64();
    let ages = page.gauge("connection_sa_age_seconds", "Age of the oldest keys in use");
    for (name, keys) in &keys {
        ages.sample([name.clone(), ("sa", keys.of.into())], age(keys));
    }
    let due = page.gauge(
        "connection_rekey_due_seconds",
        "Time until those keys are older than rekey_after; negative when a rekey is overdue",
    );
    for (name, keys) in &keys {
        due.sample([name.clone(), ("sa", keys.of.into())], keys.rekey_after.as_secs_f64() - age(keys));
    }
    verification(page, &own);
}

/// How ESP of the newest IKE SA is verified.
fn verification(page: &mut Page, own: &[&Merged<'_>]) {
    let newest = || own.iter().filter_map(|c| Some((&c.config.ike.name, c.ike_sas.first()?.1)));
    let rtt = page.gauge("connection_esp_rtt_seconds", "Smoothed round trip of ESP echoes");
    for (name, sa) in newest() {
        for (transport, measured) in sa.esp.rtt {
            if let Some(measured) = measured {
                let labels = [("connection", name.clone().into()), ("transport", transport.label().into())];
                rtt.sample(labels, measured.as_secs_f64());
            }
        }
    }
    let decision = page.gauge(
        "connection_esp_decision_seconds",
        "The longest from the first packet without an answer to a decision",
    );
    for (name, sa) in newest().filter(|(_, sa)| sa.esp.echo) {
        decision.sample([("connection", name.clone().into())], sa.esp.decision_within.as_secs_f64());
    }
}

/// The oldest keys of one kind.
struct Keys {
    of: &'static str,
    since: Time,
    rekey_after: Duration,
}

/// Those of the newest IKE SA, and of its child whose rekey is due first.
fn keys_of(connection: &Merged<'_>) -> Vec<Keys> {
    let Some((_, sa)) = connection.ike_sas.first() else { return Vec::new() };
    let ike = Keys { of: "ike", since: sa.rekeyed, rekey_after: connection.config.ike.ike.rekey_after };
    std::iter::once(ike).chain(oldest_child(connection, sa)).collect()
}

fn oldest_child(connection: &Merged<'_>, sa: &IkeSaStatus) -> Option<Keys> {
    let configured = |name: &str| connection.config.ike.children.iter().find(|child| &*child.name == name);
    let in_use = sa.children.iter().filter(|child| child.in_use);
    let keys = in_use.filter_map(|child| {
        let rekey_after = configured(&child.name)?.rekey_after;
        Some(Keys { of: "child", since: child.established, rekey_after })
    });
    keys.min_by_key(|keys| keys.since + keys.rekey_after)
}

fn state_of(connection: &Merged<'_>) -> State {
    connection.status.map_or(State::Idle, |status| status.state)
}
