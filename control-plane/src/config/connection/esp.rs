//! The `esp:` section of a connection.

use std::time::Duration;

use portcullis_ike::config::{EspPolicy, OnUnreachable};
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

/// Reads the section; everything in it has a default.
pub(super) fn read(field: Option<Field<'_>>) -> Option<Esp<'_>> {
    match field {
        Some(field) => field.section(section),
        None => Some(Esp { policy: EspPolicy::default(), place: Places::default() }),
    }
}

fn section<'a>(s: &mut Section<'a>) -> Option<Esp<'a>> {
    let default = EspPolicy::default();
    let outcomes = [("fail-closed", OnUnreachable::FailClosed), ("tcp-fallback", OnUnreachable::TcpFallback)];
    let on_unreachable = s.get("on_unreachable");
    let policy = EspPolicy {
        transports: s.get("transports").map(|field| transports(&field)).unwrap_or(default.transports),
        on_unreachable: on_unreachable
            .as_ref()
            .and_then(|field| field.word(&outcomes))
            .unwrap_or(default.on_unreachable),
        unverified_timeout: s.or("unverified_timeout", default.unverified_timeout, |field| {
            match field.text()? {
                "never" => Some(None),
                _ => field.read(duration).map(Some),
            }
        }),
        keepalive: s.or("keepalive", default.keepalive, |field| field.read(duration)),
    };
    if let Some(probe) = s.get("probe") {
        probe.section(|s| {
            for key in ["timeout", "stagger", "idle_interval"] {
                s.or(key, Duration::ZERO, |field| field.read(duration));
            }
            s.or("attempts", 3, |field| field.number(1, 20));
            Some(())
        });
        probe.warn("has no effect yet: this version neither announces nor sends ESP echo");
    }
    Some(Esp { policy, place: Places { on_unreachable } })
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
