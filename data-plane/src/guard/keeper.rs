//! Keeps the kernel in step with the wanted guard, whoever else edits its policies.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{
    Backend, BackendKind, GuardConfig, GuardError, GuardEvent, GuardSpec, GuardState, Monitor, persist,
};

/// Notifications tell of every change; this finds what no notification told.
const AUDIT_INTERVAL: Duration = Duration::from_secs(30);
/// How soon a failed repair is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// A guard that is kept. Dropping it stops the keeping, never the guard.
#[derive(Debug)]
pub struct Guard {
    shared: Arc<Mutex<Shared>>,
    config: GuardConfig,
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    backend: Backend,
    spec: GuardSpec,
    installed: bool,
    policies: usize,
    restores: u64,
}

impl Guard {
    /// Installs `spec` in place of whatever guard this instance had, remembers it, and keeps it in the network namespace
    /// of the calling thread. `events` runs on the keeper's thread.
    ///
    /// # Errors
    /// When the file cannot be written or the kernel cannot hold the policies: then nothing may be protected by this
    /// gateway, and nothing of an older guard has been removed.
    pub fn start(
        config: GuardConfig,
        spec: GuardSpec,
        events: impl Fn(GuardEvent) + Send + 'static,
    ) -> Result<Self, GuardError> {
        let backend = Backend::open(&config)?;
        // Before the first comparison, so that nothing can be removed unseen after it.
        let monitor = backend.monitor()?;
        let mut shared =
            Shared { backend, spec: GuardSpec::default(), installed: false, policies: 0, restores: 0 };
        shared.set(&config, spec)?;
        let shared = Arc::new(Mutex::new(shared));
        let stop = eventfd().map_err(GuardError::Thread)?;
        let thread = if let Some(monitor) = monitor {
            let (shared, stop) = (shared.clone(), stop.try_clone().map_err(GuardError::Thread)?);
            let keep = move || keep(&shared, monitor, stop.as_fd(), &events);
            let thread = std::thread::Builder::new().name("guard".into()).spawn(keep);
            Some(thread.map_err(GuardError::Thread)?)
        } else {
            None
        };
        Ok(Self { shared, config, stop, thread })
    }

    /// Replaces what is guarded: remembered first, then added, then removed.
    ///
    /// # Errors
    /// When the file cannot be written: nothing has changed. When the kernel refuses: it holds what it held, and
    /// perhaps some of the new policies.
    pub fn set(&self, spec: GuardSpec) -> Result<(), GuardError> {
        lock(&self.shared).set(&self.config, spec)
    }

    /// Changes what is guarded, as [`Guard::set`] does, when the host's addresses or TUN devices have changed.
    ///
    /// # Errors
    /// As [`Guard::set`].
    pub fn update(&self, change: impl FnOnce(&mut GuardSpec)) -> Result<(), GuardError> {
        let mut shared = lock(&self.shared);
        let mut spec = shared.spec.clone();
        change(&mut spec);
        if spec == shared.spec {
            return Ok(());
        }
        shared.set(&self.config, spec)
    }

    /// How it stands.
    pub fn state(&self) -> GuardState {
        let shared = lock(&self.shared);
        GuardState {
            installed: shared.installed,
            backend: shared.backend.kind(),
            policies: shared.policies,
            restores: shared.restores,
            drops: shared.backend.drops().unwrap_or_default(),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let one = 1_u64.to_ne_bytes();
        // SAFETY: the kernel reads the eight bytes of a live array.
        unsafe { libc::write(self.stop.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        if let Some(thread) = self.thread.take() {
            // A keeper that panicked has nothing more to say.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn set(&mut self, config: &GuardConfig, spec: GuardSpec) -> Result<(), GuardError> {
        persist::store(&config.state_dir, &spec)?;
        self.spec = spec;
        self.reconcile().map(|_| ())
    }

    /// The number of policies that had to be touched.
    fn reconcile(&mut self) -> Result<usize, GuardError> {
        let reconciled = self.backend.reconcile(&self.spec);
        self.installed = reconciled.is_ok() && self.backend.kind() != BackendKind::Nothing;
        let reconciled = reconciled?;
        self.policies = reconciled.installed;
        Ok(reconciled.changed)
    }

    fn repair(&mut self) -> Option<GuardEvent> {
        let was_installed = self.installed;
        match self.reconcile() {
            Ok(0) => None,
            Ok(changed) => {
                self.restores += 1;
                Some(GuardEvent::Restored { changed })
            }
            // Said once, not at every attempt.
            Err(error) => was_installed.then(|| GuardEvent::Failed { error: error.to_string() }),
        }
    }
}

fn keep(shared: &Mutex<Shared>, mut monitor: Monitor, stop: BorrowedFd<'_>, events: &impl Fn(GuardEvent)) {
    let mut timeout = AUDIT_INTERVAL;
    loop {
        let notified = match wait(monitor.as_fd(), stop, timeout) {
            Wake::Stopped => return,
            Wake::Notified => monitor.take(),
            Wake::TimedOut => true,
        };
        if !notified {
            continue;
        }
        let (event, installed) = {
            let mut shared = lock(shared);
            (shared.repair(), shared.installed)
        };
        timeout = if installed { AUDIT_INTERVAL } else { RETRY_INTERVAL };
        if let Some(event) = event {
            events(event);
        }
    }
}

enum Wake {
    Stopped,
    Notified,
    TimedOut,
}

fn wait(monitor: BorrowedFd<'_>, stop: BorrowedFd<'_>, timeout: Duration) -> Wake {
    let mut fds =
        [monitor, stop].map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 });
    let timeout_ms = timeout.as_millis() as i32;
    // SAFETY: the array of two lives for the whole call.
    let ready = unsafe { libc::poll(fds.as_mut_ptr(), 2, timeout_ms) };
    if fds[1].revents != 0 {
        Wake::Stopped
    } else if ready > 0 {
        Wake::Notified
    } else {
        Wake::TimedOut
    }
}

fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no pointers are passed.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The state is consistent after every step, also one that panicked.
fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Monitor {
    fn take(&mut self) -> bool {
        match self {
            Self::Xfrm(monitor) => monitor.take(),
            Self::Nftables(monitor) => monitor.take(),
        }
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Xfrm(monitor) => monitor.as_fd(),
            Self::Nftables(monitor) => monitor.as_fd(),
        }
    }
}
