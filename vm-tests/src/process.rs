//! A program that runs beside us inside a namespace: its output by line, its end as an event, its removal.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use crate::cleanup::{Cleanup, guarded_by};
use crate::kernel::Kernel;
use crate::netns::Namespace;
use crate::wait::Event;

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// With this status.
    Status(i32),
    /// By this signal.
    Signal(i32),
}

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    seen: Arc<Event<Seen>>,
    _cleanup: Cleanup,
}

#[derive(Debug, Default)]
struct Seen {
    lines: VecDeque<String>,
    /// Lines that fell out of `lines`.
    forgotten: usize,
    exit: Option<Exit>,
}

impl Process {
    /// Lines of output that are kept.
    const KEPT_LINES: usize = 20_000;

    /// Starts `command` inside `namespace`, in a process group of its own, so that an interrupt from the
    /// terminal reaches us alone and clean-up has its order.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn start(namespace: &Namespace, command: &mut Command) -> Result<Self> {
        Self::start_on(Kernel::AsItIs, namespace, command)
    }

    /// Like [`Process::start`], as if on this kernel.
    ///
    /// # Errors
    /// Also if the kernel cannot pretend to be that one.
    pub fn start_on(kernel: Kernel, namespace: &Namespace, command: &mut Command) -> Result<Self> {
        Self::start_prepared(|| kernel.enter(), namespace, command)
    }

    /// Like [`Process::start`], from a thread that `prepare` has run on: the program inherits what that did to it.
    ///
    /// # Errors
    /// Also those of `prepare`.
    pub(crate) fn start_prepared(
        prepare: impl FnOnce() -> Result<()> + Send,
        namespace: &Namespace,
        command: &mut Command,
    ) -> Result<Self> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Self::spawn(prepare, namespace, command)
    }

    /// Like [`Process::start`], with the output in `log`, so that the program can outlive this process.
    ///
    /// # Errors
    /// Also if the file cannot be made.
    pub fn start_logging(namespace: &Namespace, command: &mut Command, log: &Path) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("creating {}", log.display()))?;
        command.stdout(file.try_clone()?).stderr(file);
        Self::spawn(|| Ok(()), namespace, command)
    }

    fn spawn(
        prepare: impl FnOnce() -> Result<()> + Send,
        namespace: &Namespace,
        command: &mut Command,
    ) -> Result<Self> {
        command.stdin(Stdio::null()).process_group(0);
        let (mut child, cleanup) = guarded_by(|| {
            // On a thread of its own, which ends with what restricts it.
            let child = namespace.enter(|| {
                prepare()?;
                anyhow::Ok(command.spawn()?)
            });
            let mut child = child.with_context(|| format!("starting {:?}", command.get_program()))?;
            let outputs = (child.stdout.take(), child.stderr.take());
            let child = Arc::new(Mutex::new(child));
            let undo = {
                let child = child.clone();
                move || end(&child)
            };
            anyhow::Ok(((child, outputs), undo))
        })?;
        let pid = Pid::from_raw(lock(&child.0).id().cast_signed());
        let seen = Arc::new(Event::new(Seen::default()));
        let (stdout, stderr) = &mut child.1;
        let readers = [
            stdout.take().map(|output| collect(seen.clone(), output)),
            stderr.take().map(|output| collect(seen.clone(), output)),
        ];
        std::thread::spawn({
            let seen = seen.clone();
            let child = child.0;
            move || {
                // The process is left for the lock holder to reap, so that its id cannot be reused meanwhile.
                while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)
                    == Err(nix::errno::Errno::EINTR)
                {}
                let status = lock(&child).wait();
                readers.into_iter().flatten().for_each(|reader| drop(reader.join()));
                let exit = status.map_or(Exit::Status(-1), |s| match s.signal() {
                    Some(signal) => Exit::Signal(signal),
                    None => Exit::Status(s.code().unwrap_or(-1)),
                });
                seen.update(|seen| seen.exit = Some(exit));
            }
        });
        Ok(Self { pid, seen, _cleanup: cleanup })
    }

    /// Its process id.
    pub fn id(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If the process has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        anyhow::ensure!(self.exit().is_none(), "process {} has ended", self.pid);
        kill(self.pid, signal).with_context(|| format!("sending {signal} to {}", self.pid))
    }

    /// Asks it to end, with SIGTERM.
    ///
    /// # Errors
    /// If it has ended.
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::SIGTERM)
    }

    /// Stops it with SIGSTOP and waits until every thread of it has stopped.
    ///
    /// # Errors
    /// If it has ended.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)?;
        loop {
            match waitid(Id::Pid(self.pid), WaitPidFlag::WSTOPPED | WaitPidFlag::WNOWAIT) {
                Err(nix::errno::Errno::EINTR) => {}
                outcome => return outcome.map(drop).context("waiting for a process to stop"),
            }
        }
    }

    /// Waits for its end; `None` if it still runs after `limit`.
    pub fn wait(&self, limit: Duration) -> Option<Exit> {
        self.seen.wait(limit, |seen| seen.exit)
    }

    /// How it ended, if it did.
    pub fn exit(&self) -> Option<Exit> {
        self.seen.read(|seen| seen.exit)
    }

    /// Waits for a line of output that `wanted` accepts; `None` if none came within `limit` or the process
    /// ended without it.
    pub fn wait_for_line(&self, limit: Duration, mut wanted: impl FnMut(&str) -> bool) -> Option<String> {
        let mut looked_at = 0;
        self.seen
            .wait(limit, |seen| {
                let start = looked_at - looked_at.min(seen.forgotten);
                let found = seen.lines.iter().skip(start).find(|line| wanted(line)).cloned();
                looked_at = seen.forgotten + seen.lines.len();
                match found {
                    Some(line) => Some(Some(line)),
                    None => seen.exit.map(|_| None),
                }
            })
            .flatten()
    }

    /// The last line of output so far that `wanted` accepts.
    pub fn last_line(&self, wanted: impl Fn(&str) -> bool) -> Option<String> {
        self.seen.read(|seen| seen.lines.iter().rev().find(|line| wanted(line)).cloned())
    }

    /// How many lines of output there were so far.
    pub fn lines(&self) -> usize {
        self.seen.read(|seen| seen.forgotten + seen.lines.len())
    }

    /// The output so far, standard output and standard error in the order they were read.
    pub fn output(&self) -> Vec<String> {
        self.seen.read(|seen| seen.lines.iter().cloned().collect())
    }

    /// Leaves it running when this value is dropped.
    pub fn keep(self) {
        self._cleanup.disarm();
    }
}

fn collect(seen: Arc<Event<Seen>>, output: impl Read + Send + 'static) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(|line| line.ok()) {
            let line = String::from_utf8_lossy(&line).into_owned();
            seen.update(|seen| {
                if seen.lines.len() == Process::KEPT_LINES {
                    seen.lines.pop_front();
                    seen.forgotten += 1;
                }
                seen.lines.push_back(line);
            });
        }
    })
}

fn end(child: &Mutex<Child>) {
    let mut child = lock(child);
    // An error means that it has ended, which is what we want.
    let _ = child.kill();
    let _ = child.wait();
}

fn lock(child: &Mutex<Child>) -> std::sync::MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}
