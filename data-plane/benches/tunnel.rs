//! TCP flows through two data planes between two hosts: `cargo xtask bench tunnel`.
//!
//! Two gateways with static keys, in network namespaces; everything runs on this machine and shares its cores.

#[path = "../../xtask/src/bench/figure.rs"]
mod figure;
#[path = "../tests/gateway/mod.rs"]
mod gateway;
#[path = "../tests/tunnel/mod.rs"]
mod tunnel;

use std::process::ExitCode;

use portcullis_data_plane::sa::Carrier;

use tunnel::flows::tcp;
use tunnel::{TUN, Tunnel, XDP};

fn main() -> ExitCode {
    let what = std::env::args().nth(1).unwrap_or_default();
    let shape = if what == "xdp" { XDP } else { TUN };
    let tunnel = Tunnel::new(shape);
    if what == "ip" {
        tunnel.set_path(Carrier::Ip, false);
    }
    for flows in [1, 4, 1, 4] {
        println!("{flows} flows: {} Mbit/s", tcp(&tunnel.a.host, &tunnel.b.host, flows));
    }
    for side in [&tunnel.a, &tunnel.b] {
        println!("{}", side.drops());
        for worker in &side.plane.report().workers {
            println!("{worker:?}");
        }
    }
    ExitCode::SUCCESS
}
