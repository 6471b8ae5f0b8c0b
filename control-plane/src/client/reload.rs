//! Reloading, and what it would change.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::http;

/// Reads the configuration file again, or shows what that would change.
///
/// # Errors
/// If no daemon answers, or with what it says against the file.
pub fn reload(socket: &Path, is_dry_run: bool) -> Result<()> {
    let path = if is_dry_run { "/v1/reload?dry_run=true" } else { "/v1/reload" };
    let answer = http::request(socket, "POST", path, None)?;
    let answer: Value = serde_json::from_str(&answer).context("reading the daemon's answer")?;
    print!("{}", difference(&answer));
    Ok(())
}

fn difference(answer: &Value) -> String {
    let mut page = String::new();
    // Writing to a string does not fail.
    let _ = write_difference(&mut page, answer);
    page
}

fn write_difference(page: &mut String, answer: &Value) -> std::fmt::Result {
    let difference = &answer["difference"];
    for warning in answer["warnings"].as_array().into_iter().flatten() {
        writeln!(page, "warning: {}: {}", word(&warning["field"]), word(&warning["detail"]))?;
    }
    for (key, sign) in [("added", '+'), ("removed", '-')] {
        for name in difference[key].as_array().into_iter().flatten() {
            writeln!(page, "{sign} {}", word(name))?;
        }
    }
    for (name, changes) in difference["changed"].as_object().into_iter().flatten() {
        writeln!(page, "~ {name}")?;
        for change in changes.as_array().into_iter().flatten() {
            write!(page, "    {}", word(&change["field"]))?;
            match (change.get("from"), change.get("to")) {
                (Some(from), Some(to)) => writeln!(page, ": {} -> {}", word(from), word(to))?,
                (None, Some(to)) => writeln!(page, ": {}", word(to))?,
                (Some(from), None) => writeln!(page, ": {} -> nothing", word(from))?,
                (None, None) => writeln!(page)?,
            }
        }
    }
    if difference["policies"] == true {
        writeln!(page, "~ policies")?;
    }
    if let Some(section) = difference["needs_restart"].as_str() {
        writeln!(page, "{section} differs, which only a restart can change: a reload is refused")?;
    }
    if page.is_empty() {
        page.push_str("nothing changes\n");
    }
    Ok(())
}

fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_difference_reads_like_one() {
        let answer = json!({"dry_run": true, "warnings": [], "difference": {
            "added": ["a"], "removed": ["b"], "policies": true, "needs_restart": null,
            "changed": {"c": [{"field": "ike.dead_after", "from": "1m", "to": "2m"}, {"field": "x", "to": 1}]}}});
        assert_eq!(
            difference(&answer),
            "+ a\n- b\n~ c\n    ike.dead_after: 1m -> 2m\n    x: 1\n~ policies\n"
        );
        assert_eq!(difference(&json!({})), "nothing changes\n");
    }
}
