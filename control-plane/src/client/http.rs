//! One request over the control socket. HTTP/1.0: the answer ends with the connection and is never chunked.

use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// The daemon gives a command up after a minute.
const PATIENCE: Duration = Duration::from_secs(70);

/// Sends a request with an optional JSON body and returns the body of a successful answer.
///
/// # Errors
/// If nobody listens, or with the detail of the problem that the daemon answers.
pub fn request(socket: &Path, method: &str, path: &str, body: Option<&str>) -> Result<String> {
    let mut stream = open(socket, method, path, body, Some(PATIENCE))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("waiting for the daemon's answer")?;
    body_of(&answer).map(str::to_owned)
}

/// Sends a request; the answer is read from the stream, each part within `patience`.
///
/// # Errors
/// If nobody listens.
pub fn open(
    socket: &Path,
    method: &str,
    path: &str,
    body: Option<&str>,
    patience: Option<Duration>,
) -> Result<UnixStream> {
    let mut stream = UnixStream::connect(socket).map_err(|error| {
        let remedy = match error.kind() {
            ErrorKind::NotFound => "is the daemon running? --socket or --instance names another one",
            ErrorKind::ConnectionRefused => "the daemon that made it has ended",
            ErrorKind::PermissionDenied => "only root and the daemon's group may use it",
            _ => "cannot connect",
        };
        anyhow::anyhow!("{}: {error}: {remedy}", socket.display())
    })?;
    stream.set_read_timeout(patience)?;
    let body = body.unwrap_or_default();
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: portcullis\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .context("sending the request")?;
    Ok(stream)
}

/// A name as one segment of a path (RFC 3986 section 3.3).
pub fn path_segment(name: &str) -> String {
    name.bytes().fold(String::new(), |mut segment, octet| {
        if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) {
            segment.push(char::from(octet));
        } else {
            // Writing to a string does not fail.
            let _ = write!(segment, "%{octet:02X}");
        }
        segment
    })
}

/// A path with a query (RFC 3986 section 3.4).
pub fn with_query(path: &str, query: &[(&str, &str)]) -> String {
    let escaped = |(key, value): &(&str, &str)| format!("{key}={}", path_segment(value));
    let query: Vec<_> = query.iter().map(escaped).collect();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{}", query.join("&")) }
}

/// The body of a successful answer.
///
/// # Errors
/// What the daemon says against the request, every wrong value of a document on a line of its own.
pub fn body_of(answer: &str) -> Result<&str> {
    let (head, body) = answer.split_once("\r\n\r\n").context("the daemon's answer is no HTTP")?;
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    if status.starts_with('2') {
        return Ok(body);
    }
    // RFC 9457.
    let problem: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let errors: Vec<_> = problem["errors"].as_array().into_iter().flatten().map(one_error).collect();
    if errors.len() > 1 {
        bail!("{}:\n  {}", problem["title"].as_str().unwrap_or("refused"), errors.join("\n  "));
    }
    match (problem["title"].as_str(), problem["detail"].as_str()) {
        (Some(title), Some(detail)) => bail!("{title}: {detail}"),
        (Some(text), None) | (None, Some(text)) => bail!("{text}"),
        (None, None) => bail!("the daemon answers {status}: {}", body.trim()),
    }
}

fn one_error(error: &serde_json::Value) -> String {
    let line = error["line"].as_u64().map(|line| format!("line {line}: ")).unwrap_or_default();
    let field = error["field"].as_str().unwrap_or_default();
    let separator = if field.is_empty() { "" } else { ": " };
    format!("{line}{field}{separator}{}", error["detail"].as_str().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_problem_is_told_in_the_daemons_words() {
        let answer =
            "HTTP/1.0 409 Conflict\r\n\r\n{\"title\":\"rekey failed\",\"detail\":\"no SA\",\"status\":409}";
        assert_eq!(body_of(answer).unwrap_err().to_string(), "rekey failed: no SA");
        let errors = "[{\"field\":\"a\",\"detail\":\"x\",\"line\":3},{\"field\":\"\",\"detail\":\"y\"}]";
        let answer = format!("HTTP/1.0 422 X\r\n\r\n{{\"title\":\"not valid\",\"errors\":{errors}}}");
        assert_eq!(body_of(&answer).unwrap_err().to_string(), "not valid:\n  line 3: a: x\n  y");
        assert_eq!(body_of("HTTP/1.0 200 OK\r\n\r\n{}").unwrap(), "{}");
        assert!(body_of("nonsense").is_err());
    }

    #[test]
    fn a_name_is_escaped_in_a_path() {
        assert_eq!(path_segment("dc-west_1"), "dc-west_1");
        assert_eq!(path_segment("a/b c"), "a%2Fb%20c");
    }

    #[test]
    fn the_request_reaches_the_socket_and_a_missing_one_is_named_with_a_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        assert!(request(&path, "GET", "/", None).unwrap_err().to_string().contains("is the daemon running"));
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"{\"ike\":true}") {
                let mut octet = [0];
                stream.read_exact(&mut octet).unwrap();
                request.push(octet[0]);
            }
            stream.write_all(b"HTTP/1.0 200 OK\r\n\r\ndone").unwrap();
            String::from_utf8(request).unwrap()
        });
        assert_eq!(request(&path, "POST", "/v1/x", Some("{\"ike\":true}")).unwrap(), "done");
        let sent = server.join().unwrap();
        assert!(
            sent.starts_with("POST /v1/x HTTP/1.0\r\n") && sent.contains("Content-Length: 12\r\n"),
            "{sent}"
        );
    }
}
