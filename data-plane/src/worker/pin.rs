//! Pinning a worker to a core.

/// Pins the calling thread to the `n`th of the cores that it may use, counted around. A kernel that refuses leaves
/// it where it is.
pub fn pin(n: usize) {
    // SAFETY: a set of bits, for which all zero is a value.
    let mut allowed: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    let size = size_of_val(&allowed);
    // SAFETY: the kernel writes at most `size` bytes to the set.
    if unsafe { libc::sched_getaffinity(0, size, &mut allowed) } < 0 {
        return;
    }
    // SAFETY: the index is below the size of the set.
    let cores = (0..libc::CPU_SETSIZE as usize).filter(|core| unsafe { libc::CPU_ISSET(*core, &allowed) });
    let cores: Vec<_> = cores.collect();
    let Some(core) = cores.get(n % cores.len().max(1)) else { return };
    // SAFETY: as for `allowed`.
    let mut one: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the core came out of a set of the same size.
    unsafe { libc::CPU_SET(*core, &mut one) };
    // SAFETY: pointer and size describe the set.
    unsafe { libc::sched_setaffinity(0, size, &one) };
}
