//! The root file system that a kernel starts with: programs with the libraries that they need, in the archive format that it
//! unpacks (newc, "Documentation/driver-api/early-userspace/buffer-format.rst" of its sources).

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;

/// An archive that grows.
#[derive(Default)]
pub struct Initramfs {
    archive: Vec<u8>,
    names: BTreeSet<String>,
}

impl Initramfs {
    /// A program, without what debuggers need, and its libraries where the linker looks for them.
    ///
    /// # Errors
    /// If it cannot be read, or a library is missing.
    pub fn program(&mut self, from: &Path, name: &str) -> Result<()> {
        let bare = tempfile_beside(from);
        let status =
            Command::new("strip").arg("-o").arg(&bare).arg(from).status().context("running strip")?;
        ensure!(status.success(), "strip {}: {status}", from.display());
        let added = self.file(&bare, name);
        fs::remove_file(&bare).with_context(|| format!("removing {}", bare.display()))?;
        added?;
        let output = Command::new("ldd").arg(from).output().context("running ldd")?;
        ensure!(output.status.success(), "ldd {}: {}", from.display(), output.status);
        let text = String::from_utf8_lossy(&output.stdout);
        for library in libraries(&text) {
            self.file(Path::new(library), library.trim_start_matches('/'))?;
        }
        Ok(())
    }

    /// A file under this name, with the directories above it.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn file(&mut self, from: &Path, name: &str) -> Result<()> {
        if !self.names.insert(name.to_owned()) {
            return Ok(());
        }
        let content = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
        for (place, _) in name.match_indices('/') {
            let directory = &name[..place];
            if self.names.insert(directory.to_owned()) {
                self.entry(directory, DIRECTORY, &[]);
            }
        }
        self.entry(name, PROGRAM, &content);
        Ok(())
    }

    /// The archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.archive
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        let inode = self.names.len() as u32;
        // inode, mode, owner, group, links, time, size, devices, length of the name, check
        let fields = [inode, mode, 0, 0, 1, 0, content.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
        self.archive.extend_from_slice(b"070701");
        for field in fields {
            self.archive.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.archive.extend_from_slice(name.as_bytes());
        self.archive.push(0);
        self.align();
        self.archive.extend_from_slice(content);
        self.align();
    }

    fn align(&mut self) {
        self.archive.resize(self.archive.len().next_multiple_of(4), 0);
    }
}

fn tempfile_beside(path: &Path) -> std::path::PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    std::env::temp_dir().join(format!("portcullis-{}-{name}", std::process::id()))
}

/// The paths in what ldd says.
fn libraries(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let line = line.trim();
        let path = line.split_once("=> ").map_or(line, |(_, path)| path);
        path.split(' ').next().filter(|path| path.starts_with('/'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_laid_out_as_the_kernel_reads_it() {
        let mut root = Initramfs::default();
        root.entry("a/b", PROGRAM, b"12345");
        let archive = root.archive;
        assert_eq!(archive.len(), 116 + 8, "header and name fill 114, content 5");
        assert_eq!(&archive[..14], b"07070100000000");
        assert_eq!(&archive[14..22], b"000081ed");
        assert_eq!(&archive[54..62], b"00000005");
        assert_eq!(&archive[94..102], b"00000004");
        assert_eq!(&archive[110..], [&b"a/b\0\0\0"[..], b"12345\0\0\0"].concat());
    }

    #[test]
    fn libraries_are_found_by_their_paths() {
        let text = "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x2)\n\t/lib64/ld.so (0x3)\n";
        assert_eq!(libraries(text).collect::<Vec<_>>(), ["/lib/x/libc.so.6", "/lib64/ld.so"]);
    }
}
