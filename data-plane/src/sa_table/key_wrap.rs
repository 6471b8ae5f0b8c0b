//! The secret under which key material lies in the `keys` array.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use portcullis_esp::Algorithm;
use portcullis_esp::aead::{ExpandedKey, NONCE_LEN};
use zeroize::Zeroizing;

use super::memory::memfd;

const NAME: &CStr = c"portcullis-key-wrap";
const SECRET_LEN: usize = 32;
/// Octets of the ICV behind a wrapped text.
pub(super) const ICV_LEN: usize = Algorithm::ICV_LEN;

/// Wraps and unwraps with AES-256-GCM under a secret that is new in every process and never in a map.
pub(super) struct KeyWrap {
    key: ExpandedKey,
    /// Numbers already used as nonces.
    used: AtomicU64,
    /// Sealed: nobody, this process included, can change or resize it.
    _secret: OwnedFd,
}

impl KeyWrap {
    /// Draws a secret and puts it into a sealed anonymous file.
    pub(super) fn generate() -> io::Result<Self> {
        let mut secret = Zeroizing::new([0; SECRET_LEN]);
        getrandom::fill(&mut *secret).map_err(io::Error::other)?;
        let mut file = File::from(memfd(NAME, libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING)?);
        file.write_all(&*secret)?;
        seal(&file)?;
        Self::from_sealed(file)
    }

    fn from_sealed(mut file: File) -> io::Result<Self> {
        let mut secret = Zeroizing::new([0; SECRET_LEN]);
        file.rewind()?;
        file.read_exact(&mut *secret)?;
        let key = ExpandedKey::new(Algorithm::Aes256Gcm16, &*secret).map_err(io::Error::other)?;
        Ok(Self { key, used: AtomicU64::new(0), _secret: file.into() })
    }

    /// Encrypts `text` in place for the place that `context` names; returns the number that unwraps it and
    /// the ICV. `None`, and `text` must not be used, if the provider refuses it.
    pub(super) fn wrap(&self, context: &[u8], text: &mut [u8]) -> Option<(u64, [u8; ICV_LEN])> {
        let number = self.used.fetch_add(1, Ordering::Relaxed) + 1;
        let mut icv = [0; ICV_LEN];
        self.key.seal(nonce(number), context, text, &mut icv).ok()?;
        Some((number, icv))
    }

    /// Decrypts a text with its ICV in place; false if it was changed or is another place's.
    #[must_use]
    pub(super) fn unwrap(&self, number: u64, context: &[u8], text_and_icv: &mut [u8]) -> bool {
        self.key.open(nonce(number), context, text_and_icv).is_ok()
    }
}

fn seal(file: &File) -> io::Result<()> {
    let seals = libc::F_SEAL_WRITE | libc::F_SEAL_GROW | libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL;
    // SAFETY: the call takes integers and an open descriptor only.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn nonce(number: u64) -> [u8; NONCE_LEN] {
    let mut nonce = [0; NONCE_LEN];
    nonce[4..].copy_from_slice(&number.to_be_bytes());
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrapped_text_opens_only_in_its_place_and_unchanged() {
        let wrap = KeyWrap::generate().unwrap();
        let mut text = *b"key material";
        let (number, icv) = wrap.wrap(b"slot 1", &mut text).unwrap();
        assert_ne!(text, *b"key material");
        let wrapped = [&text[..], &icv].concat();
        let mut opened = wrapped.clone();
        assert!(wrap.unwrap(number, b"slot 1", &mut opened));
        assert_eq!(opened[..12], *b"key material");
        assert!(!wrap.unwrap(number, b"slot 2", &mut wrapped.clone()));
        assert!(!wrap.unwrap(number + 1, b"slot 1", &mut wrapped.clone()));
        assert!(!KeyWrap::generate().unwrap().unwrap(number, b"slot 1", &mut wrapped.clone()));
    }

    #[test]
    fn the_same_text_never_looks_the_same_twice() {
        let wrap = KeyWrap::generate().unwrap();
        let [mut a, mut b] = [[7; 16]; 2];
        assert_ne!((wrap.wrap(b"", &mut a), a), (wrap.wrap(b"", &mut b), b));
    }

    #[test]
    fn the_secret_cannot_be_changed() {
        let wrap = KeyWrap::generate().unwrap();
        let mut file = File::from(wrap._secret.try_clone().unwrap());
        file.rewind().unwrap();
        let refused = file.write_all(&[0]).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
        assert!(file.set_len(0).is_err());
    }
}
