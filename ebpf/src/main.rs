//! The XDP programs: classify, count, steer, drop.
//!
//! What a packet is, `portcullis_common` decides, in code that user space runs as well. Here are the kernel's
//! sides of it: packet memory, maps, the verdict. Nothing that needs a decision of its own belongs here.
#![no_std]
#![no_main]
// Of the target BPF; the build has what `core` needs of this kind anyway.
#![feature(asm_experimental_arch)]

mod frame;
mod lan;
mod limit;
mod local;
mod verdict;
mod wan;

use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;

/// For interfaces where ESP and IKE arrive.
#[xdp(frags)]
pub fn portcullis_wan(context: XdpContext) -> u32 {
    wan::run(&context)
}

/// For interfaces with protected hosts.
#[xdp(frags)]
pub fn portcullis_lan(context: XdpContext) -> u32 {
    lan::run(&context)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Ring buffer and redirect helpers are for programs under a licence that the kernel counts as compatible.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
