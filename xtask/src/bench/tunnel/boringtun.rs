//! boringtun at both ends, set up over its configuration socket (WireGuard's cross-platform interface).

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use portcullis_vm_tests::{Lab, Nat, Process, Side, until};

use super::Contender;

pub const NAME: &str = "boringtun";
const PORT: u16 = 51820;
/// What fits a link of 1500 octets, as `wg-quick` has it.
const MTU: &str = "1420";
const LIMIT: Duration = Duration::from_secs(10);
/// RFC 7748 section 6.1: private and public key of either end.
const KEYS: [(&str, &str); 2] = [
    (
        "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
        "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
    ),
    (
        "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
        "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
    ),
];

/// Starts both and the tunnel.
///
/// # Errors
/// If they do not come up.
pub fn start(program: &Path) -> Result<Contender> {
    let lab = Lab::new(Nat::None)?;
    let mut processes = Vec::new();
    for side in [Side::A, Side::B] {
        processes.push(start_one(program, &lab, side)?);
    }
    let ids = processes.iter().map(Process::id).collect();
    Ok(Contender::new(NAME, lab, ids, processes))
}

fn start_one(program: &Path, lab: &Lab, side: Side) -> Result<Process> {
    let namespace = lab.gateway(side);
    // The socket's directory is the same for all: the name has to be nobody else's.
    let interface = format!("pb{}{}", std::process::id(), if side == Side::A { 'a' } else { 'b' });
    let mut command = Command::new(program);
    command.args(["--foreground", "--disable-drop-privileges", &interface]);
    let process = Process::start(namespace, &mut command)?;
    let socket = PathBuf::from(format!("/var/run/wireguard/{interface}.sock"));
    let mut stream = until(LIMIT, || UnixStream::connect(&socket).ok())
        .with_context(|| format!("no {}: {}", socket.display(), process.output().join("\n")))?;
    let (own, peer) = match side {
        Side::A => (KEYS[0].0, KEYS[1].1),
        Side::B => (KEYS[1].0, KEYS[0].1),
    };
    let remote = side.other();
    let inner = remote.inner().iter().map(|prefix| format!("allowed_ip={prefix}\n")).collect::<String>();
    let order = format!(
        "set=1\nprivate_key={own}\nlisten_port={PORT}\npublic_key={peer}\nendpoint={}:{PORT}\n{inner}\n",
        remote.wan().0
    );
    stream.write_all(order.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    anyhow::ensure!(answer.trim() == "errno=0", "boringtun says {answer:?}");
    namespace.ip(&["link", "set", &interface, "mtu", MTU, "up"])?;
    for prefix in remote.inner() {
        namespace.ip(&["route", "replace", prefix, "dev", &interface])?;
    }
    Ok(process)
}
