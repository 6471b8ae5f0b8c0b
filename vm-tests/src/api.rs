//! The control API as a program would use it: one request a connection.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

/// The daemon gives a command up after a minute.
const PATIENCE: Duration = Duration::from_secs(70);

/// An answer.
#[derive(Clone, Debug)]
pub struct ApiAnswer {
    /// The status code.
    pub status: u16,
    /// The headers as they came.
    pub head: String,
    /// The body as JSON; null if it is none.
    pub body: Value,
}

impl ApiAnswer {
    /// The ETag, or nothing.
    pub fn etag(&self) -> &str {
        let line = self
            .head
            .lines()
            .find_map(|line| line.split_once(": ").filter(|(k, _)| k.eq_ignore_ascii_case("etag")));
        line.map_or("", |(_, tag)| tag)
    }

    /// The last part of the problem's type, or nothing.
    pub fn problem(&self) -> &str {
        let uri = self.body["type"].as_str().unwrap_or_default();
        uri.rsplit(':').next().unwrap_or_default()
    }
}

/// Sends a request and does not wait for the answer.
///
/// # Errors
/// If nobody listens.
pub fn send(socket: &Path, method: &str, path: &str, headers: &str, body: &Value) -> Result<UnixStream> {
    let mut stream = UnixStream::connect(socket).with_context(|| format!("{}", socket.display()))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let body = if body.is_null() { String::new() } else { body.to_string() };
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: x\r\n{headers}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    Ok(stream)
}

/// Reads the answer.
///
/// # Errors
/// If the other end closes before it is complete.
pub fn receive(mut stream: UnixStream) -> Result<ApiAnswer> {
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").with_context(|| format!("no answer: '{text}'"))?;
    let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok());
    Ok(ApiAnswer {
        status: status.with_context(|| head.to_owned())?,
        head: head.to_owned(),
        body: serde_json::from_str(body).unwrap_or_default(),
    })
}
