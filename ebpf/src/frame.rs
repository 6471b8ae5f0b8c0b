//! The only way to packet bytes: a read that the verifier sees checked.

use core::arch::asm;
use core::cell::Cell;
use core::mem::{size_of, transmute_copy};

use aya_ebpf::helpers::generated::{bpf_xdp_get_buff_len, bpf_xdp_load_bytes};
use aya_ebpf::programs::XdpContext;
use portcullis_common::bytes::Bytes;

/// Longest offset that is read directly; the verifier refuses packet pointers that could lie further.
const MAX_OFFSET: usize = 0x3fff;

/// The frame that a program runs on.
pub struct Frame<'a> {
    context: &'a XdpContext,
    /// Octets of all its fragments, once the kernel was asked; asking costs as much as half of a verdict.
    whole: Cell<usize>,
}

impl<'a> Frame<'a> {
    /// The frame of a context.
    #[inline(always)]
    pub fn new(context: &'a XdpContext) -> Self {
        Self { context, whole: Cell::new(0) }
    }

    /// Its context.
    #[inline(always)]
    pub fn context(&self) -> &'a XdpContext {
        self.context
    }

    /// Octets in the frame: in all of its fragments if its packet reaches into them, else in the linear part.
    #[inline(always)]
    pub fn len(&self) -> u64 {
        let whole = self.whole.get();
        (if whole == 0 { self.linear() } else { whole }) as u64
    }

    #[inline(always)]
    fn linear(&self) -> usize {
        self.context.data_end() - self.context.data()
    }
}

impl Bytes for Frame<'_> {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        if offset > MAX_OFFSET {
            return None;
        }
        let start = self.context.data() + bounded(offset);
        // For one octet the compiler would make this `start < data_end`, from which the verifier concludes nothing.
        let end = if N == 1 { opaque(start + N) } else { start + N };
        if end <= self.context.data_end() {
            return Some(load(start));
        }
        // A card may leave less than the headers in the linear part of a frame with fragments.
        let mut bytes = [0; N];
        // SAFETY: the kernel writes exactly `N` octets to `bytes`, or none and says so.
        let outcome = unsafe {
            bpf_xdp_load_bytes(self.context.ctx, offset as u32, bytes.as_mut_ptr().cast(), N as u32)
        };
        (outcome == 0).then_some(bytes)
    }

    #[inline(always)]
    fn holds(&self, len: usize) -> bool {
        // Seldom more than the linear part, and then the kernel need not be asked.
        if self.linear() >= len {
            return true;
        }
        // SAFETY: the pointer is the context that the kernel handed to this program.
        let whole = unsafe { bpf_xdp_get_buff_len(self.context.ctx) } as usize;
        self.whole.set(whole);
        whole >= len
    }
}

/// The `N` octets at `start`, which were found to lie in the linear part of the packet: in words, wherever they begin. The compiler
/// would take them one by one, since it may not assume that they are aligned; the verifier lets packets be read anyhow on
/// machines that can.
#[inline(always)]
fn load<const N: usize>(start: usize) -> [u8; N] {
    #[repr(C, packed)]
    struct Twenty(u64, u64, u32);
    #[repr(C, packed)]
    struct Fourteen(u64, u32, u16);
    match N {
        1 => transmute::<_, N>(load_1(start)),
        2 => transmute::<_, N>(load_2(start)),
        4 => transmute::<_, N>(load_4(start)),
        8 => transmute::<_, N>(load_8::<0>(start)),
        14 => transmute::<_, N>(Fourteen(load_8::<0>(start), load_4(start + 8), load_2(start + 12))),
        16 => transmute::<_, N>([load_8::<0>(start), load_8::<8>(start)]),
        20 => transmute::<_, N>(Twenty(load_8::<0>(start), load_8::<8>(start), load_4(start + 16))),
        // SAFETY: as the caller found; an array of octets has no alignment.
        _ => unsafe { *(start as *const [u8; N]) },
    }
}

#[inline(always)]
fn transmute<T, const N: usize>(words: T) -> [u8; N] {
    const { assert!(size_of::<T>() <= 20) };
    if size_of::<T>() != N {
        return [0; N];
    }
    // SAFETY: integers without padding, of as many octets as was just compared.
    unsafe { transmute_copy(&words) }
}

macro_rules! loads {
    ($($name:ident: $word:ty = $instruction:literal;)*) => {$(
        #[inline(always)]
        fn $name(start: usize) -> $word {
            let word: u64;
            // SAFETY: one load from where the caller found octets of the packet, which nobody writes meanwhile.
            unsafe { asm!($instruction, out(reg) word, in(reg) start, options(pure, readonly, nostack, preserves_flags)) };
            word as $word
        }
    )*};
}

loads! {
    load_1: u8 = "{0} = *(u8 *)({1} + 0)";
    load_2: u16 = "{0} = *(u16 *)({1} + 0)";
    load_4: u32 = "{0} = *(u32 *)({1} + 0)";
}

#[inline(always)]
fn load_8<const AT: usize>(start: usize) -> u64 {
    let word: u64;
    // SAFETY: as the other loads.
    unsafe {
        asm!("{0} = *(u64 *)({1} + {2})", out(reg) word, in(reg) start, const AT, options(pure, readonly, nostack, preserves_flags))
    };
    word
}

/// The value, of which the compiler knows nothing any more.
#[inline(always)]
fn opaque(mut value: usize) -> usize {
    // SAFETY: one instruction on a register, which leaves it as it is.
    unsafe { asm!("{0} = {0}", inout(reg) value, options(pure, nomem, nostack, preserves_flags)) };
    value
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
