//! What setting up an IKE SA costs a responder: `cargo bench -p portcullis-ike`.
//!
//! Endpoints of one process exchange their messages in memory, so no socket and no kernel network is in the figure. Only
//! the processor time of the thread while the responder works is counted: messages in, actions out, from the first octet
//! of IKE_SA_INIT to the Child SA in use. In the same run the key exchanges alone are timed, as the crates that compute
//! them do them.

#[path = "../../../xtask/src/bench/figure.rs"]
mod figure;
mod primitives;
mod responder;

use std::process::ExitCode;

use figure::{Better, Figure, Report};
use nix::time::{ClockId, clock_gettime};
use portcullis_ike::config::StartTransport;

const RUNS: usize = 9;
/// Handshakes that a gateway has to do in a second of processor time.
const GOAL_PER_SECOND: f64 = 3000.0;
const CASES: [(&str, StartTransport); 2] = [
    ("x25519 + mlkem768, psk, child, over TCP", StartTransport::Tcp),
    ("x25519 + mlkem768, psk, child, over UDP", StartTransport::Udp),
];

fn main() -> ExitCode {
    let mut report = Report::begin();
    for (case, transport) in CASES {
        let (mut handshakes, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            handshakes.push(responder::handshakes_per_second(transport));
            bare.push(primitives::handshakes_per_second());
        }
        let figure = |against, against_runs, goal| Figure {
            suite: "ike",
            case: case.to_owned(),
            unit: "handshakes/s",
            better: Better::Higher,
            runs: handshakes.clone(),
            against,
            against_runs,
            goal,
        };
        report.add(figure("limit for a CPU-second", vec![GOAL_PER_SECOND], Some(1.0)));
        report.add(figure("bare key exchanges of ring and ml-kem", bare, None));
    }
    report.finish()
}

/// Processor time of this thread so far, nanoseconds.
fn thread_time_ns() -> i64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("every thread has a clock");
    time.tv_sec() * 1_000_000_000 + time.tv_nsec()
}
