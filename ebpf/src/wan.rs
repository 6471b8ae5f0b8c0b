//! Packets from outside: ESP of a live SA to the worker, unknown SPIs and openings above their limit dropped, the rest to the
//! kernel.

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::debug;
use portcullis_common::maps::KeyRecord;
use portcullis_common::wan::{self, Wan};
use portcullis_common::{Spi, SteerWord, Verdict};

use crate::frame::Frame;
use crate::limit::Limited;
use crate::local::Listed;
use crate::verdict::{conclude, is_sample, to_worker};

/// User space sets the size of the SA table.
const SLOTS: u32 = 256;

#[map]
static STEER: Array<u64> = Array::with_max_entries(SLOTS, BPF_F_MMAPABLE);
/// Not read here: it is the kernel's memory for keys that outlive the process.
#[map]
static KEYS: Array<KeyRecord> = Array::with_max_entries(2 * SLOTS, BPF_F_MMAPABLE);

/// The WAN program.
#[inline(always)]
pub fn run(context: &XdpContext) -> u32 {
    let frame = Frame::new(context);
    let verdict = match wan::classify(&frame, &Listed, &Limited) {
        Ok(Wan::Esp(spi)) => return esp(&frame, spi),
        Ok(Wan::Transit) => Verdict::PassedTransit,
        Ok(Wan::NatKeepalive) => Verdict::NatKeepalive,
        Ok(Wan::Ike) => Verdict::PassedIke,
        Ok(Wan::Excess(opening)) => Verdict::limited(opening),
        Ok(Wan::Fragment) => Verdict::PassedFragment,
        Ok(Wan::Other) => Verdict::PassedOther,
        Err(_) => Verdict::Malformed,
    };
    conclude(&frame, verdict).0
}

#[inline(always)]
fn esp(frame: &Frame<'_>, spi: Spi) -> u32 {
    if is_live(spi) {
        return to_worker(frame, Verdict::PassedEsp);
    }
    let (code, number) = conclude(frame, Verdict::UnknownSpi);
    if is_sample(number) {
        let context = frame.context();
        debug!(context, "unknown SPI {:x}, queue {}, number {}", spi.0, context.rx_queue_index(), number);
    }
    code
}

#[inline(always)]
fn is_live(spi: Spi) -> bool {
    let Some(word) = STEER.get_ptr(spi.index()) else { return false };
    // SAFETY: the array is never freed while the program runs. User space writes aligned words, so that one
    // load sees either the old or the new one.
    SteerWord(unsafe { core::ptr::read_volatile(word) }).is_live(spi)
}
