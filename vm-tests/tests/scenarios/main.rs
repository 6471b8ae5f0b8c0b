//! Scenarios: real gateways, real packets, judged from outside. One module each, its description at its head.
#![cfg(feature = "root-tests")]

mod dissected;
mod guard;
mod keys_hidden;
mod refusals;
mod refusals_at_start;
mod restarts;
mod sizes;
mod starts;

use std::net::IpAddr;
use std::time::Duration;

use portcullis_vm_tests::{Artefacts, DataPlaneMode, Lab, Pair, PairOptions, Ping, Side};

/// How long a gateway may take for what is due at once, on a busy machine.
const SOON: Duration = Duration::from_secs(20);

fn artefacts() -> Artefacts {
    Artefacts::from_environment().unwrap()
}

fn up(mode: DataPlaneMode) -> Pair {
    Pair::up(PairOptions { mode, ..PairOptions::USUAL }, &artefacts()).unwrap()
}

/// Requests of both families from both hosts, with little patience; how many were answered, of 40.
fn knock(lab: &Lab) -> u32 {
    let mut answered = 0;
    for side in [Side::A, Side::B] {
        let (v4, v6) = side.other().host();
        for destination in [IpAddr::from(v4), v6.into()] {
            let ping = Ping { timeout: Duration::from_millis(100), ..Ping::to(destination) };
            answered += ping.run(lab.host(side)).unwrap().answered;
        }
    }
    answered
}

/// Waits until a ping from host-a to host-b is answered.
fn wait_answered(lab: &Lab) {
    let ping = Ping { count: 1, timeout: Duration::from_millis(200), ..Ping::to(Side::B.host().0) };
    portcullis_vm_tests::until(SOON, || (ping.run(&lab.host_a).unwrap().answered == 1).then_some(()))
        .expect("an answer to a ping");
}
