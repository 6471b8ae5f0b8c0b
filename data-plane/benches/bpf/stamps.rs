//! Frames at a rate that the generator's program keeps itself, when each left and how long it was under way, told by XDP at either
//! end.
//!
//! The kernel makes frames as fast as it can; the program sends one when it is due, and drops the others where they are. Short runs
//! with pauses between them are no way to it: the kernel needs milliseconds to begin and end a run.
//!
//! Frames are matched by their order, since nothing of what is inside is readable on one of the two ends. That is right while none
//! is lost: the counts say so.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::program::{Program, bpf};

/// Frames of a run at most.
pub const MOST: u64 = 1 << 18;

const BPF_MAP_CREATE: libc::c_long = 0;
const ARRAY: u32 = 2;
const MMAPABLE: u32 = 1 << 10;
const KTIME_GET_NS: i32 = 5;
const XDP_DROP: i32 = 1;
const XDP_TX: i32 = 3;

/// Where things lie in the map's only value, in words of eight octets: some numbers, and behind them two words for each frame,
/// when it left and how long it took, both in nanoseconds.
const SENT: usize = 0;
const ARRIVED: usize = 1;
/// Of frames that arrive.
const FRAME_LEN: usize = 2;
/// Frames to send.
const WANTED: usize = 3;
/// When the next is due.
const DUE: usize = 4;
/// Nanoseconds between two.
const INTERVAL: usize = 5;
/// As late as this a frame is sent after all; what is due before is missed, so that no bursts come after a pause.
const LATEST: usize = 6;
const FRAMES: usize = 8;
const WORDS: usize = FRAMES + 2 * MOST as usize;
/// Frames that are sent at once, at most, after the generator was held up.
const LONGEST_BURST: f64 = 64.0;

/// The map, as long as programs and this process share it.
pub struct Stamps {
    map: OwnedFd,
    memory: NonNull<AtomicU64>,
}

/// The part of `union bpf_attr` for BPF_MAP_CREATE that is needed.
#[repr(C)]
struct Create {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    rest: [u32; 5],
}

// SAFETY: the memory is atomic words, and mapped until the value is dropped.
unsafe impl Send for Stamps {}
// SAFETY: as above.
unsafe impl Sync for Stamps {}

impl Stamps {
    pub fn new() -> Self {
        let value_size = (8 * WORDS) as u32;
        let mut create =
            Create { kind: ARRAY, key_size: 4, value_size, max_entries: 1, flags: MMAPABLE, rest: [0; 5] };
        let fd = bpf(BPF_MAP_CREATE, &mut create).unwrap();
        // SAFETY: a descriptor that bpf(2) has just made.
        let map = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: a new mapping of a map that is as long.
        let memory =
            unsafe { libc::mmap(std::ptr::null_mut(), 8 * WORDS, access, flags, map.as_raw_fd(), 0) };
        assert_ne!(memory, libc::MAP_FAILED, "{}", io::Error::last_os_error());
        Self { map, memory: NonNull::new(memory.cast()).unwrap() }
    }

    /// Stamps a frame that is due and sends it out of the interface where it seems to have come in.
    pub fn sender(&self) -> Program {
        let [value, offset] = self.value(R7);
        Program::load(&[
            call(KTIME_GET_NS),
            value,
            offset,
            load(R1, R7, SENT),
            load(R2, R7, WANTED),
            skip_unless_less(R1, R2, 18),
            load(R3, R7, DUE),
            skip_if_less(R0, R3, 16),
            load(R4, R7, LATEST),
            add_register(R4, R3),
            skip_unless_less(R4, R0, 1),
            copy(R3, R0),
            load(R4, R7, INTERVAL),
            add_register(R3, R4),
            store(R7, DUE, R3),
            copy(R2, R1),
            add(R2, 1),
            store(R7, SENT, R2),
            and(R1, MOST as i32 - 1),
            shift_left(R1, 4),
            add_register(R7, R1),
            store(R7, FRAMES, R0),
            set(R0, XDP_TX),
            EXIT,
            set(R0, XDP_DROP),
            EXIT,
        ])
    }

    /// Looks at the clock when a frame arrives that is as long as those of the run, and drops it and all others.
    pub fn receiver(&self) -> Program {
        let [value, offset] = self.value(R7);
        Program::load(&[
            load_half_word(R2, R1, 0),
            load_half_word(R3, R1, 1),
            subtract(R3, R2),
            value,
            offset,
            load(R4, R7, FRAME_LEN),
            skip_unless_equal(R3, R4, 11),
            call(KTIME_GET_NS),
            load(R1, R7, ARRIVED),
            copy(R2, R1),
            add(R2, 1),
            store(R7, ARRIVED, R2),
            and(R1, MOST as i32 - 1),
            shift_left(R1, 4),
            add_register(R7, R1),
            load(R2, R7, FRAMES),
            subtract(R0, R2),
            store(R7, FRAMES + 1, R0),
            set(R0, XDP_DROP),
            EXIT,
        ])
    }

    /// Begins a run of `count` frames, so many a second, when all frames of the one before are through. `frame_len` is that of those
    /// that arrive.
    pub fn begin(&self, count: u64, packets_per_second: f64, frame_len: usize) {
        let interval = 1e9 / packets_per_second;
        for (word, value) in [
            (SENT, 0),
            (ARRIVED, 0),
            (FRAME_LEN, frame_len as u64),
            (WANTED, count),
            (DUE, 0),
            (INTERVAL, interval as u64),
            (LATEST, (LONGEST_BURST * interval) as u64),
        ] {
            self.words()[word].store(value, Ordering::SeqCst);
        }
    }

    /// Frames that left the generator in this run, and those that arrived.
    pub fn counts(&self) -> (u64, u64) {
        let [sent, arrived] = [SENT, ARRIVED].map(|word| self.words()[word].load(Ordering::SeqCst));
        (sent, arrived)
    }

    /// When the first frame of the run left and when the last one did, by the same clock, in nanoseconds.
    pub fn period_ns(&self) -> (u64, u64) {
        let (sent, _) = self.counts();
        let stamp = |number: u64| self.words()[FRAMES + 2 * number as usize].load(Ordering::Relaxed);
        (stamp(0), stamp(sent - 1))
    }

    /// How long each frame of the run was under way, in nanoseconds.
    pub fn latencies_ns(&self) -> Vec<u64> {
        let (_, arrived) = self.counts();
        let frames = self.words()[FRAMES..].chunks(2).take(arrived as usize);
        frames.map(|frame| frame[1].load(Ordering::Relaxed)).collect()
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: mapped with this length until the value is dropped.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), WORDS) }
    }

    /// The address of the map's value.
    fn value(&self, register: u8) -> [u64; 2] {
        const PSEUDO_MAP_VALUE: u8 = 2;
        [instruction(0x18, register, PSEUDO_MAP_VALUE, 0, self.map.as_raw_fd()), 0]
    }
}

impl Drop for Stamps {
    fn drop(&mut self) {
        // SAFETY: mapped with this length, and nothing borrows it any more.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), 8 * WORDS) };
    }
}

const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
const R4: u8 = 4;
/// Kept over calls.
const R7: u8 = 7;
const EXIT: u64 = instruction(0x95, 0, 0, 0, 0);

/// RFC 9669 section 3.
const fn instruction(opcode: u8, destination: u8, source: u8, offset: usize, immediate: i32) -> u64 {
    opcode as u64
        | (destination as u64) << 8
        | (source as u64) << 12
        | (offset as u64) << 16
        | (immediate as u32 as u64) << 32
}

const fn set(register: u8, value: i32) -> u64 {
    instruction(0xb7, register, 0, 0, value)
}

const fn copy(to: u8, from: u8) -> u64 {
    instruction(0xbf, to, from, 0, 0)
}

const fn add(register: u8, value: i32) -> u64 {
    instruction(0x07, register, 0, 0, value)
}

const fn add_register(to: u8, other: u8) -> u64 {
    instruction(0x0f, to, other, 0, 0)
}

const fn subtract(from: u8, other: u8) -> u64 {
    instruction(0x1f, from, other, 0, 0)
}

const fn and(register: u8, mask: i32) -> u64 {
    instruction(0x57, register, 0, 0, mask)
}

const fn shift_left(register: u8, bits: i32) -> u64 {
    instruction(0x67, register, 0, 0, bits)
}

/// The `word`th eight octets behind an address.
const fn load(to: u8, address: u8, word: usize) -> u64 {
    instruction(0x79, to, address, 8 * word, 0)
}

/// The `word`th four octets behind an address.
const fn load_half_word(to: u8, address: u8, word: usize) -> u64 {
    instruction(0x61, to, address, 4 * word, 0)
}

const fn store(address: u8, word: usize, from: u8) -> u64 {
    instruction(0x7b, address, from, 8 * word, 0)
}

const fn call(helper: i32) -> u64 {
    instruction(0x85, 0, 0, 0, helper)
}

const fn skip_if_less(register: u8, other: u8, instructions: usize) -> u64 {
    instruction(0xad, register, other, instructions, 0)
}

const fn skip_unless_less(register: u8, other: u8, instructions: usize) -> u64 {
    instruction(0x3d, register, other, instructions, 0)
}

const fn skip_unless_equal(register: u8, other: u8, instructions: usize) -> u64 {
    instruction(0x5d, register, other, instructions, 0)
}
