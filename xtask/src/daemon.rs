//! The daemon as demo and scenarios run it: release build, XDP programs, example configuration.

use anyhow::Result;
use portcullis_vm_tests::Artefacts;

use crate::{build_ebpf, setup, workspace};

/// Sets the machine up, builds the daemon and its XDP programs, and says where they are; or takes those that the
/// environment names, as scenarios do ([`Artefacts::from_environment`]).
///
/// # Errors
/// If something that is needed is missing and could not be installed, or a build fails.
pub fn build() -> Result<Artefacts> {
    if let Ok(artefacts) = Artefacts::from_environment() {
        println!("using {} and {}", artefacts.binary.display(), artefacts.xdp_object.display());
        return Ok(artefacts);
    }
    setup::gateway()?;
    let xdp_object = build_ebpf::run()?;
    println!("building the daemon");
    workspace::run(workspace::cargo().args(["build", "--release", "--package", "portcullis-control-plane"]))?;
    let binary = workspace::target_directory()?.join("release/portcullis");
    anyhow::ensure!(binary.is_file(), "the build did not leave {}", binary.display());
    Ok(Artefacts { binary, xdp_object, config: workspace::root().join("config") })
}
