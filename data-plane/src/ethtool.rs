//! What the driver of an interface says of itself.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A command of linux/ethtool.h as the kernel reads and answers it.
///
/// # Safety
/// A type with a fixed layout that begins with the command and is as long as the kernel takes it for this command.
unsafe trait Command {}

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Default)]
struct Channels {
    command: u32,
    limits: [u32; 4],
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    version: [u8; 32],
    firmware: [u8; 32],
    bus: [u8; 32],
    expansion_rom: [u8; 32],
    reserved: [u8; 12],
    lengths: [u32; 5],
}

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

// SAFETY: the kernel's structures, field by field; GCHANNELS fills this one.
unsafe impl Command for Channels {}
// SAFETY: as above, for GDRVINFO.
unsafe impl Command for DriverInfo {}
// SAFETY: as above, for GGRO.
unsafe impl Command for Value {}

/// Receive queues in use, at least 1; 1 where the driver does not tell.
///
/// # Errors
/// If there is no such interface.
pub fn receive_queues(interface: &str) -> io::Result<u32> {
    const ETHTOOL_GCHANNELS: u32 = 0x3c;
    let mut channels = Channels { command: ETHTOOL_GCHANNELS, ..Channels::default() };
    match ask(interface, &mut channels) {
        Ok(()) => Ok((channels.rx + channels.combined).max(1)),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(1),
        Err(error) => Err(error),
    }
}

/// The name of the driver.
///
/// # Errors
/// If there is no such interface, or no driver that tells.
pub fn driver(interface: &str) -> io::Result<String> {
    const ETHTOOL_GDRVINFO: u32 = 0x03;
    // SAFETY: integers, for which all zero is a value.
    let mut info: DriverInfo = unsafe { std::mem::zeroed() };
    info.command = ETHTOOL_GDRVINFO;
    ask(interface, &mut info)?;
    let name = CStr::from_bytes_until_nul(&info.driver).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok(name.to_string_lossy().into_owned())
}

/// True if the kernel joins what arrives here (generic receive offload).
///
/// # Errors
/// If there is no such interface.
pub fn joins_received(interface: &str) -> io::Result<bool> {
    const ETHTOOL_GGRO: u32 = 0x2b;
    let mut value = Value { command: ETHTOOL_GGRO, data: 0 };
    ask(interface, &mut value)?;
    Ok(value.data != 0)
}

fn ask<C: Command>(interface: &str, command: &mut C) -> io::Result<()> {
    // SAFETY: no memory is passed.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: integers and unions of them, for which all zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let room = request.ifr_name.len() - 1;
    request.ifr_name.iter_mut().zip(interface.bytes()).take(room).for_each(|(to, b)| *to = b as libc::c_char);
    request.ifr_ifru.ifru_data = std::ptr::from_mut(command).cast();
    // SAFETY: the kernel reads the request and writes the command behind its pointer, which both live on and which is as
    // long as `Command` promises.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as libc::Ioctl, &raw mut request) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_does_not_exist_is_an_error() {
        assert!(receive_queues("no-such-if").is_err());
        assert!(driver("no-such-if").is_err());
        assert!(joins_received("no-such-if").is_err());
    }

    #[test]
    fn a_driver_that_does_not_tell_has_one_queue() {
        assert_eq!(receive_queues("lo").unwrap(), 1);
    }

    #[test]
    fn the_loopback_interface_joins_what_it_receives() {
        assert!(joins_received("lo").unwrap());
    }
}
