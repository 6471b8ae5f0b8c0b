//! The programs of one gateway: one copy for each interface, over maps that they share.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aya::EbpfLoader;
use aya::programs::Xdp;
use portcullis_common::limit::Limits;
use portcullis_common::maps::{
    FINAL_DISCARD, KEYS, LAN_PROGRAM, LIMITS, PER_INTERFACE, REDIRECT, SHARED, STEER, WAN_PROGRAM,
};

use super::error::{chain, os_error};
use super::interface::LoadedParts;
use super::limiter::LimitsValue;
use super::{BpfError, SharedMaps, XdpInterface, bpffs, hook, log};
use crate::config::{OpeningLimits, Role};

/// Where packets for the worker go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Steering {
    /// To the AF_XDP socket of their queue.
    Redirect,
    /// Into the kernel, to our sockets and TUN.
    Kernel,
}

/// What is loaded for an interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InterfacePlan {
    /// Its name.
    pub name: Arc<str>,
    /// What is behind it.
    pub role: Role,
    /// Where packets for the worker go.
    pub steering: Steering,
    /// A destination that no policy covers is dropped (RFC 4301 section 4.4.1). Only for [`Role::Lan`].
    pub protected: bool,
}

/// The XDP side of a gateway.
pub struct XdpInstance {
    directory: PathBuf,
    object: Vec<u8>,
    slots: u32,
    limits: Limits,
    shared: Option<SharedMaps>,
}

impl XdpInstance {
    /// Makes ready to load the programs in `object` for an SA table of `slots` slots, with these limits for what begins an
    /// IKE SA; who shares a bucket is drawn anew.
    ///
    /// Maps of an earlier process are wiped and unpinned; its programs stay attached, over maps of their own.
    ///
    /// # Errors
    /// If the object cannot be read, the BPF file system cannot be used or the kernel has no random numbers.
    pub fn open(instance: &str, object: &Path, slots: u32, limits: &OpeningLimits) -> Result<Self, BpfError> {
        // aya parses at any alignment; the bytes are kept because each interface gets its own copy.
        let object = std::fs::read(object)
            .map_err(|source| BpfError::ObjectUnreadable { path: object.to_owned(), source })?;
        let directory = bpffs::prepare(instance)?;
        bpffs::remove_maps(&directory, SHARED)?;
        let mut secret = [0; 16];
        getrandom::fill(&mut secret).map_err(|error| BpfError::map(LIMITS, std::io::Error::other(error)))?;
        let limits = limits.with_secret(secret);
        Ok(Self { directory, object, slots, limits, shared: None })
    }

    /// Loads the program for an interface, not yet attached.
    ///
    /// # Errors
    /// If there is no such interface, or the kernel refuses the program.
    pub fn load(&mut self, plan: &InterfacePlan) -> Result<XdpInterface, BpfError> {
        let index = hook::query(&plan.name)?.index;
        let directory = self.directory.join(bpffs::file_name(&plan.name));
        std::fs::create_dir_all(&directory).map_err(bpffs::at(&directory))?;
        bpffs::remove_maps(&directory, PER_INTERFACE)?;

        let redirect = u8::from(plan.steering == Steering::Redirect);
        let final_discard = u8::from(plan.protected);
        let log_level = log::level();
        let limits = LimitsValue(self.limits);
        let mut loader = EbpfLoader::new();
        loader
            .override_global(REDIRECT, &redirect, true)
            .override_global(FINAL_DISCARD, &final_discard, true)
            .override_global(LIMITS, &limits, true)
            .override_global(aya_log::LEVEL, &log_level, true)
            .map_max_entries(STEER, self.slots)
            .map_max_entries(KEYS, self.slots.saturating_mul(2));
        for name in SHARED {
            loader.map_pin_path(name, self.directory.join(name));
        }
        for name in PER_INTERFACE {
            loader.map_pin_path(name, directory.join(name));
        }
        let refused = |error: &(dyn std::error::Error + 'static)| match os_error(error) {
            Some(libc::EPERM) => BpfError::NoPrivilege { interface: plan.name.clone() },
            _ => BpfError::Load { interface: plan.name.clone(), cause: chain(error) },
        };
        let mut ebpf = loader.load(&self.object).map_err(|error| refused(&error))?;
        let program = match plan.role {
            Role::Wan => WAN_PROGRAM,
            Role::Lan => LAN_PROGRAM,
        };
        let missing = || BpfError::Load {
            interface: plan.name.clone(),
            cause: format!("the object has no program {program}"),
        };
        let xdp: &mut Xdp = ebpf.program_mut(program).and_then(|p| p.try_into().ok()).ok_or_else(missing)?;
        xdp.load().map_err(|error| refused(&error))?;

        if self.shared.is_none() {
            self.shared = Some(SharedMaps::take(&mut ebpf, self.limits)?);
        }
        XdpInterface::new(LoadedParts { plan: plan.clone(), index, directory, program, ebpf })
    }

    /// The maps that all interfaces share; `None` until the first is loaded.
    pub fn shared(&mut self) -> Option<&mut SharedMaps> {
        self.shared.as_mut()
    }

    /// Detaches programs of this instance from interfaces that are not in `keep`: the configuration no longer
    /// names them.
    ///
    /// # Errors
    /// If a pin cannot be removed.
    pub fn retain(&self, keep: &[Arc<str>]) -> Result<(), BpfError> {
        let kept: Vec<_> = keep.iter().map(|name| bpffs::file_name(name)).collect();
        let entries = std::fs::read_dir(&self.directory).map_err(bpffs::at(&self.directory))?;
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()) {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if !kept.contains(&name) {
                std::fs::remove_dir_all(&path).map_err(bpffs::at(&path))?;
            }
        }
        Ok(())
    }
}
