//! What must not be left behind: a list of actions that undo, run when their owner is dropped or, newest
//! first, when the process is interrupted.
//!
//! Making a thing and registering its removal is one step under one lock ([`guarded`]), so that an interrupt
//! finds either both or neither. An action must not own a [`Cleanup`] itself: it runs under the same lock.

use std::io;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

type Action = Box<dyn FnOnce() + Send>;

static ACTIONS: Mutex<Actions> = Mutex::new(Actions { next: 0, list: Vec::new() });

/// Removes something when dropped, unless [`Cleanup::disarm`] was called.
#[derive(Debug)]
#[must_use = "dropping it removes what it stands for at once"]
pub struct Cleanup {
    id: u64,
}

/// Runs `make` and registers the action that undoes it, such that no interrupt falls between the two.
///
/// The action also runs when `make` fails: it must accept that what it removes is missing or half made.
///
/// # Errors
/// Those of `make`.
pub fn guarded<T, E>(
    undo: impl FnOnce() + Send + 'static,
    make: impl FnOnce() -> Result<T, E>,
) -> Result<(T, Cleanup), E> {
    let mut actions = lock();
    match make() {
        Ok(made) => Ok((made, actions.push(Box::new(undo)))),
        Err(e) => {
            undo();
            Err(e)
        }
    }
}

/// Like [`guarded`], for an action that needs what `make` returns.
///
/// # Errors
/// Those of `make`; nothing is registered then.
pub fn guarded_by<T, E, U: FnOnce() + Send + 'static>(
    make: impl FnOnce() -> Result<(T, U), E>,
) -> Result<(T, Cleanup), E> {
    let mut actions = lock();
    let (made, undo) = make()?;
    Ok((made, actions.push(Box::new(undo))))
}

/// Makes SIGINT, SIGTERM and SIGHUP run every registered action, newest first, then
/// [`Instance::sweep`](crate::Instance::sweep), and end the process with status 128 + signal number.
///
/// The signals are handled, not blocked: a mask would be inherited by the programs we start, and none of them would
/// see a SIGTERM.
///
/// # Errors
/// If the kernel refuses to set a handler.
pub fn on_interrupt() -> io::Result<()> {
    static STARTED: Once = Once::new();
    let mut result = Ok(());
    STARTED.call_once(|| result = start());
    result
}

fn start() -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    std::thread::Builder::new().name("interrupt".to_owned()).spawn(move || {
        let Some(signal) = signals.forever().next() else { return };
        // The lock is kept until the process ends: nothing new is made meanwhile.
        let mut actions = lock();
        eprintln!("\nsignal {signal}: removing what was set up");
        actions.run_all();
        // What test binaries left that ended with the same signal.
        crate::Instance::sweep();
        std::process::exit(128 + signal);
    })?;
    Ok(())
}

impl Cleanup {
    /// Leaves what it stands for in place.
    pub fn disarm(self) {
        drop(lock().take(self.id));
    }
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        // Run under the lock: an interrupt waits for it instead of ending the process half way.
        let mut actions = lock();
        if let Some(action) = actions.take(self.id) {
            action();
        }
    }
}

struct Actions {
    next: u64,
    list: Vec<(u64, Action)>,
}

impl Actions {
    fn push(&mut self, action: Action) -> Cleanup {
        let id = self.next;
        self.next += 1;
        self.list.push((id, action));
        Cleanup { id }
    }

    fn take(&mut self, id: u64) -> Option<Action> {
        let position = self.list.iter().position(|(i, _)| *i == id)?;
        Some(self.list.remove(position).1)
    }

    fn run_all(&mut self) {
        while let Some((_, action)) = self.list.pop() {
            action();
        }
    }
}

fn lock() -> MutexGuard<'static, Actions> {
    ACTIONS.lock().unwrap_or_else(PoisonError::into_inner)
}
