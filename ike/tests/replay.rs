//! The seeds of the fuzz targets, and with them every input that fuzzing ever broke something with.

use std::path::Path;

#[path = "../../fuzz/src/ike.rs"]
mod targets;

#[path = "../../fuzz/src/ike_endpoint.rs"]
mod endpoint;

#[test]
fn endpoints() {
    replay("ike_endpoint", endpoint::endpoint);
}

#[test]
fn messages() {
    replay("ike_message", targets::message);
}

#[test]
fn payload_chains() {
    replay("ike_chain", targets::chain);
}

#[test]
fn proposal_notation() {
    replay("ike_proposal", targets::proposal);
}

#[test]
fn traffic_selectors() {
    replay("ike_selectors", targets::selectors);
}

#[test]
fn streams() {
    replay("ike_stream", targets::stream);
}

/// Runs a target over its seeds, of which there has to be at least one.
fn replay(target: &str, run: fn(&[u8])) {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(&seeds).unwrap_or_else(|error| panic!("{}: {error}", seeds.display())) {
        let path = entry.unwrap().path();
        eprintln!("{}", path.display());
        run(&std::fs::read(&path).unwrap());
        count += 1;
    }
    assert!(count > 0, "no seeds in {}", seeds.display());
}
