//! What setting up an IKE SA costs a responder: `cargo bench -p portcullis-ike`.
//!
//! Endpoints of one process exchange their messages in memory, so no socket and no kernel network is in the figure. Only
//! the processor time of the thread while the responder works is counted: messages in, actions out, from the first octet
//! of IKE_SA_INIT to the Child SA in use. In the same run the key exchanges alone are timed, as the crates that compute
//! them do them, and these with all the HMAC, AEAD, SHA-1 and random numbers that the RFCs prescribe for a handshake.

#[path = "../../../xtask/src/bench/figure.rs"]
mod figure;
mod prescribed;
mod primitives;
mod responder;

use std::process::ExitCode;

use figure::{Better, Figure, Report};
use nix::time::{ClockId, clock_gettime};
use portcullis_ike::Provider;
use portcullis_ike::config::StartTransport;

/// The allocator of the daemon (docs/adr/0009-jemalloc.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const RUNS: usize = 9;
/// Handshakes that a gateway has to do in a second of processor time.
const GOAL_PER_SECOND: f64 = 3000.0;
/// What the protocol may add to its primitives, key exchanges and all else: the share of theirs that a handshake reaches.
const GOAL_OF_PRIMITIVES: f64 = 0.55;
const PROVIDERS: [(&str, Provider); 2] =
    [("aws-lc-rs", Provider::AwsLc), ("ring and ml-kem", Provider::Ring)];
const CLASSICAL: &str = "aes256gcm16-prfsha384-x25519";
const HYBRID: &str = "aes256gcm16-prfsha384-x25519-ke1_mlkem768";
const CASES: [(&str, &str, StartTransport); 3] = [
    ("x25519, psk, child, over UDP", CLASSICAL, StartTransport::Udp),
    ("x25519 + mlkem768, psk, child, over UDP", HYBRID, StartTransport::Udp),
    ("x25519 + mlkem768, psk, child, over TCP", HYBRID, StartTransport::Tcp),
];

fn main() -> ExitCode {
    let mut report = Report::begin();
    for (name, provider) in PROVIDERS {
        provider.install();
        for (case, proposal, transport) in CASES {
            let (mut handshakes, mut exchanges, mut all) = (Vec::new(), Vec::new(), Vec::new());
            let with_kem = proposal == HYBRID;
            for _ in 0..RUNS {
                let (per_second, lengths) = responder::handshakes_per_second(proposal, transport);
                handshakes.push(per_second);
                exchanges.push(primitives::exchanges_per_second(provider, with_kem));
                all.push(primitives::handshakes_per_second(provider, with_kem, &lengths));
            }
            let figure = |against, against_runs, goal: Option<f64>| Figure {
                suite: "ike",
                case: format!("{case}, by {name}"),
                unit: "handshakes/s",
                better: Better::Higher,
                runs: handshakes.clone(),
                against,
                against_runs,
                goal,
            };
            report.add(figure("limit for a CPU-second", vec![GOAL_PER_SECOND], Some(1.0)));
            report.add(figure("its bare key exchanges", exchanges, None));
            report.add(figure("its bare primitives", all, Some(GOAL_OF_PRIMITIVES)));
        }
    }
    report.finish()
}

/// Processor time of this thread so far, nanoseconds.
fn thread_time_ns() -> i64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("every thread has a clock");
    time.tv_sec() * 1_000_000_000 + time.tv_nsec()
}
