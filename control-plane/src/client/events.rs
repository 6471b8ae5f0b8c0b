//! The events stream, line by line.

use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::http;

/// Prints events as they happen, until the daemon ends or this process does: for people, or one JSON object a line.
///
/// # Errors
/// If no daemon answers, or when it ends the stream.
pub fn follow(socket: &Path, as_json: bool) -> Result<()> {
    let stream = http::open(socket, "GET", "/v1/events", None, None)?;
    let mut lines = BufReader::new(stream).lines();
    let mut head = String::new();
    for line in lines.by_ref() {
        let line = line.context("waiting for the daemon's answer")?;
        if line.is_empty() {
            break;
        }
        head.push_str(&line);
        head.push_str("\r\n");
    }
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    if !status.starts_with('2') {
        let body: Vec<_> = lines.map_while(Result::ok).collect();
        return http::body_of(&format!("{head}\r\n{}", body.join("\n"))).map(drop);
    }
    for line in lines {
        let line = line.context("the events stream")?;
        if let Some(data) = line.strip_prefix("data: ") {
            println!("{}", if as_json { data.to_owned() } else { for_people(data) });
        }
    }
    bail!("the daemon ended the stream: it has stopped, or this reader was too slow")
}

/// `time connection event key=value...`; a sentence goes last.
fn for_people(data: &str) -> String {
    let event: Value = serde_json::from_str(data).unwrap_or_default();
    let text = |key: &str| event[key].as_str().unwrap_or_default();
    let mut line = [text("time"), text("connection"), text("event")].map(str::to_owned).to_vec();
    line.retain(|word| !word.is_empty());
    let more = event.as_object().into_iter().flatten();
    for (key, value) in
        more.filter(|(key, _)| !matches!(key.as_str(), "time" | "connection" | "event" | "detail"))
    {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        line.push(format!("{key}={value}"));
    }
    let detail = text("detail");
    if !detail.is_empty() {
        line.push(format!("({detail})"));
    }
    line.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_for_people() {
        let data =
            r#"{"time":"T","event":"state_changed","connection":"x","from":"a","to":"b","detail":"why"}"#;
        assert_eq!(for_people(data), "T x state_changed from=a to=b (why)");
        assert_eq!(for_people("{\"event\":\"gap\"}"), "gap");
    }
}
