//! Asking for memory before it is needed.

/// Octets of a cache line.
const LINE: usize = 64;

/// Asks the cache for all of a value; nothing else happens.
#[inline(always)]
pub fn prefetch<T>(value: &T) {
    let start = std::ptr::from_ref(value).cast::<u8>();
    for offset in (0..size_of::<T>().max(1)).step_by(LINE) {
        prefetch_line(start.wrapping_add(offset));
    }
}

#[inline(always)]
#[cfg(target_arch = "x86_64")]
fn prefetch_line(address: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a hint: no address faults, and nothing is read that the program could see.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
}

#[inline(always)]
#[cfg(not(target_arch = "x86_64"))]
fn prefetch_line(_address: *const u8) {}
