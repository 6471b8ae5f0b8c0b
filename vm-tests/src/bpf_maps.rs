//! The BPF maps of a process, as `bpftool` shows them: what a support tool would collect.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

/// A map that a process holds open.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct BpfMap {
    /// The kernel's number.
    pub id: u32,
    /// Its name, cut to 15 characters by the kernel.
    pub name: String,
    /// Octets of a value.
    pub value_bytes: u32,
}

impl BpfMap {
    /// Every map that the process holds open.
    ///
    /// # Errors
    /// If the process has ended, or `bpftool` is missing.
    pub fn of_process(pid: i32) -> Result<BTreeSet<Self>> {
        let directory = format!("/proc/{pid}/fdinfo");
        let ids: BTreeSet<u32> = fs::read_dir(&directory)
            .with_context(|| format!("reading {directory}"))?
            .flatten()
            .filter_map(|file| fs::read_to_string(file.path()).ok())
            .filter_map(|info| info.lines().find_map(|l| l.strip_prefix("map_id:")?.trim().parse().ok()))
            .collect();
        ids.into_iter().map(Self::with_id).collect()
    }

    fn with_id(id: u32) -> Result<Self> {
        let shown = bpftool(&["map", "show", "id", &id.to_string()])?;
        let name = shown["name"].as_str().unwrap_or_default().to_owned();
        let value_bytes =
            shown["bytes_value"].as_u64().and_then(|bytes| bytes.try_into().ok()).unwrap_or_default();
        Ok(Self { id, name, value_bytes })
    }

    /// The values of its entries, as octets. A map whose values user space cannot read, as one of sockets, has none.
    ///
    /// # Errors
    /// If the map is gone.
    pub fn values(&self) -> Result<Vec<Vec<u8>>> {
        let dump = bpftool(&["map", "dump", "id", &self.id.to_string()])?;
        let entries = dump.as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(entries
            .iter()
            .map(|entry| octets(&entry["value"]).chain(octets(&entry["values"])).collect())
            .collect())
    }

    /// Keys and values of all entries, one after the other.
    ///
    /// # Errors
    /// If the map is gone.
    pub fn all_octets(&self) -> Result<Vec<u8>> {
        let dump = bpftool(&["map", "dump", "id", &self.id.to_string()])?;
        Ok(octets(&dump).collect())
    }
}

fn bpftool(arguments: &[&str]) -> Result<Value> {
    let output =
        Command::new("bpftool").arg("--json").args(arguments).output().context("starting bpftool")?;
    serde_json::from_slice(&output.stdout).with_context(|| {
        format!("bpftool {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stdout))
    })
}

/// Octets are strings like `0x1f`, in arrays in the order of memory.
fn octets(json: &Value) -> Box<dyn Iterator<Item = u8> + '_> {
    match json {
        Value::Array(items) => Box::new(items.iter().flat_map(octets)),
        // `formatted` repeats the same octets in the types of BTF.
        Value::Object(fields) => Box::new(
            fields.iter().filter(|(name, _)| *name != "formatted").flat_map(|(_, item)| octets(item)),
        ),
        Value::String(text) => Box::new(
            text.strip_prefix("0x").and_then(|digits| u8::from_str_radix(digits, 16).ok()).into_iter(),
        ),
        _ => Box::new(std::iter::empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_are_read_in_order_and_once() {
        let dump = serde_json::json!([
            { "key": ["0x01"], "value": ["0x1f", "0x00"], "formatted": { "value": ["0x55"] } },
            { "key": ["0x02"], "values": [{ "cpu": 0, "value": ["0xff"] }] },
        ]);
        assert_eq!(octets(&dump).collect::<Vec<_>>(), [0x01, 0x1f, 0x00, 0x02, 0xff]);
    }
}
