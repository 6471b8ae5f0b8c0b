//! Plots of the figures that say more as a picture.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use self::bars::{Bar, Bars, Group};

mod bars;

/// Writes `tunnel.svg` and `sas.svg` to a directory, each if its suite was run.
///
/// # Errors
/// If a file cannot be written.
pub fn write(directory: &Path, figures: &[Value]) -> Result<()> {
    std::fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
    for (name, plot) in [("tunnel.svg", tunnel(figures)), ("sas.svg", sas(figures))] {
        let Some(plot) = plot else { continue };
        let file = directory.join(name);
        std::fs::write(&file, plot.svg()).with_context(|| format!("writing {}", file.display()))?;
        println!("{}", file.display());
    }
    Ok(())
}

/// Flows through two gateways, ours and others'.
fn tunnel(figures: &[Value]) -> Option<Bars> {
    let mut groups: Vec<Group> = Vec::new();
    for figure in figures.iter().filter(|figure| figure["suite"] == "tunnel" && figure["unit"] == "Mbit/s") {
        // What goes through whom: "Portcullis, TUN, ESP in UDP, one TCP flow".
        let (ours, flow) = figure["case"].as_str()?.rsplit_once(", ")?;
        let gbit = |key: &str| Some(figure[key].as_f64()? / 1000.0);
        let group = group_of(&mut groups, flow);
        group.add(Bar { label: ours.to_owned(), value: gbit("value")?, is_ours: true });
        let theirs = figure["against"].as_str()?.to_owned();
        group.add(Bar { label: theirs, value: gbit("against_value")?, is_ours: false });
    }
    let title = "Through two gateways on two cores, Gbit/s".to_owned();
    (!groups.is_empty()).then_some(Bars { title, groups, decimals: 2 })
}

/// What a packet costs among so many SAs.
fn sas(figures: &[Value]) -> Option<Bars> {
    let mut groups: Vec<Group> = Vec::new();
    for figure in figures.iter().filter(|figure| figure["suite"] == "worker") {
        // "open 64 B, AEAD call included, 100000 SAs at random"
        let case = figure["case"].as_str()?;
        let Some(sas) = case.strip_suffix(" SAs at random") else { continue };
        let (what, count) = sas.rsplit_once(", ")?;
        let group = group_of(&mut groups, what);
        let one = Bar { label: "1 SA".to_owned(), value: figure["against_value"].as_f64()?, is_ours: false };
        let many = Bar { label: format!("{count} SAs"), value: figure["value"].as_f64()?, is_ours: true };
        group.add(one);
        group.add(many);
    }
    let title = "A worker and one of many SAs, nanoseconds for a packet".to_owned();
    (!groups.is_empty()).then_some(Bars { title, groups, decimals: 0 })
}

fn group_of<'a>(groups: &'a mut Vec<Group>, label: &str) -> &'a mut Group {
    let found = groups.iter().position(|group| group.label == label);
    let position = found.unwrap_or_else(|| {
        groups.push(Group { label: label.to_owned(), bars: Vec::new() });
        groups.len() - 1
    });
    &mut groups[position]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn figure(suite: &str, case: &str, unit: &str, value: f64, against: &str, against_value: f64) -> Value {
        json!({ "suite": suite, "case": case, "unit": unit, "value": value, "against": against,
            "against_value": against_value })
    }

    #[test]
    fn a_flow_shows_ours_once_and_every_peer_once() {
        let figures = [
            figure("tunnel", "ours, one flow", "Mbit/s", 5700.0, "first peer", 600.0),
            figure("tunnel", "ours, one flow", "Mbit/s", 5700.0, "second peer", 500.0),
            figure("tunnel", "ours, one flow, per busy core", "Mbit/s/core", 4700.0, "first peer", 500.0),
            figure("tunnel", "ours, datagrams", "Mbit/s", 900.0, "first peer", 400.0),
        ];
        let plot = tunnel(&figures).unwrap();
        let labels = |group: &Group| group.bars.iter().map(|bar| bar.label.clone()).collect::<Vec<_>>();
        assert_eq!(plot.groups.len(), 2);
        assert_eq!(labels(&plot.groups[0]), ["ours", "first peer", "second peer"]);
        assert_eq!(plot.groups[0].bars[0].value, 5.7);
        assert!(plot.svg().contains(">5.70<"));
        assert!(sas(&figures).is_none());
    }

    #[test]
    fn numbers_of_sas_stand_beside_one() {
        let case = |len, sas| format!("open {len} B, AEAD call included, {sas} SAs at random");
        let figures = [
            figure("worker", "seal 64 B, beside the AEAD call", "ns/packet", 115.0, "limit", 45.0),
            figure("worker", &case(64, 1000), "ns/packet", 200.0, "one SA", 190.0),
            figure("worker", &case(64, 100_000), "ns/packet", 400.0, "one SA", 190.0),
            figure("worker", &case(1400, 1000), "ns/packet", 300.0, "one SA", 280.0),
        ];
        let plot = sas(&figures).unwrap();
        let values: Vec<Vec<_>> =
            plot.groups.iter().map(|group| group.bars.iter().map(|bar| bar.value).collect()).collect();
        assert_eq!(values, [vec![190.0, 200.0, 400.0], vec![280.0, 300.0]]);
    }
}
