//! The guard: kernel policies that stop protected traffic in clear, whether this process lives or not
//! (transport policy, "Shut means shut").
//!
//! [`Guard`] keeps the kernel in step with a [`GuardSpec`] and puts back what others remove. The policies belong
//! to the kernel, not to the process: they outlive a crash, and [`restore`] brings them back at boot from the
//! file that every change writes first. Only [`release`] takes them away.
//!
//! What it leaves to others: XDP drops protected frames by itself where it runs; TUN devices are exempt by their
//! own settings (`tun`), our sockets by theirs (`sockets`).

mod counters;
mod keeper;
mod model;
mod nft;
mod persist;
mod range;
mod report;
mod spec;
mod xfrm;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, io};

pub use self::counters::GuardDrops;
pub use self::keeper::Guard;
pub use self::model::{
    ALLOW_PRIORITY, Action, DesiredPolicies, Direction, EGRESS_PRIORITY, PolicySelector, PolicyValue,
    RULE_PRIORITY, desired,
};
pub use self::persist::file;
pub use self::range::{AddressRange, Family, NotARange, PortMask, PortRange, Prefix};
pub use self::report::{GuardEvent, GuardState, Reconciled};
pub use self::spec::{GuardSpec, Pair, Rule, RuleAction};

use self::nft::{NftBackend, NftMonitor};
use self::xfrm::{XfrmBackend, XfrmMonitor};

/// What holds the guard in the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BackendKind {
    /// XFRM policies.
    Xfrm,
    /// An nftables table.
    Nftables,
    /// Nothing: this kernel has neither.
    Nothing,
}

/// Whose guard it is, and where it is remembered.
#[derive(Clone, Debug)]
pub struct GuardConfig {
    /// Name of this gateway; guards of other names are not touched.
    pub instance: Arc<str>,
    /// Directory of its state.
    pub state_dir: PathBuf,
    /// The only back end to use; `None` takes XFRM, and nftables where the kernel has no XFRM. With
    /// [`BackendKind::Nothing`] the guard is remembered and never installed: whoever starts it so refuses to protect.
    pub backend: Option<BackendKind>,
}

/// Why there is no guard, or not the one asked for.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// Neither back end works.
    #[error(
        "this kernel can hold no guard: XFRM: {xfrm}; nftables: {nftables}. Protected connections are refused; \
         enable CONFIG_XFRM_USER or nftables, and run with CAP_NET_ADMIN"
    )]
    NoBackend {
        /// What XFRM said.
        xfrm: io::Error,
        /// What nftables said.
        nftables: io::Error,
    },
    /// The back end that was asked for does not work.
    #[error("the guard's back end {backend} does not work: {error}")]
    Backend {
        /// Which.
        backend: BackendKind,
        /// What it said.
        error: io::Error,
    },
    /// The XFRM socket failed.
    #[error("reading or writing XFRM policies: {0}")]
    Xfrm(io::Error),
    /// The kernel refused a policy.
    #[error("the kernel refused guard policy {policy}: {error}")]
    Refused {
        /// The policy.
        policy: String,
        /// What the kernel said.
        error: io::Error,
    },
    /// `nft` failed.
    #[error("nftables guard: {0}")]
    Nftables(io::Error),
    /// The file could not be read or written.
    #[error("guard file {}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        error: io::Error,
    },
    /// The thread that keeps the guard could not be started.
    #[error("starting the guard's thread: {0}")]
    Thread(io::Error),
}

/// Puts back what the file remembers, for a boot that comes before the daemon and before the network. `None` when
/// there is no file, so that nothing is to be guarded.
///
/// # Errors
/// When the file cannot be read, or the kernel cannot hold the policies.
pub fn restore(config: &GuardConfig) -> Result<Option<(BackendKind, Reconciled)>, GuardError> {
    let Some(spec) = persist::load(&config.state_dir)? else { return Ok(None) };
    let mut backend = Backend::open(config)?;
    let reconciled = backend.reconcile(&spec)?;
    Ok(Some((backend.kind(), reconciled)))
}

/// The rules that protect something, as the file of this state directory remembers them; none when there is no file.
///
/// # Errors
/// When the file cannot be read.
pub fn remembered(state_dir: &Path) -> Result<Vec<Rule>, GuardError> {
    let rules = persist::load(state_dir)?.map(|spec| spec.rules).unwrap_or_default();
    Ok(rules.into_iter().filter(|rule| rule.action == RuleAction::Protect).collect())
}

/// Takes the guard of this instance away, from both back ends, and forgets it. This is the one way to let protected
/// traffic pass in clear: the caller sees to it that an operator asked, and that the audit log says so. The number of
/// policies removed.
///
/// # Errors
/// When the kernel refuses, or the file cannot be removed. The file goes last.
pub fn release(config: &GuardConfig) -> Result<usize, GuardError> {
    let mut removed = 0;
    match XfrmBackend::open(&config.instance) {
        Ok(mut xfrm) => removed += xfrm.reconcile(&DesiredPolicies::new())?.changed,
        Err(error) if config.backend == Some(BackendKind::Xfrm) => {
            return Err(GuardError::Backend { backend: BackendKind::Xfrm, error });
        }
        Err(_) => {}
    }
    match NftBackend::open(&config.instance) {
        Ok(nft) => removed += nft.remove()?,
        Err(error) if config.backend == Some(BackendKind::Nftables) => {
            return Err(GuardError::Backend { backend: BackendKind::Nftables, error });
        }
        Err(_) => {}
    }
    persist::forget(&config.state_dir)?;
    Ok(removed)
}

#[derive(Debug)]
enum Backend {
    Xfrm(XfrmBackend),
    Nftables(NftBackend),
    /// Neither works; holds nothing.
    Nothing,
}

#[derive(Debug)]
enum Monitor {
    Xfrm(XfrmMonitor),
    Nftables(NftMonitor),
}

impl Backend {
    fn open(config: &GuardConfig) -> Result<Self, GuardError> {
        let xfrm = || XfrmBackend::open(&config.instance).map(Self::Xfrm);
        let nftables = || NftBackend::open(&config.instance).map(Self::Nftables);
        match config.backend {
            Some(backend @ BackendKind::Xfrm) => {
                xfrm().map_err(|error| GuardError::Backend { backend, error })
            }
            Some(backend @ BackendKind::Nftables) => {
                nftables().map_err(|error| GuardError::Backend { backend, error })
            }
            Some(BackendKind::Nothing) => Ok(Self::Nothing),
            None => {
                xfrm().or_else(|xfrm| nftables().map_err(|nftables| GuardError::NoBackend { xfrm, nftables }))
            }
        }
    }

    const fn kind(&self) -> BackendKind {
        match self {
            Self::Xfrm(_) => BackendKind::Xfrm,
            Self::Nftables(_) => BackendKind::Nftables,
            Self::Nothing => BackendKind::Nothing,
        }
    }

    fn monitor(&self) -> Result<Option<Monitor>, GuardError> {
        match self {
            Self::Xfrm(xfrm) => xfrm.monitor().map(Monitor::Xfrm).map(Some).map_err(GuardError::Xfrm),
            Self::Nftables(_) => {
                NftMonitor::open().map(Monitor::Nftables).map(Some).map_err(GuardError::Nftables)
            }
            Self::Nothing => Ok(None),
        }
    }

    fn reconcile(&mut self, spec: &GuardSpec) -> Result<Reconciled, GuardError> {
        let desired = desired(spec);
        match self {
            Self::Xfrm(xfrm) => xfrm.reconcile(&desired),
            Self::Nftables(nft) => nft.reconcile(&desired, &spec.tun_interfaces),
            Self::Nothing => Ok(Reconciled::default()),
        }
    }

    fn drops(&self) -> io::Result<GuardDrops> {
        match self {
            Self::Xfrm(_) => counters::xfrm(),
            Self::Nftables(nft) => nft.drops(),
            Self::Nothing => Ok(GuardDrops::default()),
        }
    }
}

impl GuardConfig {
    /// The guard of the instance whose state is in `state_dir`, on whatever back end works.
    pub fn new(instance: impl Into<Arc<str>>, state_dir: impl AsRef<Path>) -> Self {
        Self { instance: instance.into(), state_dir: state_dir.as_ref().to_path_buf(), backend: None }
    }
}

impl fmt::Display for BackendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Xfrm => "xfrm",
            Self::Nftables => "nftables",
            Self::Nothing => "nothing",
        })
    }
}
