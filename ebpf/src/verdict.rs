//! Counting, and what becomes of the packet.

use aya_ebpf::Global;
use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_REDIRECT};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{PerCpuArray, XskMap};
use portcullis_common::Verdict;
use portcullis_common::maps::MAX_QUEUES;
use portcullis_common::verdict::{Action, Counter};

use crate::frame::Frame;

#[map]
static SOCKETS: XskMap = XskMap::with_max_entries(MAX_QUEUES, 0);
#[map]
static VERDICTS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(Verdict::COUNT as u32, 0);

/// 1: what the worker handles goes to its AF_XDP socket; 0: to the kernel, which has it for our sockets or TUN.
#[unsafe(no_mangle)]
static REDIRECT: Global<u8> = Global::new(0);

/// Counts the packet and returns the kernel's code for the verdict, with the number of packets that had it.
#[inline(always)]
pub fn conclude(frame: &Frame<'_>, verdict: Verdict) -> (u32, u64) {
    let packets = count(frame, verdict);
    let code = match verdict.action() {
        Action::Redirect => XDP_REDIRECT,
        Action::Pass => XDP_PASS,
        Action::Drop => XDP_DROP,
    };
    (code, packets)
}

/// Hands the packet to the worker: to the socket of its own queue, for a redirect to another is lost without a
/// trace. `in_kernel` is the verdict where the kernel does the worker's part.
#[inline(always)]
pub fn to_worker(frame: &Frame<'_>, in_kernel: Verdict) -> u32 {
    if REDIRECT.load() == 0 {
        return conclude(frame, in_kernel).0;
    }
    // The code in `Err` is the helper's fallback: whatever it is, protected traffic without a worker is dropped.
    match SOCKETS.redirect(frame.context().rx_queue_index(), u64::from(XDP_DROP)) {
        Ok(_) => conclude(frame, Verdict::Redirected).0,
        Err(_) => conclude(frame, Verdict::NoWorker).0,
    }
}

/// True for few of many: the first, the second, each power of two, then each 65536th.
#[inline(always)]
pub fn is_sample(number: u64) -> bool {
    number & number.wrapping_sub(1) == 0 || number & 0xffff == 0
}

#[inline(always)]
fn count(frame: &Frame<'_>, verdict: Verdict) -> u64 {
    let Some(counter) = VERDICTS.get_ptr_mut(verdict as u32) else { return 0 };
    // SAFETY: the entry is this CPU's own and XDP programs are not preempted by each other, so nobody else
    // writes it; user space reads words through the kernel.
    let counter = unsafe { &mut *counter };
    counter.packets += 1;
    counter.bytes += frame.len();
    counter.packets
}
