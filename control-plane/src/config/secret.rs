//! Where secrets come from. A secret never leaves this module but as a value that cannot be printed.

use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use portcullis_ike::config::Secret;
use zeroize::Zeroizing;

use super::field::{Field, Section};
use super::identity::hexadecimal;

/// The longest secret that is read, octets.
const MAX_SECRET: u64 = 4096;
/// RFC 7296 section 2.15 warns of weak shared keys; 20 octets that nobody can guess are its smallest PRF key.
const SHORT_SECRET: usize = 20;

/// What to do about secrets while reading a configuration.
#[derive(Clone, Debug)]
pub enum Secrets {
    /// Read them; systemd credentials are in this directory, if there is any.
    Read {
        /// `$CREDENTIALS_DIRECTORY`.
        credentials: Option<PathBuf>,
    },
    /// Check the keys that name them, not the files: for configurations of another host.
    Skip,
}

impl Secrets {
    /// Reads secrets where this process finds them.
    pub fn of_this_process() -> Self {
        Self::Read { credentials: std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from) }
    }

    /// Reads `secret_file` or `credential` of a section; `None` if neither is there or something is wrong.
    pub fn of(&self, section: &mut Section<'_>) -> Option<Secret> {
        self.named(section, "secret_file")
    }

    /// Like [`Secrets::of`], with a key of another name for the file.
    pub fn named(&self, section: &mut Section<'_>, file_key: &'static str) -> Option<Secret> {
        let (file, credential) = (section.get(file_key), section.get("credential"));
        let (field, path) = match (&file, &credential) {
            (Some(_), Some(credential)) => {
                return credential.refuse(format!("give {file_key} or credential, not both"));
            }
            (None, None) => return None,
            (Some(field), None) => (field, Some(PathBuf::from(field.text()?))),
            (None, Some(field)) => (field, self.credential(field.read(super::scalar::name_of_file)?)),
        };
        let Self::Read { .. } = self else { return Some(Secret::new(Vec::new())) };
        let Some(path) = path else {
            return field
                .refuse("there is no $CREDENTIALS_DIRECTORY: add LoadCredential= to the systemd unit");
        };
        if file.is_some() {
            refuse_public(field, &path)?;
        }
        match read(&path).and_then(decode) {
            Ok(octets) if octets.is_empty() => field.refuse(format!("{} is empty", path.display())),
            Ok(octets) => {
                if octets.len() < SHORT_SECRET {
                    field.warn(format!(
                        "the secret has {} octets; use {SHORT_SECRET} random ones or more (openssl rand -base64 32)",
                        octets.len()
                    ));
                }
                Some(Secret::new(octets))
            }
            Err(error) => field.refuse(format!("{}: {error}", path.display())),
        }
    }

    /// Files are read.
    pub fn are_read(&self) -> bool {
        matches!(self, Self::Read { .. })
    }

    fn credential(&self, name: String) -> Option<PathBuf> {
        match self {
            Self::Read { credentials } => credentials.as_ref().map(|directory| directory.join(name)),
            Self::Skip => None,
        }
    }
}

/// The secret in a file, for a command that reads no configuration.
///
/// # Errors
/// If anybody can read the file, it cannot be read here, or it holds no secret.
pub fn secret_in(path: &Path) -> io::Result<Secret> {
    if let Permissions::World(mode) = permissions(path)? {
        return Err(io::Error::other(format!("mode {mode:04o}: anybody could read it; chmod 600")));
    }
    let octets = read(path).and_then(decode)?;
    match octets.is_empty() {
        true => Err(io::Error::other("it is empty")),
        false => Ok(Secret::new(octets)),
    }
}

/// Reports a file that others than its owner can read; `None` if anybody can.
pub fn refuse_public(field: &Field<'_>, path: &Path) -> Option<()> {
    match permissions(path) {
        Ok(Permissions::Fine) => {}
        Ok(Permissions::Group) => field.warn(format!("{} is readable by its group", path.display())),
        Ok(Permissions::World(mode)) => {
            let path = path.display();
            return field
                .refuse(format!("{path} has mode {mode:04o}: anybody could read it; chmod 600 {path}"));
        }
        Err(error) => return field.refuse(format!("{}: {error}", path.display())),
    }
    Some(())
}

enum Permissions {
    Fine,
    Group,
    World(u32),
}

fn permissions(path: &Path) -> io::Result<Permissions> {
    let mode = std::fs::metadata(path)?.mode() & 0o7777;
    Ok(match mode {
        mode if mode & 0o006 != 0 => Permissions::World(mode),
        mode if mode & 0o060 != 0 => Permissions::Group,
        _ => Permissions::Fine,
    })
}

/// A secret that begins with `0x` is hexadecimal (RFC 7296 section 2.15); every other one is taken as it is.
fn decode(octets: Vec<u8>) -> io::Result<Vec<u8>> {
    let octets = Zeroizing::new(octets);
    match octets.strip_prefix(b"0x") {
        None => Ok(octets.to_vec()),
        Some(digits) => std::str::from_utf8(digits)
            .ok()
            .and_then(hexadecimal)
            .ok_or_else(|| io::Error::other("0x is followed by an even number of hexadecimal digits")),
    }
}

/// The content without the line end that editors add.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut octets = Zeroizing::new(Vec::with_capacity(MAX_SECRET as usize + 1));
    std::fs::File::open(path)?.take(MAX_SECRET + 1).read_to_end(&mut octets)?;
    if octets.len() as u64 > MAX_SECRET {
        return Err(io::Error::other(format!("a secret has at most {MAX_SECRET} octets")));
    }
    let end = octets.iter().rposition(|octet| !matches!(octet, b'\n' | b'\r')).map_or(0, |last| last + 1);
    Ok(octets.get(..end).unwrap_or_default().to_vec())
}
