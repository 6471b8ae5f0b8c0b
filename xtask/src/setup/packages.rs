//! Debian packages with the programs that the build, the tests and the demo run.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::apt;

struct Tool {
    program: &'static str,
    package: &'static str,
    why: &'static str,
}

const TOOLS: &[Tool] = &[
    Tool { program: "make", package: "make", why: "builds the daemon's allocator" },
    Tool { program: "ip", package: "iproute2", why: "makes the namespaces and links of the laboratory" },
    Tool { program: "ping", package: "iputils-ping", why: "a gateway's own traffic, sent by nobody of ours" },
    Tool { program: "nft", package: "nftables", why: "the laboratory's NAT and filters" },
    Tool { program: "ethtool", package: "ethtool", why: "queues and offloads of the laboratory's links" },
    Tool { program: "bpftool", package: "bpftool", why: "dumps every map in the search for key material" },
    Tool { program: "systemd-analyze", package: "systemd", why: "its own opinion of the units that ship" },
    Tool { program: "curl", package: "curl", why: "asks the control API as another program would" },
    Tool { program: "openssl", package: "openssl", why: "makes the certificate of the control API" },
    Tool { program: "python3", package: "python3-venv", why: "runs what tests the control API" },
    Tool { program: "mmdebstrap", package: "mmdebstrap", why: "makes the root file system of strongSwan" },
    Tool {
        program: "qemu-system-x86_64",
        package: "qemu-system-x86",
        why: "runs the kernels of other releases",
    },
    Tool { program: "xz", package: "xz-utils", why: "unpacks modules of those kernels" },
    Tool { program: "tshark", package: "tshark", why: "a decoder that is not ours reads what we sent" },
];

/// Installs what is missing, if this is Debian and we are root.
///
/// Without root it only says what is missing: what runs these programs needs root itself.
pub fn install() -> Result<()> {
    let missing: Vec<_> = TOOLS.iter().filter(|tool| find(tool.program).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for tool in &missing {
        println!("missing: {} (package {}): {}", tool.program, tool.package, tool.why);
    }
    let packages: Vec<_> = missing.iter().map(|tool| tool.package).collect();
    let remedy = format!("install them as root: apt-get install {}", packages.join(" "));
    if !is_root() {
        println!("kernel tests, scenarios and the demo need them; {remedy}");
        return Ok(());
    }
    if find("apt-get").is_none() {
        bail!("{} missing and no apt-get here; install what provides them", packages.join(", "));
    }
    println!("installing {}", packages.join(" "));
    // A fresh machine has no lists yet, an old one has lists of packages that are gone.
    if let Err(error) = apt::install(&packages).or_else(|_| {
        apt::update()?;
        apt::install(&packages)
    }) {
        bail!("{error:#}; {remedy}");
    }
    Ok(())
}

/// Where a program is, administrators' directories included.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let administration = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(administration).map(|d| d.join(program)).find(|p| p.is_file())
}

pub fn is_root() -> bool {
    // The owner of our own entry in /proc is our effective user.
    use std::os::unix::fs::MetadataExt;
    Path::new("/proc/self").metadata().is_ok_and(|m| m.uid() == 0)
}
