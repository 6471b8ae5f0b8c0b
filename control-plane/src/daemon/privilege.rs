//! What a gateway has to be allowed to do, checked before anything is touched.

use anyhow::{Context, Result, bail};

const NEEDED: [(u32, &str); 3] = [(10, "CAP_NET_BIND_SERVICE"), (12, "CAP_NET_ADMIN"), (13, "CAP_NET_RAW")];

/// Checks the capabilities of this process.
///
/// # Errors
/// Names those that are missing and how to give them.
pub fn check() -> Result<()> {
    let status = std::fs::read_to_string("/proc/self/status").context("reading /proc/self/status")?;
    let missing = missing(&status);
    if !missing.is_empty() {
        bail!(
            "no privilege: {} missing; run as root, or give AmbientCapabilities= in the systemd unit",
            missing.join(", ")
        );
    }
    Ok(())
}

fn missing(status: &str) -> Vec<&'static str> {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).unwrap_or(0);
    NEEDED.iter().filter(|(bit, _)| effective & (1 << bit) == 0).map(|(_, name)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_capabilities_are_named() {
        assert_eq!(missing("Name:\tx\nCapEff:\t000001ffffffffff\n"), Vec::<&str>::new());
        assert_eq!(missing("CapEff:\t0000000000000400\n"), ["CAP_NET_ADMIN", "CAP_NET_RAW"]);
    }
}
