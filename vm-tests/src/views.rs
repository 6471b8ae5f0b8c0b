//! "How does ESP travel now, and why?": every place where a gateway answers that says the same.

use std::fmt;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::events::{DaemonEvent, EventReader};
use crate::gateway::Gateway;
use crate::metrics::Metrics;
use crate::process::Process;
use crate::status::ConnectionStatus;
use crate::wait::{agreement_limit, until};

/// One answer.
#[derive(Clone, PartialEq, Eq, Debug)]
struct View {
    state: String,
    reason: String,
    evidence: String,
    esp_transport: Option<String>,
}

impl Gateway {
    /// A connection as `status`, `GET /v1/connections/NAME`, `/metrics`, the events stream and the log all describe it:
    /// within a second, or three where more runs than there are cores for.
    ///
    /// # Errors
    /// If they do not come to say the same; the error has what each says.
    pub fn agreed(&self, name: &str) -> Result<ConnectionStatus> {
        let limit = agreement_limit();
        let mut last = None;
        let agreed = until(limit, || {
            let asked = self.ask_all(name);
            let agrees = asked.as_ref().is_ok_and(|(_, views)| all_equal(views));
            last = Some(asked);
            if agrees { last.take() } else { None }
        });
        match (agreed, last) {
            (Some(asked), _) => Ok(asked?.0),
            (None, Some(Ok((_, views)))) => {
                let views: Vec<_> = views.iter().map(|(of, view)| format!("{of}: {view}")).collect();
                bail!(
                    "{}: {name} is not the same everywhere after {limit:?}:\n{}\n{}",
                    self.name(),
                    views.join("\n"),
                    self.log_tail()
                )
            }
            (None, other) => bail!("{}: {:?}", self.name(), other.map(|asked| asked.map(drop))),
        }
    }

    fn ask_all(&self, name: &str) -> Result<(ConnectionStatus, Vec<(&'static str, View)>)> {
        let status = self.connection(name)?;
        let api = self.api("GET", &format!("/v1/connections/{name}"), "", &Value::Null)?;
        anyhow::ensure!(api.status == 200, "{api:?}");
        let mut views = vec![
            ("status", View::of_status(&status)),
            ("API", View::of_json(&api.body, "state").context("the API's answer")?),
            ("/metrics", View::of_metrics(&self.metrics()?, name)?),
        ];
        // A connection that has never changed has no event and no line.
        if status.state != "idle" {
            let told = View::of_events(self.events(), name).context("no event about it")?;
            views.push(("events", told));
        }
        // The log has `connecting` at debug.
        if !["idle", "connecting"].contains(&&*status.state) {
            let logged = self.process().and_then(|process| View::of_log(process, name));
            views.push(("log", logged.context("no line about it")?));
        }
        Ok((status, views))
    }
}

impl View {
    fn of_status(status: &ConnectionStatus) -> Self {
        Self {
            state: status.state.clone(),
            reason: status.reason.clone(),
            evidence: status.evidence.clone(),
            esp_transport: status.esp_transport.clone(),
        }
    }

    fn of_json(body: &Value, state: &str) -> Option<Self> {
        let text = |key: &str| body[key].as_str().map(str::to_owned);
        Some(Self {
            state: text(state)?,
            reason: text("reason")?,
            evidence: text("evidence")?,
            esp_transport: text("esp_transport"),
        })
    }

    fn of_metrics(metrics: &Metrics, name: &str) -> Result<Self> {
        let only = |metric: &str, label: &str| {
            let metric = format!("portcullis_connection_{metric}");
            let words = metrics.ones(&metric, &[("connection", name)], label);
            anyhow::ensure!(words.len() <= 1, "{metric} of {name} is {words:?} at once");
            Ok(words.into_iter().next())
        };
        let some = |metric: &str| only(metric, metric)?.with_context(|| format!("{metric} of {name}"));
        Ok(Self {
            state: some("state")?,
            reason: some("reason")?,
            evidence: some("evidence")?,
            esp_transport: only("esp_transport", "transport")?,
        })
    }

    fn of_events(events: &EventReader, name: &str) -> Option<Self> {
        let is_change = |event: &&DaemonEvent| event.kind == "state_changed" && event.connection == name;
        events.read(|events| Self::of_json(&events.iter().rev().find(is_change)?.body, "to"))
    }

    fn of_log(process: &Process, name: &str) -> Option<Self> {
        let connection = format!("connection=\"{name}\"");
        let line = process.last_line(|line| line.contains(&connection) && line.contains(" state=\""))?;
        let word = |key: &str| {
            let (_, rest) = line.split_once(&format!(" {key}=\""))?;
            rest.split_once('"').map(|(word, _)| word.to_owned())
        };
        Some(Self {
            state: word("state")?,
            reason: word("reason")?,
            evidence: word("evidence")?,
            esp_transport: word("esp_transport"),
        })
    }
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let esp = self.esp_transport.as_deref().unwrap_or("nothing");
        write!(f, "{} ({}), evidence {}, ESP over {esp}", self.state, self.reason, self.evidence)
    }
}

fn all_equal(views: &[(&str, View)]) -> bool {
    views.windows(2).all(|pair| pair[0].1 == pair[1].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_are_equal_only_if_all_are() {
        let view = |reason: &str| View {
            state: "direct_udp".to_owned(),
            reason: reason.to_owned(),
            evidence: "echo".to_owned(),
            esp_transport: Some("udp".to_owned()),
        };
        assert!(all_equal(&[("status", view("nat")), ("log", view("nat"))]));
        assert!(!all_equal(&[("status", view("nat")), ("API", view("nat")), ("log", view("none"))]));
    }
}
