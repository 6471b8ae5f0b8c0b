//! `portcullis run --keylog DIR`: keys as Wireshark reads them, for the analysis of captures.
//!
//! Wireshark takes one IKE key set per pair of SPIs, but IKE_INTERMEDIATE changes the keys under the same SPIs (RFC
//! 9370 section 2.2.2). So `DIR/generation-N` is a Wireshark profile with the N-th key set of every IKE SA and all ESP
//! keys: `WIRESHARK_CONFIG_DIR=DIR/generation-1 tshark -r FILE`.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use portcullis_ike::action::EspCipher;
use portcullis_ike::event::KeyEvent;
use zeroize::Zeroizing;

/// Wireshark's name of the file with ESP keys.
const ESP_FILE: &str = "esp_sa";
/// Wireshark's name of the file with IKE keys.
const IKE_FILE: &str = "ikev2_decryption_table";
/// Loaded from a profile at start.
const LUA_FILE: &str = "init.lua";
const LUA: &str = include_str!("keylog/ike_over_tcp.lua");
const PREFERENCES: &str = "esp.enable_encryption_decode: TRUE\n";

/// Writes keys to a directory that only its owner can enter. Whoever can read it can read the traffic.
#[derive(Debug)]
pub struct KeyLog {
    directory: PathBuf,
}

impl KeyLog {
    /// Makes the directory and its first profile; what is in it already is kept.
    ///
    /// # Errors
    /// If the directory cannot be made or written.
    pub fn create(directory: &Path) -> io::Result<Self> {
        let log = Self { directory: directory.to_owned() };
        log.profile(0)?;
        Ok(log)
    }

    /// Adds the keys of one event.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn record(&mut self, event: &KeyEvent) -> io::Result<()> {
        match event {
            KeyEvent::Ike { spis, generation, encryption, sk_ei, sk_er } => {
                let profile = self.profile(*generation)?;
                append(&profile.join(IKE_FILE), &ike_line(*spis, encryption, sk_ei, sk_er))
            }
            KeyEvent::Esp { spi, source, cipher, key, .. } => {
                let profile = self.profile(0)?;
                append(&profile.join(ESP_FILE), &esp_line(*spi, source.is_ipv6(), *cipher, key))
            }
        }
    }

    /// The profile of a generation; made if it is not there.
    fn profile(&self, generation: u32) -> io::Result<PathBuf> {
        let profile = self.directory.join(format!("generation-{generation}"));
        if profile.join(IKE_FILE).exists() {
            return Ok(profile);
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&profile)?;
        append(&profile.join(LUA_FILE), LUA)?;
        append(&profile.join("preferences"), PREFERENCES)?;
        if generation == 0 {
            append(&profile.join(ESP_FILE), "")?;
        } else {
            symlink(Path::new("../generation-0").join(ESP_FILE), profile.join(ESP_FILE))?;
        }
        append(&profile.join(IKE_FILE), "")?;
        Ok(profile)
    }
}

/// Columns: SPIs, SK_ei, SK_er, encryption, SK_ai, SK_ar, integrity.
fn ike_line(spis: (u64, u64), encryption: &str, sk_ei: &[u8], sk_er: &[u8]) -> Zeroizing<String> {
    let name = match encryption {
        "aes128gcm16" => "AES-GCM-128 with 16 octet ICV [RFC5282]",
        "aes256gcm16" => "AES-GCM-256 with 16 octet ICV [RFC5282]",
        other => return Zeroizing::new(format!("# Wireshark 4.0 cannot decrypt IKE with {other}\n")),
    };
    Zeroizing::new(format!(
        "{:016x},{:016x},{},{},\"{name}\",,,\"NONE [RFC4306]\"\n",
        spis.0,
        spis.1,
        *hexadecimal(sk_ei),
        *hexadecimal(sk_er)
    ))
}

/// Columns: protocol, source, destination, SPI, encryption, key, authentication, key. Addresses are left open: behind
/// a NAT a capture shows others than we know, and the SPI is enough.
fn esp_line(spi: u32, ipv6: bool, cipher: EspCipher, key: &[u8]) -> Zeroizing<String> {
    let protocol = if ipv6 { "IPv6" } else { "IPv4" };
    match cipher {
        EspCipher::Aes128Gcm16 | EspCipher::Aes256Gcm16 => Zeroizing::new(format!(
            "\"{protocol}\",\"*\",\"*\",\"0x{spi:08x}\",\"AES-GCM with 16 octet ICV [RFC4106]\",\"0x{}\",\"NULL\",\"\"\n",
            *hexadecimal(key)
        )),
        EspCipher::ChaCha20Poly1305 => Zeroizing::new(format!(
            "# Wireshark 4.0 cannot decrypt ESP with ChaCha20-Poly1305: SPI 0x{spi:08x}\n"
        )),
    }
}

fn hexadecimal(octets: &[u8]) -> Zeroizing<String> {
    use std::fmt::Write;
    let mut text = Zeroizing::new(String::with_capacity(octets.len() * 2));
    for octet in octets {
        // Writing to a string does not fail.
        let _ = write!(text, "{octet:02x}");
    }
    text
}

fn append(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn every_generation_is_a_profile_with_all_esp_keys() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        let mut log = KeyLog::create(&path).unwrap();
        for generation in [0, 1] {
            log.record(&KeyEvent::Ike {
                spis: (1, 0xff),
                generation,
                encryption: "aes256gcm16",
                sk_ei: Zeroizing::new(vec![generation as u8; 36]),
                sk_er: Zeroizing::new(vec![0xee; 36]),
            })
            .unwrap();
        }
        log.record(&KeyEvent::Esp {
            spi: 0x1234,
            source: [192, 0, 2, 2].into(),
            destination: [198, 51, 100, 2].into(),
            cipher: EspCipher::Aes256Gcm16,
            key: Zeroizing::new(vec![0xab; 36]),
        })
        .unwrap();

        let read = |file: &str| fs::read_to_string(path.join(file)).unwrap();
        let first = read("generation-0/ikev2_decryption_table");
        assert!(first.starts_with("0000000000000001,00000000000000ff,00000000"), "{first}");
        assert!(read("generation-1/ikev2_decryption_table").contains(",01010101"));
        for generation in ["generation-0", "generation-1"] {
            assert!(read(&format!("{generation}/esp_sa")).contains("\"0x00001234\""));
            assert!(read(&format!("{generation}/init.lua")).contains("IKETCP"));
        }
        assert_eq!(fs::metadata(path.join("generation-0")).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(
            fs::metadata(path.join("generation-0/esp_sa")).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    fn an_algorithm_that_wireshark_lacks_is_a_comment_without_the_key() {
        let line = esp_line(5, false, EspCipher::ChaCha20Poly1305, &[0xab; 36]);
        assert!(line.starts_with('#') && !line.contains("abab"), "{}", *line);
        let line = ike_line((1, 2), "chacha20poly1305", &[0xab; 36], &[0xab; 36]);
        assert!(line.starts_with('#') && !line.contains("abab"), "{}", *line);
    }
}
