//! Replays the seeds of the fuzz targets, and what fuzzing found, with stable Rust.

#[path = "../../fuzz/src/esp.rs"]
mod esp;

#[test]
fn every_seed_of_esp_open_holds() {
    let seeds = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds/esp_open")).unwrap();
    let mut count = 0;
    for seed in seeds {
        esp::esp_open(&std::fs::read(seed.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count >= 4);
}

proptest::proptest! {
    #[test]
    fn random_steps_hold(data in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..3000)) {
        esp::esp_open(&data);
    }
}
