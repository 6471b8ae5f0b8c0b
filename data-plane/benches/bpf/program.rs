//! Programs of a few instructions, by bpf(2) itself: the least that XDP can do.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// `r0 = XDP_DROP; exit`.
pub const DROP: [u64; 2] = [0x0000_0001_0000_00b7, 0x0000_0000_0000_0095];
/// `r0 = XDP_TX; exit`.
pub const SEND_BACK: [u64; 2] = [0x0000_0003_0000_00b7, 0x0000_0000_0000_0095];

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_LINK_CREATE: libc::c_long = 28;
const XDP_PROGRAM: u32 = 6;
const ATTACH_XDP: u32 = 37;
const LIVE_FRAMES: u32 = 1 << 1;
/// Live frames that the kernel makes at once.
const BATCH: u32 = 64;

pub struct Program(OwnedFd);

/// A program on an interface, until it is dropped.
pub struct Attached(#[allow(dead_code, reason = "held")] OwnedFd);

/// The part of `union bpf_attr` for BPF_PROG_LOAD that is needed.
#[repr(C)]
struct Load {
    kind: u32,
    instructions: u32,
    code: u64,
    licence: u64,
    rest: [u64; 4],
}

/// The part for BPF_LINK_CREATE.
#[repr(C)]
struct Link {
    program: u32,
    target: u32,
    attach: u32,
    flags: u32,
    rest: [u64; 4],
}

/// The part for BPF_PROG_TEST_RUN.
#[derive(Default)]
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
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch: u32,
    rest: u32,
}

/// `struct xdp_md`.
#[derive(Default)]
#[repr(C)]
struct Context {
    data: u32,
    data_end: u32,
    data_meta: u32,
    ingress_ifindex: u32,
    rx_queue: u32,
    egress_ifindex: u32,
}

impl Program {
    pub fn load(code: &[u64]) -> Self {
        let instructions = code.len() as u32;
        let (code, licence) = (code.as_ptr() as u64, c"GPL".as_ptr() as u64);
        let mut load = Load { kind: XDP_PROGRAM, instructions, code, licence, rest: [0; 4] };
        let fd = bpf(BPF_PROG_LOAD, &mut load).unwrap();
        // SAFETY: a descriptor that bpf(2) has just made.
        Self(unsafe { OwnedFd::from_raw_fd(fd as i32) })
    }

    pub fn attach(&self, interface: u32) -> Attached {
        let program = self.0.as_raw_fd() as u32;
        let mut link = Link { program, target: interface, attach: ATTACH_XDP, flags: 0, rest: [0; 4] };
        let fd = bpf(BPF_LINK_CREATE, &mut link).unwrap();
        // SAFETY: a descriptor that bpf(2) has just made.
        Attached(unsafe { OwnedFd::from_raw_fd(fd as i32) })
    }

    /// Nanoseconds of one run of `repeat`.
    pub fn time(&self, frame: &[u8], repeat: u32) -> f64 {
        let mut out = vec![0u8; frame.len()];
        let mut run = TestRun {
            size_out: out.len() as u32,
            data_out: out.as_mut_ptr() as u64,
            ..self.test_run(frame, repeat)
        };
        bpf(BPF_PROG_TEST_RUN, &mut run).unwrap();
        f64::from(run.duration)
    }

    /// Gives `repeat` copies of a frame to the program as if they had come in by this interface, and does with each what it says.
    pub fn run_live(&self, interface: u32, frame: &[u8], repeat: u32) -> io::Result<()> {
        let context =
            Context { data_end: frame.len() as u32, ingress_ifindex: interface, ..Context::default() };
        let mut run = TestRun {
            context_size_in: size_of::<Context>() as u32,
            context_in: std::ptr::from_ref(&context) as u64,
            flags: LIVE_FRAMES,
            batch: BATCH,
            ..self.test_run(frame, repeat)
        };
        bpf(BPF_PROG_TEST_RUN, &mut run).map(drop)
    }

    fn test_run(&self, frame: &[u8], repeat: u32) -> TestRun {
        TestRun {
            program: self.0.as_raw_fd() as u32,
            size_in: frame.len() as u32,
            data_in: frame.as_ptr() as u64,
            repeat,
            ..TestRun::default()
        }
    }
}

pub fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the attributes are as long as said, laid out for the command, and what they point to is alive.
    let answer =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}
