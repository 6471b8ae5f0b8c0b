//! The verbs that talk to a running daemon: `status`, `top`, `up`, `down`, `rekey`, `policy`, `events`, `reload`.

pub mod events;
mod explain;
mod http;
pub mod policy;
pub mod reload;
mod render;
pub mod top;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::status::explain::Explained;
use crate::status::{DataPlane, Status};

/// Prints the status: for people, or the JSON as the daemon answers it.
///
/// # Errors
/// If no daemon answers on the socket.
pub fn status(socket: &Path, json: bool) -> Result<()> {
    let body = http::request(socket, "GET", "/v1/status", None)?;
    if json {
        println!("{}", body.trim_end());
    } else {
        let status: Status =
            serde_json::from_str(&body).context("the daemon is of another version: try `status --json`")?;
        print!("{}", render::status(&status));
    }
    Ok(())
}

/// Prints what the data plane counts, every worker and drop reason.
///
/// # Errors
/// If no daemon answers on the socket.
pub fn data_plane(socket: &Path, json: bool) -> Result<()> {
    let body = http::request(socket, "GET", "/v1/data-plane", None)?;
    if json {
        println!("{}", body.trim_end());
    } else {
        print!("{}", render::data_plane(&data_plane_of(&body)?));
    }
    Ok(())
}

/// Prints what would become of a packet, which `query` describes.
///
/// # Errors
/// If no daemon answers on the socket, or with what it says against the packet.
pub fn explain(socket: &Path, query: &[(&str, &str)], json: bool) -> Result<()> {
    let body = http::request(socket, "GET", &http::with_query("/v1/explain", query), None)?;
    if json {
        println!("{}", body.trim_end());
    } else {
        let explained: Explained =
            serde_json::from_str(&body).context("the daemon is of another version: try `explain --json`")?;
        print!("{}", explain::page(&explained));
    }
    Ok(())
}

/// Copies packets as they come, until the daemon ends the file or this process does.
///
/// # Errors
/// If no daemon answers on the socket, with what it says against the query, or if `file` takes no more.
pub fn capture(socket: &Path, query: &[(&str, &str)], file: &mut impl Write) -> Result<()> {
    let mut stream =
        BufReader::new(http::open(socket, "GET", &http::with_query("/v1/capture", query), None, None)?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let read = stream.read_line(&mut head).context("waiting for the daemon's answer")?;
        ensure!(read > 0, "the daemon's answer is no HTTP");
    }
    if head.split_whitespace().nth(1).is_none_or(|status| !status.starts_with('2')) {
        stream.read_to_string(&mut head).context("waiting for the daemon's answer")?;
        return http::body_of(&head).map(drop);
    }
    std::io::copy(&mut stream, file).context("copying packets")?;
    Ok(())
}

fn data_plane_of(body: &str) -> Result<DataPlane> {
    serde_json::from_str(body).context("the daemon is of another version: try `status --data-plane --json`")
}

/// Carries out `up`, `down` or `rekey`, and waits for its outcome.
///
/// # Errors
/// If no daemon answers on the socket, or with what it says against it.
pub fn command(socket: &Path, connection: &str, verb: &str, child: Option<&str>, ike: bool) -> Result<()> {
    ask(socket, connection, verb, &json!({ "child": child, "ike": ike }))
}

/// Sends the peers of a connection to another gateway.
///
/// # Errors
/// If no daemon answers, or what it says against it.
pub fn redirect(socket: &Path, connection: &str, to: IpAddr) -> Result<()> {
    ask(socket, connection, "redirect", &json!({ "to": to }))
}

fn ask(socket: &Path, connection: &str, verb: &str, wish: &serde_json::Value) -> Result<()> {
    let path = format!("/v1/connections/{}/{verb}", http::path_segment(connection));
    let body = wish.to_string();
    let answer = http::request(socket, "POST", &path, Some(&body))?;
    let answer: serde_json::Value = serde_json::from_str(&answer).context("reading the daemon's answer")?;
    println!("{}", answer["result"].as_str().unwrap_or("done"));
    Ok(())
}
