//! The XDP programs in the kernels of Debian's releases: each is started in a virtual machine with nothing but the tests, which
//! the first process runs (`vm-tests/src/bin/guest.rs`).

mod initramfs;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::setup::kernels::{self, Kernel};
use crate::{build_ebpf, workspace};
use initramfs::Initramfs;

/// Tests of the data plane that need no kernel but a bare one.
const TESTS: [&str; 2] = ["xdp_verdicts", "xdp_attach"];
/// What tests run.
const PROGRAMS: [&str; 1] = ["ip"];
/// What the guest says last.
const PASSED: &str = "guest: every test passed";
/// A kernel that has not said it by then hangs.
const PATIENCE: Duration = Duration::from_secs(150);

/// Runs the tests in every kernel.
///
/// # Errors
/// Naming the kernels in which a program does not load or a test fails.
pub fn run() -> Result<()> {
    let kernels = kernels::installed()?;
    let object = build_ebpf::run()?;
    let programs = build()?;
    let directory = workspace::root().join("target/kernels");
    fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
    let mut failed = Vec::new();
    for kernel in &kernels {
        if let Err(error) = run_in(kernel, &programs, &object, &directory) {
            failed.push(format!("{}: {error:#}", kernel.suite));
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("{}", failed.join("\n")) }
}

/// What is built to run in the guest.
struct Programs {
    guest: PathBuf,
    tests: Vec<PathBuf>,
}

fn run_in(kernel: &Kernel, programs: &Programs, object: &Path, directory: &Path) -> Result<()> {
    let mut root = Initramfs::default();
    root.program(&programs.guest, "init")?;
    for test in &programs.tests {
        let name = test.file_name().unwrap_or_default().to_string_lossy();
        root.program(test, &format!("tests/{name}"))?;
    }
    for program in PROGRAMS {
        let path = find(program)?;
        root.program(&path, &format!("usr/bin/{program}"))?;
    }
    root.file(object, "portcullis-xdp.o")?;
    for module in &kernel.modules {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        root.file(module, &format!("modules/{name}"))?;
    }
    let image = directory.join(format!("{}.initramfs", kernel.suite));
    fs::write(&image, root.finish()).with_context(|| format!("writing {}", image.display()))?;
    let log = directory.join(format!("{}.log", kernel.suite));
    let file = fs::File::create(&log).with_context(|| format!("writing {}", log.display()))?;
    let start = Instant::now();
    let mut machine = Command::new("timeout");
    machine
        .arg(PATIENCE.as_secs().to_string())
        .args(["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "1024"])
        .args(["-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot", "-kernel"])
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(&image)
        .args(["-append", "console=ttyS0 panic=-1 quiet"])
        .stdout(file.try_clone().context("sharing the log")?)
        .stderr(file);
    let status = portcullis_vm_tests::run_in_foreground(&mut machine)?;
    let said = fs::read_to_string(&log).with_context(|| format!("reading {}", log.display()))?;
    let lines =
        |start: &str| said.lines().filter(|line| line.starts_with(start)).collect::<Vec<_>>().join("; ");
    println!(
        "{:<10} {:>5.1} s  {}; {}",
        kernel.suite,
        start.elapsed().as_secs_f64(),
        lines("guest: kernel"),
        lines("test result:")
    );
    ensure!(said.contains(PASSED), "{status}, {}; see {}", lines("guest:"), log.display());
    Ok(())
}

/// Builds the first process and the tests.
fn build() -> Result<Programs> {
    let guest = built(&["build", "--package", "portcullis-vm-tests", "--bin", "guest"])?;
    let mut arguments =
        vec!["test", "--no-run", "--package", "portcullis-data-plane", "--features", "root-tests"];
    arguments.extend(TESTS.iter().flat_map(|test| ["--test", *test]));
    let tests = built(&arguments)?;
    let [guest] =
        <[PathBuf; 1]>::try_from(guest).map_err(|found| anyhow::anyhow!("cargo built {found:?}"))?;
    ensure!(tests.len() == TESTS.len(), "cargo built {tests:?}");
    Ok(Programs { guest, tests })
}

/// The programs that a call of cargo builds.
fn built(arguments: &[&str]) -> Result<Vec<PathBuf>> {
    let mut cargo = workspace::cargo();
    let output = cargo
        .args(arguments)
        .args(["--quiet", "--message-format", "json"])
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("running cargo")?;
    ensure!(output.status.success(), "cargo {}: {}", arguments.join(" "), output.status);
    let messages = String::from_utf8_lossy(&output.stdout);
    let executable = |line: &str| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    };
    Ok(messages.lines().filter_map(executable).collect())
}

fn find(program: &str) -> Result<PathBuf> {
    let places = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"].map(|place| Path::new(place).join(program));
    places.into_iter().find(|path| path.is_file()).with_context(|| format!("{program} is not installed"))
}
