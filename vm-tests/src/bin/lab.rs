//! Holds the topology open for work by hand, until it is interrupted: `lab [nat]`.

use anyhow::{Result, bail};
use portcullis_vm_tests::{Lab, Nat, cleanup};

fn main() -> Result<()> {
    cleanup::on_interrupt()?;
    let nat = match std::env::args().nth(1).as_deref() {
        None => Nat::None,
        Some("nat") => Nat::BeforeA,
        Some(other) => bail!("usage: lab [nat], not {other}"),
    };
    let lab = Lab::new(nat)?;
    for namespace in [&lab.host_a, &lab.gw_a, &lab.router, &lab.gw_b, &lab.host_b] {
        println!("nsenter --net={}", namespace.path().display());
    }
    println!("{} is up until interrupted", lab.instance.name());
    loop {
        std::thread::park();
    }
}
