//! What an event looks like to a reader: one JSON object, flat, its kind in words. Keys never come here, and neither do
//! failures of strangers: nobody without credentials fills the ring.

use std::time::SystemTime;

use portcullis_data_plane::event::DataPlaneEvent;
use portcullis_ike::event::Event;
use portcullis_ike::path::EspTransport;
use portcullis_ike::status::Verdict;
use serde::Serialize;
use serde_json::{Map, Value, json};

/// One event.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct EventView {
    /// When, RFC 3339 in UTC.
    pub time: String,
    /// What kind of event.
    #[serde(rename = "event")]
    pub kind: &'static str,
    /// The connection, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection: Option<String>,
    /// What else belongs to its kind.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl EventView {
    /// An event of an endpoint, if a reader is to see it.
    pub fn of(event: &Event) -> Option<Self> {
        let (kind, connection, more) = match event {
            Event::StateChanged { connection, from, to, reason, evidence, esp_transport, detail } => (
                "state_changed",
                connection,
                json!({
                    "from": from.label(),
                    "to": to.label(),
                    "reason": reason.label(),
                    "evidence": evidence.label(),
                    "esp_transport": esp_transport.map(EspTransport::label),
                    "detail": detail,
                }),
            ),
            Event::IkeEstablished {
                connection,
                is_initiator,
                remote,
                transport,
                separate_transports,
                algorithms,
                ppk,
                ..
            } => (
                "ike_established",
                connection,
                json!({
                    "initiator": is_initiator,
                    "remote": remote.to_string(),
                    "ike_transport": transport.label(),
                    "separate_transports": separate_transports,
                    "algorithms": algorithms,
                    "ppk": ppk,
                }),
            ),
            Event::IkeFailed { connection: Some(connection), is_initiator, remote, reason, detail } => (
                "ike_failed",
                connection,
                json!({
                    "initiator": is_initiator,
                    "remote": remote.to_string(),
                    "reason": reason.label(),
                    "detail": detail,
                }),
            ),
            Event::IkeRekeyed { connection, by_us, algorithms, .. } => {
                ("ike_rekeyed", connection, json!({ "by_us": by_us, "algorithms": algorithms }))
            }
            Event::IkeRemoved { connection, reason, .. } => {
                ("ike_removed", connection, json!({ "reason": reason.label() }))
            }
            Event::ChildEstablished { connection, child_name, replaces, by_us, spis, algorithms, .. } => (
                "child_established",
                connection,
                json!({
                    "child": &**child_name,
                    "rekeyed": replaces.is_some(),
                    "by_us": by_us,
                    "spi_in": format!("{:08x}", spis.0),
                    "spi_out": format!("{:08x}", spis.1),
                    "algorithms": algorithms,
                }),
            ),
            Event::ChildFailed { connection, child_name, reason, detail } => (
                "child_failed",
                connection,
                json!({ "child": &**child_name, "reason": reason.label(), "detail": detail }),
            ),
            Event::ChildRemoved { connection, child_name, rekeyed, .. } => {
                ("child_removed", connection, json!({ "child": &**child_name, "rekeyed": rekeyed }))
            }
            Event::Redirected { connection, gateway, refused } => {
                ("redirected", connection, json!({ "gateway": gateway, "refused": refused }))
            }
            Event::Stream { connection, up } => ("ike_stream", connection, json!({ "up": up })),
            Event::EspVerified { connection, verification, .. } => {
                let (verdict, carrier) = match verification.verdict {
                    Verdict::Answered(carrier) => ("answered", Some(carrier.label())),
                    Verdict::Unreachable => ("unreachable", None),
                    Verdict::Undecided => ("undecided", None),
                };
                (
                    "esp_verified",
                    connection,
                    json!({
                        "verdict": verdict,
                        "carrier": carrier,
                        "seconds": verification.took.as_secs_f64(),
                        "first": verification.is_first,
                    }),
                )
            }
            // One for each idle interval of each connection; the metrics count them.
            Event::EspProbed { .. } => return None,
            Event::IkeFailed { connection: None, .. } | Event::CommandDone { .. } | Event::Keys(_) => {
                return None;
            }
        };
        Some(Self::new(kind, Some(connection.to_string()), more))
    }

    /// An event of the data plane, if a reader is to see it.
    pub fn of_data_plane(event: &DataPlaneEvent) -> Option<Self> {
        match event {
            DataPlaneEvent::GuardRestored { missing } => {
                Some(Self::new("guard_restored", None, json!({ "missing": missing })))
            }
            _ => None,
        }
    }

    /// Somebody has changed what is configured.
    pub fn changed(kind: &'static str, connection: Option<String>, detail: String) -> Self {
        Self::new(kind, connection, json!({ "detail": detail }))
    }

    fn new(kind: &'static str, connection: Option<String>, more: Value) -> Self {
        let time = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        let more = match more {
            Value::Object(more) => more,
            _ => Map::new(),
        };
        Self { time, kind, connection, more }
    }
}
