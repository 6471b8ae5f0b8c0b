//! Both XDP programs, run by the kernel on one frame at a time (`BPF_PROG_TEST_RUN`): every verdict, its
//! counter, and the frame untouched.

#[path = "xdp_verdicts/bench.rs"]
mod bench;
#[path = "xdp_verdicts/frames.rs"]
mod frames;
#[path = "xdp_verdicts/lan.rs"]
mod lan;
#[path = "xdp_verdicts/limits.rs"]
mod limits;
#[path = "xdp_verdicts/wan.rs"]
mod wan;
