//! The seeds of the fuzz targets, and with them every input that fuzzing ever broke something with; and random damage to them.

use std::path::Path;

#[path = "../../fuzz/src/pki.rs"]
mod targets;

#[test]
fn chains() {
    replay("pki_chain", targets::chain);
}

#[test]
fn other_input() {
    replay("pki_other", targets::other);
}

/// Runs a target over its seeds, of which there has to be at least one, and over each with every octet changed in turn.
fn replay(target: &str, run: fn(&[u8])) {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(&seeds).unwrap_or_else(|error| panic!("{}: {error}", seeds.display())) {
        let path = entry.unwrap().path();
        eprintln!("{}", path.display());
        let seed = std::fs::read(&path).unwrap();
        run(&seed);
        for at in 0..seed.len().min(4096) {
            let mut damaged = seed.clone();
            damaged[at] = damaged[at].wrapping_add(1);
            run(&damaged);
        }
        count += 1;
    }
    assert!(count > 0, "no seeds in {}", seeds.display());
}
