//! The BPF file system: what is pinned there outlives us.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aya::maps::{Array, Map, MapData};
use portcullis_common::maps::{KEY_RECORD_LEN, KEYS, KeyRecord};

use super::BpfError;

const MOUNT_POINT: &CStr = c"/sys/fs/bpf";
const ROOT: &str = "/sys/fs/bpf/portcullis";

/// Removes everything that an instance has pinned: programs are detached, maps freed, keys wiped. It is no
/// error if there is nothing.
///
/// # Errors
/// [`BpfError::BpfFileSystem`] when something cannot be removed.
pub fn release(instance: &str) -> Result<(), BpfError> {
    let directory = directory_of(instance);
    if !directory.exists() {
        return Ok(());
    }
    wipe_pinned_keys(&directory);
    fs::remove_dir_all(&directory).map_err(at(&directory))
}

/// The directory of an instance, made if it is not there, on a file system that is mounted if it is not.
pub(super) fn prepare(instance: &str) -> Result<PathBuf, BpfError> {
    mount()?;
    let directory = directory_of(instance);
    fs::create_dir_all(&directory).map_err(at(&directory))?;
    Ok(directory)
}

/// Removes the maps that an earlier process left: they may be of another size or version, and no SA of them is
/// known any more. A program that is still attached keeps its own until it is replaced.
pub(super) fn remove_maps(directory: &Path, names: &[&str]) -> Result<(), BpfError> {
    wipe_pinned_keys(directory);
    for name in names {
        remove(&directory.join(name))?;
    }
    Ok(())
}

/// Removes a pin if it is there.
pub(super) fn remove(path: &Path) -> Result<(), BpfError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path)(error)),
        _ => Ok(()),
    }
}

/// The name of an interface or instance as a file name here: dots are reserved in this file system.
pub(super) fn file_name(name: &str) -> String {
    name.replace('%', "%25").replace('.', "%2E").replace('/', "%2F")
}

/// Says where in the file system an error came up.
pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> BpfError + '_ {
    |source| BpfError::BpfFileSystem { path: path.to_owned(), source }
}

fn directory_of(instance: &str) -> PathBuf {
    Path::new(ROOT).join(file_name(instance))
}

fn mount() -> Result<(), BpfError> {
    const BPF_FS_MAGIC: libc::c_ulong = 0xcafe_4a11;
    let path = Path::new("/sys/fs/bpf");
    // SAFETY: all-zero bytes are a valid statfs.
    let mut status: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: a C string and a buffer of the right type, both alive during the call.
    if unsafe { libc::statfs(MOUNT_POINT.as_ptr(), &raw mut status) } == 0
        && status.f_type as libc::c_ulong == BPF_FS_MAGIC
    {
        return Ok(());
    }
    let kind = c"bpf";
    // SAFETY: three C strings and no data, alive during the call.
    let outcome =
        unsafe { libc::mount(kind.as_ptr(), MOUNT_POINT.as_ptr(), kind.as_ptr(), 0, std::ptr::null()) };
    if outcome == 0 { Ok(()) } else { Err(at(path)(io::Error::last_os_error())) }
}

/// Key material is never left in memory that the kernel hands to the next who asks.
fn wipe_pinned_keys(directory: &Path) {
    let path = directory.join(KEYS);
    if !path.exists() {
        return;
    }
    let wiped = MapData::from_pin(&path).and_then(Map::from_map_data).and_then(|map| {
        let mut keys = Array::<_, KeyRecord>::try_from(map)?;
        (0..keys.len()).try_for_each(|index| keys.set(index, [0; KEY_RECORD_LEN], 0))
    });
    if let Err(error) = wiped {
        tracing::warn!(path = %path.display(), %error, "the keys of an earlier process could not be wiped");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_dots_and_slashes_are_files_here() {
        assert_eq!(file_name("eth0.100"), "eth0%2E100");
        assert_eq!(file_name("a/../b%"), "a%2F%2E%2E%2Fb%25");
        assert_eq!(directory_of("gw-a"), Path::new("/sys/fs/bpf/portcullis/gw-a"));
    }
}
