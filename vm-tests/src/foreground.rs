//! A program that runs in our place, its output on ours: an interrupt ends it and all that it started.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use crate::cleanup::guarded_by;
use crate::wait::until;

/// Runs `command` to its end, in a process group of its own.
///
/// # Errors
/// If it cannot be started.
pub fn run_in_foreground(command: &mut Command) -> Result<ExitStatus> {
    /// A demo inside removes its topologies first.
    const PATIENCE: Duration = Duration::from_secs(30);
    command.process_group(0);
    let ((child, group), _cleanup) = guarded_by(|| {
        let child = command.spawn().with_context(|| format!("starting {:?}", command.get_program()))?;
        let group = Pid::from_raw(child.id().cast_signed());
        let child = Arc::new(Mutex::new(child));
        let undo = {
            let child = child.clone();
            move || {
                let mut child = child.lock().unwrap_or_else(PoisonError::into_inner);
                if !matches!(child.try_wait(), Ok(None)) {
                    return;
                }
                // Errors mean that the group has ended, which is what we want.
                let _ = killpg(group, Signal::SIGTERM);
                until(PATIENCE, || child.try_wait().ok().flatten());
                let _ = killpg(group, Signal::SIGKILL);
            }
        };
        anyhow::Ok(((child, group), undo))
    })?;
    // Not reaped here: the lock's holder does that, so that the group's number cannot be reused meanwhile.
    while waitid(Id::Pid(group), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(nix::errno::Errno::EINTR)
    {
    }
    let status = child.lock().unwrap_or_else(PoisonError::into_inner).wait();
    status.context("waiting for a program")
}
