//! The least that an XDP program can do.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// `r0 = XDP_DROP; exit`.
const CODE: [u64; 2] = [0x0000_0001_0000_00b7, 0x0000_0000_0000_0095];
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
const XDP_PROGRAM: u32 = 6;

pub struct DropOnly(OwnedFd);

/// The part of `union bpf_attr` for BPF_PROG_LOAD that is needed.
#[repr(C)]
struct Load {
    kind: u32,
    instructions: u32,
    code: u64,
    licence: u64,
    rest: [u64; 4],
}

/// The part for BPF_PROG_TEST_RUN.
#[repr(C)]
struct TestRun {
    program: u32,
    answer: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    rest: [u64; 4],
}

impl DropOnly {
    pub fn load() -> Self {
        let (code, licence) = (CODE.as_ptr() as u64, c"GPL".as_ptr() as u64);
        let mut load = Load { kind: XDP_PROGRAM, instructions: 2, code, licence, rest: [0; 4] };
        let fd = bpf(BPF_PROG_LOAD, &mut load);
        // SAFETY: a descriptor that bpf(2) has just made.
        Self(unsafe { OwnedFd::from_raw_fd(fd as i32) })
    }

    /// Nanoseconds of one run of `repeat`.
    pub fn time(&self, frame: &[u8], repeat: u32) -> f64 {
        let mut out = vec![0u8; frame.len()];
        let mut run = TestRun {
            program: self.0.as_raw_fd() as u32,
            answer: 0,
            size_in: frame.len() as u32,
            size_out: out.len() as u32,
            data_in: frame.as_ptr() as u64,
            data_out: out.as_mut_ptr() as u64,
            repeat,
            duration: 0,
            rest: [0; 4],
        };
        bpf(BPF_PROG_TEST_RUN, &mut run);
        f64::from(run.duration)
    }
}

fn bpf<T>(command: libc::c_long, attributes: &mut T) -> libc::c_long {
    // SAFETY: the attributes are as long as said, laid out for the command, and what they point to is alive.
    let answer =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    assert!(answer >= 0, "bpf command {command}: {}", io::Error::last_os_error());
    answer
}
