//! Whether an opening is one too many of its source prefix.

use core::arch::asm;

use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap};
use portcullis_common::ip::Source;
use portcullis_common::limit::{self, BUCKETS, Buckets, Limits};
use portcullis_common::maps::MAX_EXEMPT;
use portcullis_common::opening::{IkePorts, Opening};
use portcullis_common::wan::Gate;

#[map]
static LIMIT_BUCKETS: Array<Buckets> = Array::with_max_entries(BUCKETS, BPF_F_MMAPABLE);
#[map]
static LIMIT_EXEMPT: HashMap<Source, u8> = HashMap::with_max_entries(MAX_EXEMPT, BPF_F_NO_PREALLOC);

/// User space sets it before the program is loaded.
#[unsafe(no_mangle)]
static LIMITS: Limits = Limits::NONE;

/// The limits that user space has set.
pub struct Limited;

impl Gate for Limited {
    #[inline(always)]
    fn ports(&self) -> IkePorts {
        limits().ports()
    }

    #[inline(always)]
    fn admits(&self, opening: Opening, source: &Source) -> bool {
        !exceeds(opening, source)
    }
}

#[inline(always)]
fn exceeds(opening: Opening, source: &Source) -> bool {
    let Some(buckets) = LIMIT_BUCKETS.get_ptr_mut(limits().place(source)) else { return false };
    // SAFETY: the array is never freed while the program runs, and this is a word of the entry.
    let level_ns = unsafe { &raw mut (*buckets).levels_ns[opening as usize] };
    // SAFETY: an aligned word: one load sees what some processor has stored.
    let level = unsafe { level_ns.read_volatile() };
    // A step of the coarse clock is a tick, some milliseconds; the exact one costs more than all of this.
    // SAFETY: the helper only answers.
    let now_ns = unsafe { bpf_ktime_get_coarse_ns() };
    match limit::take(level, now_ns, limits().rate(opening)) {
        Some(after) => {
            // SAFETY: as above.
            unsafe { level_ns.write_volatile(after) };
            false
        }
        None => {
            // SAFETY: as above, another word of the entry; user space alone writes it, in one store.
            let exempt = unsafe { (&raw const (*buckets).exempt).read_volatile() };
            exempt == 0 || !is_exempt(source)
        }
    }
}

#[inline(always)]
fn is_exempt(source: &Source) -> bool {
    LIMIT_EXEMPT.get_ptr(source).is_some()
}

/// Not what the compiler sees in it, but what user space has put there.
#[inline(always)]
#[expect(
    clippy::pointers_in_nomem_asm_block,
    reason = "the pointer goes from a register to itself and is not followed"
)]
fn limits() -> &'static Limits {
    let mut limits: *const Limits = &raw const LIMITS;
    // SAFETY: one instruction on a register, which leaves it as it is.
    unsafe { asm!("{0} = {0}", inout(reg) limits, options(pure, nomem, nostack, preserves_flags)) };
    // SAFETY: that is where it was, and the kernel has made it read-only before a program runs.
    unsafe { &*limits }
}
