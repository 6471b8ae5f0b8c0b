//! Which seeds a random walk takes: as many as the test says, `SIM_SEEDS=n` of them, or `SIM_SEED=n` alone, which prints its
//! trace if it fails.

/// Walks from every seed, on two threads.
pub fn walk_all(most: u64, walk: fn(u64)) {
    let number = |name| std::env::var(name).ok().map(|value| value.parse().expect("a number"));
    if let Some(seed) = number("SIM_SEED") {
        return walk(seed);
    }
    let most = number("SIM_SEEDS").unwrap_or(most);
    let threads = 2;
    let walkers: Vec<_> = (0..threads)
        .map(|thread| {
            std::thread::spawn(move || {
                for seed in (thread..most).step_by(threads as usize) {
                    let walk = std::panic::catch_unwind(|| walk(seed));
                    assert!(walk.is_ok(), "seed {seed}");
                }
            })
        })
        .collect();
    let failed = walkers.into_iter().filter_map(|walker| walker.join().err()).count();
    assert_eq!(failed, 0);
}
