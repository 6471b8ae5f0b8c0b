//! `cargo xtask fuzz`: coverage-guided fuzzing with the compiler of the workspace. `fuzz/` is built with the instrumentation that
//! libFuzzer reads; what it finds interesting is kept under `target/fuzz/corpus`, what breaks a target under `target/fuzz/crashes`.
//! The seeds in `fuzz/seeds` are replayed by the unit tests as well.

use std::fs;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::workspace;

/// An input that takes longer is an error.
const SLOWEST_INPUT: Duration = Duration::from_secs(20);
/// A target that takes more memory is an error.
const MOST_MEMORY_MIB: u32 = 2048;
/// What `-fsanitize=fuzzer-no-link` means to a C compiler: counters for edges, a table of their places, and comparisons.
const INSTRUMENTATION: [&str; 8] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cdebug-assertions=on",
    "-Coverflow-checks=on",
    "-Ccodegen-units=1",
];

/// Fuzzes the parsers, the ESP engine, the worker and whole IKE endpoints.
#[derive(Args, Debug)]
pub struct Fuzz {
    /// Only these targets; all of `fuzz/targets` otherwise.
    targets: Vec<String>,
    /// How long each target runs.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

impl Fuzz {
    /// Runs them, one after the other.
    ///
    /// # Errors
    /// Naming the input of every target that broke, or what could not be built.
    pub fn run(self) -> Result<()> {
        let known = targets()?;
        if let Some(unknown) = self.targets.iter().find(|target| !known.contains(target)) {
            bail!("there is no target {unknown}; there are {}", known.join(", "));
        }
        let wanted = if self.targets.is_empty() { known } else { self.targets };
        fuzz(&wanted, Duration::from_secs(self.seconds))
    }
}

/// Runs every target, for so long in all.
///
/// # Errors
/// As [`Fuzz::run`].
pub fn run_all(time: Duration) -> Result<()> {
    let targets = targets()?;
    let each = time / u32::try_from(targets.len().max(1)).unwrap_or(u32::MAX);
    fuzz(&targets, each.max(Duration::from_secs(1)))
}

fn fuzz(targets: &[String], each: Duration) -> Result<()> {
    let host = host()?;
    build(&host)?;
    let mut broken = Vec::new();
    for target in targets {
        match run_target(&host, target, each) {
            Ok(figures) => println!("{target:<14} {figures}"),
            Err(error) => broken.push(format!("{error:#}")),
        }
    }
    if broken.is_empty() { Ok(()) } else { bail!("{}", broken.join("\n")) }
}

fn run_target(host: &str, target: &str, time: Duration) -> Result<String> {
    let [corpus, crashes] = ["corpus", "crashes"].map(|kind| directory().join(kind).join(target));
    for directory in [&corpus, &crashes] {
        fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    }
    let log = directory().join(format!("{target}.log"));
    let output = File::create(&log).with_context(|| format!("writing {}", log.display()))?;
    let mut command = Command::new(directory().join("build").join(host).join("release").join(target));
    command
        .arg(&corpus)
        .arg(workspace::root().join("fuzz/seeds").join(target))
        .arg(format!("-max_total_time={}", time.as_secs()))
        .arg(format!("-timeout={}", SLOWEST_INPUT.as_secs()))
        .arg(format!("-rss_limit_mb={MOST_MEMORY_MIB}"))
        .arg(format!("-artifact_prefix={}/", crashes.display()))
        .arg("-print_final_stats=1")
        .env("RUST_BACKTRACE", "1")
        .stdout(output.try_clone().context("sharing the log")?)
        .stderr(output);
    let status = portcullis_vm_tests::run_in_foreground(&mut command)?;
    let said = fs::read_to_string(&log).with_context(|| format!("reading {}", log.display()))?;
    if !status.success() {
        let written = said.lines().find_map(|line| line.split_once("Test unit written to "));
        let input = written.map_or("no input was written", |(_, file)| file);
        bail!("{target}: {status}: {input}; see {}", log.display());
    }
    let last = |name: &str| {
        let found = said.lines().rev().find_map(|line| line.split_once(name));
        found.and_then(|(_, rest)| rest.split_whitespace().next()).unwrap_or("?").to_owned()
    };
    Ok(format!(
        "{:>9} inputs in {} s, {} edges, {} kept as new",
        last("stat::number_of_executed_units:"),
        time.as_secs(),
        last(" cov: "),
        last("stat::new_units_added:"),
    ))
}

/// Every target, by its file.
fn targets() -> Result<Vec<String>> {
    let directory = workspace::root().join("fuzz/targets");
    let entries = fs::read_dir(&directory).with_context(|| format!("reading {}", directory.display()))?;
    let mut targets: Vec<_> = entries
        .filter_map(|entry| Some(Path::new(&entry.ok()?.file_name()).file_stem()?.to_str()?.to_owned()))
        .collect();
    targets.sort();
    ensure!(!targets.is_empty(), "no targets in {}", directory.display());
    Ok(targets)
}

/// All targets at once. Naming the host as the target keeps the instrumentation out of build scripts and macros.
fn build(host: &str) -> Result<()> {
    let mut command = workspace::cargo();
    command
        .current_dir(workspace::root().join("fuzz"))
        .args(["build", "--release", "--quiet", "--locked", "--bins", "--target", host])
        // The instrumentation is a pass of LLVM, which the stable compiler runs but does not promise.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", INSTRUMENTATION.join(" "))
        .env("CARGO_TARGET_DIR", directory().join("build"))
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    workspace::run(&mut command).context("building the fuzz targets")
}

/// The machine that the compiler runs on, as it names it.
fn host() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("asking rustc for its host")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc names no host")
}

fn directory() -> PathBuf {
    workspace::root().join("target/fuzz")
}
