//! Replays the seeds of the fuzz targets, and what fuzzing found, with stable Rust.

#[path = "../../fuzz/src/esp.rs"]
mod esp;

#[test]
fn every_seed_of_esp_open_holds() {
    assert!(replay("esp_open", esp::esp_open) >= 4);
}

#[test]
fn every_seed_of_esp_echo_holds() {
    assert!(replay("esp_echo", esp::esp_echo) >= 6);
}

proptest::proptest! {
    #[test]
    fn random_steps_hold(data in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..3000)) {
        esp::esp_open(&data);
    }

    #[test]
    fn random_payloads_hold(
        mut data in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..100),
        sub_type in 0u8..5,
    ) {
        // Mostly messages: with any octet there the rest would be looked at twice in 256 cases.
        for (at, octet) in [(2, sub_type), (4, 0)] {
            if let Some(place) = data.get_mut(at) {
                *place = octet;
            }
        }
        esp::esp_echo(&data);
    }
}

fn replay(target: &str, run: fn(&[u8])) -> usize {
    let seeds = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
    std::fs::read_dir(seeds).unwrap().map(|seed| run(&std::fs::read(seed.unwrap().path()).unwrap())).count()
}
