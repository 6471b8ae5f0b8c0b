//! Replays the seeds of the fuzz target of the worker, and what fuzzing found, with stable Rust.

#[path = "../../fuzz/src/worker.rs"]
mod worker;

use std::path::Path;

#[test]
fn every_seed_of_the_worker_holds() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/worker");
    let seeds = std::fs::read_dir(seeds).unwrap().map(|seed| std::fs::read(seed.unwrap().path()).unwrap());
    assert!(seeds.inspect(|seed| worker::worker(seed)).count() >= 8);
}

proptest::proptest! {
    #[test]
    fn random_steps_hold(data in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..3000)) {
        worker::worker(&data);
    }
}
