//! The `esp:` section of a connection.

use std::time::Duration;

use portcullis_ike::config::{EspPolicy, FallbackTimers, OnUnreachable, ProbePolicy, UnverifiedTimeout};
use portcullis_ike::path::DirectCarrier;

use crate::config::field::{Field, Section};
use crate::config::scalar::duration;

/// The section, with the places that contradictions are reported at.
pub(super) struct Esp<'a> {
    pub(super) policy: EspPolicy,
    pub(super) place: Places<'a>,
}

/// Where keys are.
#[derive(Default)]
pub(super) struct Places<'a> {
    pub(super) on_unreachable: Option<Field<'a>>,
}

/// The words of `on_unreachable`.
pub const ON_UNREACHABLE: [(&str, OnUnreachable); 2] =
    [("fail-closed", OnUnreachable::FailClosed), ("tcp-fallback", OnUnreachable::TcpFallback)];

/// Reads the section; everything in it has a default.
pub(super) fn read(field: Option<Field<'_>>) -> Option<Esp<'_>> {
    match field {
        Some(field) => field.section(section),
        None => Some(Esp { policy: EspPolicy::default(), place: Places::default() }),
    }
}

fn section<'a>(s: &mut Section<'a>) -> Option<Esp<'a>> {
    let default = EspPolicy::default();
    let on_unreachable = s.get("on_unreachable");
    let policy = EspPolicy {
        transports: s.get("transports").map(|field| transports(&field)).unwrap_or(default.transports),
        on_unreachable: on_unreachable
            .as_ref()
            .and_then(|field| field.word(&ON_UNREACHABLE))
            .unwrap_or(default.on_unreachable),
        probe: s.or("probe", default.probe, |field| field.section(probe)),
        hold_time: s.or("hold_time", default.hold_time, |field| between(field, "1s", "1h")),
        unverified_timeout: s.or("unverified_timeout", default.unverified_timeout, |field| {
            match field.text()? {
                "never" => Some(UnverifiedTimeout::Never),
                _ => between(field, "1s", "1h").map(UnverifiedTimeout::After),
            }
        }),
        keepalive: s.or("keepalive", default.keepalive, |field| field.read(duration)),
        fallback: s.or("fallback", default.fallback, |field| field.section(fallback)),
    };
    Some(Esp { policy, place: Places { on_unreachable } })
}

fn probe(s: &mut Section<'_>) -> Option<ProbePolicy> {
    let default = ProbePolicy::default();
    Some(ProbePolicy {
        timeout: s.or("timeout", default.timeout, |field| between(field, "50ms", "30s")),
        attempts: s.or("attempts", default.attempts, |field| field.number(1, 20)),
        stagger: s.or("stagger", default.stagger, |field| between(field, "1ms", "30s")),
        idle_interval: s.or("idle_interval", default.idle_interval, |field| between(field, "1s", "1h")),
    })
}

/// A duration between these two, both included.
fn between(field: &Field<'_>, least: &str, most: &str) -> Option<Duration> {
    field.read(|text| {
        let value = duration(text)?;
        match duration(least)? <= value && value <= duration(most)? {
            true => Ok(value),
            false => Err(format!("'{text}' is not between {least} and {most}")),
        }
    })
}

fn fallback(s: &mut Section<'_>) -> Option<FallbackTimers> {
    let default = FallbackTimers::default();
    let time = |field: &Field<'_>| between(field, "1s", "24h");
    let timers = FallbackTimers {
        delete_wait: s.or("delete_wait", default.delete_wait, |field| between(field, "100ms", "10s")),
        refused_for: s.or("refused_for", default.refused_for, time),
        trial_first: s.or("trial_first", default.trial_first, time),
        trial_longest: s.or("trial_longest", default.trial_longest, time),
        hold_down: s.or("hold_down", default.hold_down, time),
        hold_down_longest: s.or("hold_down_longest", default.hold_down_longest, time),
        relapse_within: s.or("relapse_within", default.relapse_within, time),
    };
    for (shorter, longer, message) in [
        (timers.trial_first, timers.trial_longest, "trial_first is longer than trial_longest"),
        (timers.hold_down, timers.hold_down_longest, "hold_down is longer than hold_down_longest"),
    ] {
        if shorter > longer {
            s.refuse::<()>(message);
        }
    }
    Some(timers)
}

fn transports(field: &Field<'_>) -> Vec<DirectCarrier> {
    let words = [("ip", DirectCarrier::Ip), ("udp", DirectCarrier::Udp)];
    let mut found = Vec::new();
    for carrier in field.items("carrier (ip, udp)", |item| match item.text()? {
        "tcp" => item.refuse(
            "tcp is no direct carrier; on_unreachable: tcp-fallback is the only way ESP gets into TCP",
        ),
        _ => item.word(&words),
    }) {
        if found.contains(&carrier) {
            field.refuse::<()>(format!("{} is here twice", carrier.label()));
        } else {
            found.push(carrier);
        }
    }
    found
}
