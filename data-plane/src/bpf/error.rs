//! What can go wrong with XDP programs and maps, each with its remedy.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// An error of the kernel's BPF side.
#[derive(Debug, thiserror::Error)]
pub enum BpfError {
    /// The object with the programs was not found.
    #[error(
        "no XDP programs: looked for {}; set PORTCULLIS_XDP_OBJECT or `xdp_object`, or build them with `cargo xtask build-ebpf`",
        list(.searched)
    )]
    ObjectMissing {
        /// Where we looked.
        searched: Vec<PathBuf>,
    },
    /// The object is there and cannot be read.
    #[error("reading the XDP programs from {}: {source}", path.display())]
    ObjectUnreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The BPF file system, which keeps programs attached when we are gone, cannot be used.
    #[error(
        "{}: {source}; mount it as root: mount -t bpf bpf /sys/fs/bpf (inside a namespace use `nsenter --net`, `ip netns exec` hides it)",
        path.display()
    )]
    BpfFileSystem {
        /// The path at which it failed.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel refused a program or map.
    #[error(
        "interface {interface}: the kernel refuses the XDP program: {cause}; `data_plane.mode: tun` works without XDP"
    )]
    Load {
        /// For which interface.
        interface: Arc<str>,
        /// The kernel's words, with those of the verifier.
        cause: String,
    },
    /// We lack a privilege.
    #[error(
        "interface {interface}: no privilege for XDP; run as root or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
    )]
    NoPrivilege {
        /// For which interface.
        interface: Arc<str>,
    },
    /// There is no such interface.
    #[error("no interface {interface}; create it or correct its name in the configuration")]
    NoInterface {
        /// Its name.
        interface: Arc<str>,
    },
    /// Someone else's program is attached.
    #[error(
        "interface {interface}: the XDP hook is held by program id {id} ({name}); detach it (`ip link set {interface} xdp off`, or stop what attached it), or use `data_plane.mode: tun`, which works without XDP"
    )]
    HookHeld {
        /// The interface.
        interface: Arc<str>,
        /// The kernel's id of that program.
        id: u32,
        /// Its name.
        name: String,
    },
    /// The driver has no native XDP for this program, or refuses it as the interface is set up.
    #[error("interface {interface}: the driver refuses XDP in native mode: {cause}")]
    NoNativeMode {
        /// The interface.
        interface: Arc<str>,
        /// The kernel's words.
        cause: String,
    },
    /// Neither the driver nor the kernel's network stack takes a program on this interface.
    #[error(
        "interface {interface}: XDP cannot be attached, in native mode or in generic: {cause}; `data_plane.mode: tun` works without XDP"
    )]
    Refused {
        /// The interface.
        interface: Arc<str>,
        /// The kernel's words.
        cause: String,
    },
    /// A map operation failed.
    #[error("map {map}: {cause}")]
    Map {
        /// The map's name.
        map: &'static str,
        /// The kernel's words.
        cause: String,
    },
    /// The kernel does not tell about interfaces.
    #[error("asking the kernel about interface {interface}: {source}")]
    Query {
        /// The interface.
        interface: Arc<str>,
        /// Why.
        source: io::Error,
    },
}

impl BpfError {
    /// A failed map operation, with all that the kernel said.
    pub(super) fn map(map: &'static str, error: impl std::error::Error) -> Self {
        Self::Map { map, cause: chain(&error) }
    }
}

/// An error with the errors below it, none said twice.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(error) = below {
        let words = error.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        below = error.source();
    }
    text
}

/// The number of the system call's error at the bottom of `error`, if there is one.
pub(super) fn os_error(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut error = Some(error);
    while let Some(this) = error {
        if let Some(code) = this.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return Some(code);
        }
        error = this.source();
    }
    None
}

fn list(paths: &[PathBuf]) -> String {
    let names: Vec<_> = paths.iter().map(|p| p.display().to_string()).collect();
    names.join(", ")
}
