//! `cargo xtask`: everything that is done to this workspace, from setting a machine up to the demo.

mod bench;
mod build_ebpf;
mod check;
mod daemon;
mod demo;
mod fuzz;
mod kernels;
mod setup;
mod stages;
mod test;
mod workspace;

use anyhow::Context;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what is missing on this machine, pinned and cached under `target/`.
    Setup,
    /// Build the XDP programs.
    BuildEbpf,
    Demo(demo::Demo),
    Test(test::Test),
    Check(check::Check),
    Bench(bench::Bench),
    Fuzz(fuzz::Fuzz),
}

fn main() -> std::process::ExitCode {
    match interruptible() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn interruptible() -> anyhow::Result<()> {
    portcullis_vm_tests::cleanup::on_interrupt().context("handling signals")?;
    match Arguments::parse().task {
        Task::Setup => setup::run(),
        Task::BuildEbpf => build_ebpf::run().map(|object| println!("{}", object.display())),
        Task::Demo(demo) => demo.run(),
        Task::Test(test) => test.run(),
        Task::Check(check) => check.run(),
        Task::Bench(bench) => bench.run(),
        Task::Fuzz(fuzz) => fuzz.run(),
    }
}
