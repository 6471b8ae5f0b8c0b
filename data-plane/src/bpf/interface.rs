//! One interface: its program attached and pinned, its sockets, its counters.

use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aya::maps::{MapData, PerCpuArray, XskMap};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::{XdpLink, XdpMode};
use aya::programs::{TestRun, TestRunOptions, TestRunResult, Xdp};
use aya::{Ebpf, Pod};
use portcullis_common::Verdict;
use portcullis_common::maps::{SOCKETS, VERDICTS};
use portcullis_common::verdict::Counter;

use super::error::chain;
use super::hook::{self, AttachMode};
use super::{BpfError, InterfacePlan, bpffs, log};

/// The program of an interface.
pub struct XdpInterface {
    plan: InterfacePlan,
    index: u32,
    link: PathBuf,
    program: &'static str,
    ebpf: Ebpf,
    sockets: XskMap<MapData>,
    verdicts: PerCpuArray<MapData, CounterValue>,
}

/// What [`super::XdpInstance`] has loaded.
pub(super) struct LoadedParts {
    pub plan: InterfacePlan,
    pub index: u32,
    pub directory: PathBuf,
    pub program: &'static str,
    pub ebpf: Ebpf,
}

/// Packets and octets by verdict, all CPUs together, since the program was loaded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerdictCounters([Counter; Verdict::COUNT]);

/// The map's value, in a type of this crate.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct CounterValue(Counter);

// SAFETY: two u64 without padding (`Counter` is `repr(C)`, its layout is pinned by a test): any bytes are a value.
unsafe impl Pod for CounterValue {}

impl XdpInterface {
    pub(super) fn new(parts: LoadedParts) -> Result<Self, BpfError> {
        let LoadedParts { plan, index, directory, program, mut ebpf } = parts;
        let sockets = XskMap::try_from(take(&mut ebpf, SOCKETS)?).map_err(|e| BpfError::map(SOCKETS, e))?;
        let verdicts =
            PerCpuArray::try_from(take(&mut ebpf, VERDICTS)?).map_err(|e| BpfError::map(VERDICTS, e))?;
        let link = directory.join("link");
        Ok(Self { plan, index, link, program, ebpf, sockets, verdicts })
    }

    /// Name of the interface.
    pub fn name(&self) -> &Arc<str> {
        &self.plan.name
    }

    /// Index of the interface.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// What was loaded for it.
    pub fn plan(&self) -> &InterfacePlan {
        &self.plan
    }

    /// Attaches the program in native mode, or, if that fails and `allow_generic` is set, in generic mode, and
    /// pins the link. A program that an earlier process of this instance left is replaced in one step, in the
    /// mode that it has, without a moment in which no program is attached.
    ///
    /// # Errors
    /// [`BpfError::HookHeld`] if another program is attached, [`BpfError::NoNativeMode`] if the driver refuses,
    /// [`BpfError::Refused`] if the kernel does too.
    pub fn attach(&mut self, allow_generic: bool) -> Result<AttachMode, BpfError> {
        let held = hook::query(&self.plan.name)?.program;
        if let Some((link, old)) = self.pinned_link()? {
            if let Some((id, mode)) = held
                && id == old
            {
                self.replace(link)?;
                return Ok(mode);
            }
            // Its interface is gone, or is another one of the same name.
            bpffs::remove(&self.link)?;
        }
        if let Some((id, _)) = held {
            return Err(self.held_by(id));
        }
        match self.attach_fresh(XdpMode::Driver) {
            Ok(()) => Ok(AttachMode::Native),
            Err(BpfError::NoNativeMode { .. }) if allow_generic => match self.attach_fresh(XdpMode::Skb) {
                Ok(()) => Ok(AttachMode::Generic),
                Err(BpfError::NoNativeMode { interface, cause }) => {
                    Err(BpfError::Refused { interface, cause })
                }
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// Packets of this receive queue go to this AF_XDP socket, which must be bound to the same queue.
    ///
    /// # Errors
    /// If the kernel refuses, such as for a queue beyond the map.
    pub fn set_socket(&mut self, queue: u32, socket: &impl AsFd) -> Result<(), BpfError> {
        self.sockets.set(queue, socket.as_fd().as_raw_fd(), 0).map_err(|error| BpfError::map(SOCKETS, error))
    }

    /// Packets of this receive queue go to no socket any more: what would have, is dropped as `no_worker`. The
    /// kernel does this by itself when the socket is closed.
    ///
    /// # Errors
    /// If the kernel refuses, such as for a queue without socket.
    pub fn clear_socket(&mut self, queue: u32) -> Result<(), BpfError> {
        self.sockets.unset(queue).map_err(|error| BpfError::map(SOCKETS, error))
    }

    /// Counters by verdict.
    ///
    /// # Errors
    /// If the kernel refuses to show them.
    pub fn verdicts(&self) -> Result<VerdictCounters, BpfError> {
        let mut sums = [Counter::default(); Verdict::COUNT];
        for (index, sum) in sums.iter_mut().enumerate() {
            let values =
                self.verdicts.get(&(index as u32), 0).map_err(|error| BpfError::map(VERDICTS, error))?;
            for CounterValue(value) in values.iter() {
                sum.packets = sum.packets.wrapping_add(value.packets);
                sum.bytes = sum.bytes.wrapping_add(value.bytes);
            }
        }
        Ok(VerdictCounters(sums))
    }

    /// Passes what the program logs on to `tracing`, until the returned task is aborted or the runtime ends.
    ///
    /// # Errors
    /// If the log cannot be read, or if called twice. Must be called inside a tokio runtime.
    pub fn forward_log(&mut self) -> Result<tokio::task::JoinHandle<()>, BpfError> {
        log::forward(&mut self.ebpf, self.plan.name.clone())
    }

    /// Runs the program once on a frame, without an interface, and returns the kernel's code for the verdict
    /// with the frame as the program left it (`BPF_PROG_TEST_RUN`). Counters count it.
    ///
    /// # Errors
    /// If the kernel refuses the run.
    pub fn test_run(&self, frame: &[u8]) -> Result<(u32, Vec<u8>), BpfError> {
        let mut out = vec![0; frame.len()];
        let result = self.run(frame, &mut out, 1)?;
        out.truncate(result.data_size_out as usize);
        Ok((result.return_value, out))
    }

    /// Runs the loaded program `repeat` times on a frame, and returns what one run took by the kernel's clock.
    ///
    /// # Errors
    /// If the kernel refuses the run.
    pub fn time_run(&self, frame: &[u8], repeat: u32) -> Result<Duration, BpfError> {
        self.run(frame, &mut vec![0; frame.len()], repeat).map(|result| result.duration)
    }

    fn run(&self, frame: &[u8], out: &mut [u8], repeat: u32) -> Result<TestRunResult, BpfError> {
        let refused = |error: &dyn std::error::Error| BpfError::Load {
            interface: self.plan.name.clone(),
            cause: chain(error),
        };
        let program: &Xdp = self
            .ebpf
            .program(self.program)
            .and_then(|program| program.try_into().ok())
            .ok_or_else(|| refused(&std::io::Error::other("no program")))?;
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.data_out = Some(out);
        options.repeat = repeat;
        program.test_run(options).map_err(|error| refused(&error))
    }

    /// The link that an earlier process left, with the id of its program.
    fn pinned_link(&self) -> Result<Option<(FdLink, u32)>, BpfError> {
        if !self.link.exists() {
            return Ok(None);
        }
        let failed =
            |error: &dyn std::error::Error| bpffs::at(&self.link)(std::io::Error::other(chain(error)));
        let link = FdLink::from(PinnedLink::from_pin(&self.link).map_err(|e| failed(&e))?);
        let program_id = link.info().map_err(|e| failed(&e))?.program_id();
        Ok(Some((link, program_id)))
    }

    fn replace(&mut self, link: FdLink) -> Result<(), BpfError> {
        let link = XdpLink::try_from(link).map_err(|error| self.refused(&error))?;
        let attached = {
            let program = self.xdp()?;
            program.attach_to_link(link).and_then(|id| program.take_link(id))
        };
        // Dropping our descriptor leaves the pin, which holds the program in place.
        attached.map(drop).map_err(|error| self.refused(&error))
    }

    fn attach_fresh(&mut self, mode: XdpMode) -> Result<(), BpfError> {
        let index = self.index;
        let attached = {
            let program = self.xdp()?;
            program.attach_to_if_index(index, mode).and_then(|id| program.take_link(id))
        };
        let link = match attached {
            Ok(link) => link,
            Err(error) => {
                // Somebody may have been faster.
                if let Some((id, _)) = hook::query(&self.plan.name)?.program {
                    return Err(self.held_by(id));
                }
                return Err(self.refused(&error));
            }
        };
        // Kernels without links attach in a way that ends with us, which must not be.
        let link = FdLink::try_from(link).map_err(|error| self.refused(&error))?;
        link.pin(&self.link)
            .map(drop)
            .map_err(|error| bpffs::at(&self.link)(std::io::Error::other(chain(&error))))
    }

    fn xdp(&mut self) -> Result<&mut Xdp, BpfError> {
        let interface = self.plan.name.clone();
        let name = self.program;
        self.ebpf
            .program_mut(name)
            .and_then(|program| program.try_into().ok())
            .ok_or(BpfError::Load { interface, cause: format!("the object has no program {name}") })
    }

    fn held_by(&self, id: u32) -> BpfError {
        BpfError::HookHeld { interface: self.plan.name.clone(), id, name: hook::program_name(id) }
    }

    fn refused(&self, error: &dyn std::error::Error) -> BpfError {
        BpfError::NoNativeMode { interface: self.plan.name.clone(), cause: chain(error) }
    }
}

impl VerdictCounters {
    /// The counter of a verdict.
    pub fn get(&self, verdict: Verdict) -> Counter {
        self.0.get(verdict as usize).copied().unwrap_or_default()
    }

    /// Every verdict with its counter.
    pub fn iter(&self) -> impl Iterator<Item = (Verdict, Counter)> + '_ {
        Verdict::ALL.iter().map(|verdict| (*verdict, self.get(*verdict)))
    }
}

/// Takes a map out of a loaded object.
pub(super) fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<aya::maps::Map, BpfError> {
    ebpf.take_map(name)
        .ok_or_else(|| BpfError::Map { map: name, cause: "the object has no such map".to_owned() })
}
