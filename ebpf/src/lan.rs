//! Packets from protected hosts: by the class of their destination to the worker, to the kernel, or nowhere.

use aya_ebpf::Global;
use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap};
use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::debug;
use portcullis_common::Verdict;
use portcullis_common::ip::Address;
use portcullis_common::lan::{self, Lan};
use portcullis_common::maps::{MAX_IPV6_PREFIXES, MAX_MIXED};
use portcullis_common::prefix_class::{
    IPV4_WORDS, Ipv6Lengths, Ipv6Prefix, MixedBlock, NO_LENGTH, PrefixClass, ipv4_place, mixed_place,
};

use crate::frame::Frame;
use crate::local::Listed;
use crate::verdict::{conclude, is_sample, to_worker};

#[map]
static LAN_IPV4: Array<u64> = Array::with_max_entries(IPV4_WORDS, BPF_F_MMAPABLE);
#[map]
static LAN_IPV4_MIXED: HashMap<u32, MixedBlock> = HashMap::with_max_entries(MAX_MIXED, BPF_F_NO_PREALLOC);
#[map]
static LAN_IPV6: HashMap<Ipv6Prefix, u8> = HashMap::with_max_entries(MAX_IPV6_PREFIXES, BPF_F_NO_PREALLOC);
#[map]
static LAN_IPV6_LENGTHS: Array<Ipv6Lengths> = Array::with_max_entries(1, 0);

/// 1: a destination that no policy covers is dropped (RFC 4301 section 4.4.1).
#[unsafe(no_mangle)]
static FINAL_DISCARD: Global<u8> = Global::new(1);

/// The LAN program.
#[inline(always)]
pub fn run(context: &XdpContext) -> u32 {
    let frame = Frame::new(context);
    let class = match lan::classify(&frame, &Listed) {
        Ok(Lan::Forward(Address::V4(destination))) => ipv4_class(destination),
        Ok(Lan::Forward(Address::V6(destination))) => ipv6_class(destination),
        Ok(Lan::Local) => return conclude(&frame, Verdict::PassedOther).0,
        Err(_) => return conclude(&frame, Verdict::Malformed).0,
    };
    match class {
        PrefixClass::Worker | PrefixClass::Mixed => to_worker(&frame, Verdict::PassedProtected),
        PrefixClass::Pass => conclude(&frame, Verdict::PassedBypass).0,
        PrefixClass::None if FINAL_DISCARD.load() == 0 => conclude(&frame, Verdict::PassedBypass).0,
        PrefixClass::None => {
            let (code, number) = conclude(&frame, Verdict::NoPolicy);
            if is_sample(number) {
                debug!(context, "no policy covers the destination, number {}", number);
            }
            code
        }
    }
}

#[inline(always)]
fn ipv4_class(address: [u8; 4]) -> PrefixClass {
    let (word, shift) = ipv4_place(address);
    let Some(word) = LAN_IPV4.get_ptr(word) else { return PrefixClass::Worker };
    // SAFETY: the array is never freed while the program runs; user space writes aligned words.
    let class = PrefixClass::from_bits(unsafe { core::ptr::read_volatile(word) } >> shift);
    if class == PrefixClass::Mixed { mixed_class(address) } else { class }
}

/// In doubt the worker is asked.
#[inline(always)]
fn mixed_class(address: [u8; 4]) -> PrefixClass {
    let Some(block) = LAN_IPV4_MIXED.get_ptr(u32::from_be_bytes(address) >> 8) else {
        return PrefixClass::Worker;
    };
    let (word, shift) = mixed_place(address);
    // SAFETY: an entry stays readable until the program has run (RCU); one that is replaced meanwhile gives a
    // class that was right a moment ago. The index is below 8 by construction.
    let word = unsafe { core::ptr::read_volatile((*block).as_ptr().add(word & 7)) };
    PrefixClass::from_bits(word >> shift)
}

#[inline(always)]
fn ipv6_class(address: [u8; 16]) -> PrefixClass {
    let Some(lengths) = LAN_IPV6_LENGTHS.get(0) else { return PrefixClass::Worker };
    for length in lengths {
        if *length == NO_LENGTH {
            break;
        }
        if let Some(class) = LAN_IPV6.get_ptr(Ipv6Prefix::of(address, *length)) {
            // SAFETY: as above, an entry stays readable until the program has run.
            return PrefixClass::from_bits(u64::from(unsafe { *class }));
        }
    }
    PrefixClass::None
}
