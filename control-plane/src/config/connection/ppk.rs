//! The `ppk:` section of a connection.

use std::sync::Arc;

use portcullis_ike::config::Ppk;

use crate::config::field::{Field, Section};
use crate::config::secret::Secrets;

/// The longest name that is read, octets.
const MAX_ID: usize = 255;
/// RFC 8784 section 6: at least 256 bits of entropy.
const SHORT_PPK: usize = 32;

/// Reads the section.
pub(super) fn read(field: &Field<'_>, secrets: &Secrets) -> Option<Ppk> {
    field.section(|s| section(s, secrets))
}

fn section(s: &mut Section<'_>, secrets: &Secrets) -> Option<Ppk> {
    let id = s.need("id").and_then(|field| field.read(name));
    let required = s.or("required", true, Field::flag);
    let intermediate = s.or("intermediate", false, Field::flag);
    let secret = secrets.of(s);
    if secret.is_none() && !s.has("secret_file") && !s.has("credential") {
        return s.refuse("a PPK needs secret_file: PATH or credential: NAME");
    }
    let (id, secret) = (id?, secret?);
    if secrets.are_read() && secret.expose().len() < SHORT_PPK {
        s.warn(format!(
            "the PPK has {} octets; RFC 8784 asks for {SHORT_PPK} random ones or more",
            secret.expose().len()
        ));
    }
    Some(Ppk { id, secret, required, intermediate })
}

fn name(text: &str) -> Result<Arc<[u8]>, String> {
    match text.len() {
        1..=MAX_ID => Ok(text.as_bytes().into()),
        _ => Err(format!("a PPK_ID has 1 to {MAX_ID} octets")),
    }
}
