//! The units that ship, and what the daemon tells the service manager (systemd.unit(5), sd_notify(3)).
//!
//! No manager of its own is started here: one in namespaces over this machine's root file system would run this machine's
//! boot tasks, which empty `/tmp`. It needs a root file system of its own, as the virtual machines have.

use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use portcullis_vm_tests::{Pair, PairOptions};

use crate::{SOON, artefacts};

/// The manager's own opinion of the files that ship, with the built binary in the place they name.
#[test]
fn units_that_ship_are_valid() {
    let pair = Pair::new(PairOptions::USUAL, &artefacts()).unwrap();
    let artefacts = artefacts();
    let directory = pair.lab.instance.directory().join("units");
    std::fs::create_dir(&directory).unwrap();
    let binary = artefacts.binary.display().to_string();
    let mut units = Vec::new();
    for unit in ["portcullis.service", "portcullis-guard.service"] {
        let shipped = artefacts.config.join("../packaging").join(unit);
        let text = std::fs::read_to_string(&shipped).unwrap();
        assert!(text.contains("/usr/bin/portcullis"));
        let copy = directory.join(unit);
        std::fs::write(&copy, text.replace("/usr/bin/portcullis", &binary)).unwrap();
        units.push(copy);
    }
    let verified = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .args(&units)
        .output()
        .expect("systemd-analyze is installed by `cargo xtask setup`");
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success() && said.trim().is_empty(), "{said}");
}

#[test]
fn service_manager_hears_of_readiness_life_reload_and_end() {
    let mut pair = Pair::new(PairOptions::USUAL, &artefacts()).unwrap();
    let notify = pair.a.start_watched(Duration::from_secs(1)).unwrap();
    // Readiness was waited for; from now on a sign of life three times in each watchdog period.
    let process = || pair.a.process().unwrap();
    for _ in 0..3 {
        notify.wait_for(process(), SOON, "WATCHDOG=1").unwrap();
    }
    notify.wait_for(process(), SOON, "STATUS=0 of 1 connections up").unwrap();
    pair.a.signal(Signal::SIGHUP).unwrap();
    let reloading = notify.wait_for(process(), SOON, "RELOADING=1").unwrap();
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    notify.wait_for(process(), SOON, "READY=1").unwrap();
    pair.a.signal(Signal::SIGTERM).unwrap();
    notify.wait_for(process(), SOON, "STOPPING=1").unwrap();
    assert!(process().wait(SOON).is_some());
}

/// A daemon whose shards answer nothing gives no sign of life: that is what the manager restarts it for.
#[test]
fn stopped_daemon_gives_no_sign_of_life() {
    let mut pair = Pair::new(PairOptions::USUAL, &artefacts()).unwrap();
    let notify = pair.a.start_watched(Duration::from_secs(1)).unwrap();
    let process = pair.a.process().unwrap();
    notify.wait_for(process, SOON, "WATCHDOG=1").unwrap();
    process.freeze().unwrap();
    notify.discard();
    assert!(notify.wait_for(process, Duration::from_secs(2), "WATCHDOG=1").is_err());
    pair.a.signal(Signal::SIGCONT).unwrap();
    notify.wait_for(process, SOON, "WATCHDOG=1").unwrap();
}
