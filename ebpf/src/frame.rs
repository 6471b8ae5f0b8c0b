//! The only way to packet bytes: a read that the verifier sees checked.

use core::arch::asm;
use core::hint::black_box;

use aya_ebpf::helpers::generated::{bpf_xdp_get_buff_len, bpf_xdp_load_bytes};
use aya_ebpf::programs::XdpContext;
use portcullis_common::bytes::Bytes;

/// Longest offset that is read directly; the verifier refuses packet pointers that could lie further.
const MAX_OFFSET: usize = 0x3fff;

/// The frame that a program runs on.
pub struct Frame<'a>(&'a XdpContext);

impl<'a> Frame<'a> {
    /// The frame of a context.
    #[inline(always)]
    pub fn new(context: &'a XdpContext) -> Self {
        Self(context)
    }

    /// Octets in the frame, all its fragments included.
    #[inline(always)]
    pub fn len(&self) -> u64 {
        // SAFETY: the pointer is the context that the kernel handed to this program.
        unsafe { bpf_xdp_get_buff_len(self.0.ctx) }
    }
}

impl Bytes for Frame<'_> {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        if offset > MAX_OFFSET {
            return None;
        }
        let start = self.0.data() + bounded(offset);
        // For one octet the compiler makes this `start < data_end`, from which the verifier concludes nothing.
        let end = if N == 1 { black_box(start + N) } else { start + N };
        if end <= self.0.data_end() {
            // SAFETY: `start..start + N` was just found to lie in the linear part of the packet, which stays in
            // place while the program runs; an array of octets has no alignment.
            return Some(unsafe { *(start as *const [u8; N]) });
        }
        // A card may leave less than the headers in the linear part of a frame with fragments.
        let mut bytes = [0; N];
        // SAFETY: the kernel writes exactly `N` octets to `bytes`, or none and says so.
        let outcome =
            unsafe { bpf_xdp_load_bytes(self.0.ctx, offset as u32, bytes.as_mut_ptr().cast(), N as u32) };
        (outcome == 0).then_some(bytes)
    }

    #[inline(always)]
    fn holds(&self, len: usize) -> bool {
        // Seldom more than the linear part, and then the kernel need not be asked.
        self.0.data_end() - self.0.data() >= len || self.len() >= len as u64
    }
}

/// An offset that is at most [`MAX_OFFSET`], in a register of which the verifier knows that. What was compared it may not be: the
/// compiler may fetch it from the stack again, and kernel 6.1 does not know that this is the same.
#[inline(always)]
fn bounded(mut offset: usize) -> usize {
    // SAFETY: one instruction on a register, which leaves such an offset as it is.
    unsafe {
        asm!("{0} &= {1}", inout(reg) offset, const MAX_OFFSET, options(pure, nomem, nostack, preserves_flags))
    };
    offset
}
