//! `cargo xtask test`: every rung of the ladder, the cheapest first, with the time each took.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use portcullis_vm_tests::Artefacts;

use crate::stages::Stages;
use crate::{check, daemon, fuzz, kernels, setup, workspace};

/// How long all fuzz targets together run, building not counted.
const FUZZING: Duration = Duration::from_secs(60);

/// Runs all tests, or some of the stages.
#[derive(Args, Debug)]
pub struct Test {
    /// Only these stages, in their usual order. Without root those that need it are left out, and the run says so.
    #[arg(value_enum)]
    stages: Vec<Stage>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
enum Stage {
    /// Formatting, lints, dependencies.
    Check,
    /// Unit tests, vectors, properties, simulated network: stable Rust alone.
    Unit,
    /// A minute of fuzzing, over all targets.
    Fuzz,
    /// XDP programs, rings, guard, in the running kernel.
    Kernel,
    /// XDP programs in the kernels of Debian's releases, in a virtual machine.
    Kernels,
    /// Real gateways in network namespaces.
    Scenarios,
    /// The demo, on AF_XDP and on TUN.
    Demo,
}

impl Test {
    /// Runs them.
    ///
    /// # Errors
    /// Naming every stage that failed.
    pub fn run(self) -> Result<()> {
        let wanted = |stage| self.stages.is_empty() || self.stages.contains(&stage);
        let mut stages = Stages::default();
        stages.run("setup", setup::run);
        if wanted(Stage::Check) {
            check::run_stages(&mut stages);
        }
        if wanted(Stage::Unit) {
            stages.run("unit tests", || {
                workspace::run(workspace::cargo().args(["test", "--workspace", "--no-fail-fast"]))
            });
        }
        if wanted(Stage::Fuzz) {
            stages.run("fuzz", || fuzz::run_all(FUZZING));
        }
        if wanted(Stage::Kernels) {
            stages.run("kernels", kernels::run);
        }
        if [Stage::Kernel, Stage::Scenarios, Stage::Demo].into_iter().any(wanted) {
            match stages.run("build", || as_root().and_then(|()| daemon::build())) {
                Some(artefacts) => {
                    if wanted(Stage::Kernel) {
                        stages.run("kernel tests", || kernel(&artefacts));
                    }
                    if wanted(Stage::Scenarios) {
                        stages.run("scenarios", || scenarios(&artefacts));
                    }
                    if wanted(Stage::Demo) {
                        stages.run("demo xdp", || demo("xdp"));
                        stages.run("demo tun", || demo("tun"));
                    }
                }
                None => println!("without a build there are no kernel tests, scenarios and demo"),
            }
        }
        stages.close()
    }
}

fn as_root() -> Result<()> {
    let status = std::fs::read_to_string("/proc/self/status").context("reading our user id")?;
    let effective = status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().nth(1));
    anyhow::ensure!(effective == Some("0"), "kernel tests, scenarios and demo need root");
    Ok(())
}

fn kernel(artefacts: &Artefacts) -> Result<()> {
    workspace::run(with_artefacts(artefacts).args([
        "test",
        "--package",
        "portcullis-data-plane",
        "--features",
        "root-tests",
        "--no-fail-fast",
    ]))
}

fn scenarios(artefacts: &Artefacts) -> Result<()> {
    // At most two at once: each runs two gateways, and this may be a machine with two cores.
    workspace::run(with_artefacts(artefacts).args([
        "test",
        "--package",
        "portcullis-vm-tests",
        "--features",
        "root-tests",
        "--no-fail-fast",
        "--",
        "--test-threads=2",
    ]))
}

fn demo(data_plane: &str) -> Result<()> {
    // A process of its own: its clean-up is checked from outside.
    let program = std::env::current_exe().context("finding this program")?;
    let mut command = Command::new(program);
    workspace::run(command.args(["demo", "--data-plane", data_plane]).current_dir(workspace::root()))
}

fn with_artefacts(artefacts: &Artefacts) -> Command {
    let mut command = workspace::cargo();
    command.env(Artefacts::BINARY, &artefacts.binary).env(Artefacts::XDP_OBJECT, &artefacts.xdp_object);
    command.env(Artefacts::SCHEMATHESIS, setup::schemathesis::program());
    command.env(Artefacts::STRONGSWAN, setup::strongswan::root());
    command
}
