//! ESP policies and the changes that wait.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::http;

/// Whose policy.
#[derive(Clone, Copy, Debug)]
pub enum Whose<'a> {
    /// That of a connection.
    Connection(&'a str),
    /// That of connections which say nothing themselves.
    Default,
}

/// Prints the policy that holds, and who says so.
///
/// # Errors
/// If no daemon answers, or with what it says against it.
pub fn get(socket: &Path, whose: Whose<'_>, as_json: bool) -> Result<()> {
    let answer = http::request(socket, "GET", &whose.path(None), None)?;
    show(&answer, as_json)
}

/// Overrides it; with `confirm_within` the change is undone unless it is confirmed in time.
///
/// # Errors
/// If no daemon answers, or with what it says against it.
pub fn set(socket: &Path, whose: Whose<'_>, word: &str, confirm_within: Option<&str>) -> Result<()> {
    let body = json!({ "on_unreachable": word }).to_string();
    let answer = http::request(socket, "PUT", &whose.path(confirm_within), Some(&body))?;
    show(&answer, false)
}

/// Removes the override.
///
/// # Errors
/// If no daemon answers, or with what it says against it.
pub fn unset(socket: &Path, whose: Whose<'_>, confirm_within: Option<&str>) -> Result<()> {
    let answer = http::request(socket, "DELETE", &whose.path(confirm_within), None)?;
    show(&answer, false)
}

/// Lets a change stay.
///
/// # Errors
/// If no daemon answers, or no such change waits.
pub fn confirm(socket: &Path, id: &str) -> Result<()> {
    let path = format!("/v1/changes/{}/confirm", http::path_segment(id));
    http::request(socket, "POST", &path, None)?;
    println!("confirmed");
    Ok(())
}

impl Whose<'_> {
    fn path(self, confirm_within: Option<&str>) -> String {
        let path = match self {
            Self::Connection(name) => format!("/v1/connections/{}/esp-policy", http::path_segment(name)),
            Self::Default => "/v1/defaults/esp-policy".to_owned(),
        };
        match confirm_within {
            Some(within) => format!("{path}?confirm_within={}", http::path_segment(within)),
            None => path,
        }
    }
}

fn show(answer: &str, as_json: bool) -> Result<()> {
    if as_json {
        println!("{}", answer.trim_end());
        return Ok(());
    }
    let policy: Value = serde_json::from_str(answer).context("reading the daemon's answer")?;
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    println!("{} by {}", text(&policy["on_unreachable"]), text(&policy["source"]));
    if let Some(pending) = policy.get("pending") {
        println!(
            "undone at {} unless: portcullis policy confirm {}",
            text(&pending["reverts_at"]),
            text(&pending["id"])
        );
    }
    Ok(())
}
