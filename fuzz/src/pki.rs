//! Targets of `portcullis-pki`. Also compiled into its `tests/replay.rs`.

use std::time::Duration;

use portcullis_pki::{Certificate, DistinguishedName, MAX_CHAIN, Request, Subject, Trust, pem};

/// When the seeds are valid.
const NOW: Duration = Duration::from_secs(21_000 * 86_400);

/// What a peer may send: an authority that is trusted, a revocation list (empty for none) and a chain, each behind its length in
/// two octets. Nothing is accepted that is not signed; nothing panics.
pub fn chain(bytes: &[u8]) {
    let parts = parts(bytes);
    let [authority, list, chain @ ..] = parts.as_slice() else {
        return;
    };
    let mut trust = Trust::new();
    if let Ok(authority) = Certificate::from_der(authority)
        && trust.add_authority(authority).is_err()
    {
        return;
    }
    if !list.is_empty() {
        let _ = trust.add_revocation_list(list);
    }
    let own = chain.first().and_then(|der| Certificate::from_der(der).ok());
    let name = own.as_ref().and_then(Certificate::subject);
    let subjects = [
        Subject::Fqdn("gw1.example.net"),
        Subject::Email("ops@example.net"),
        Subject::Address([192, 0, 2, 1].into()),
        name.map_or(Subject::Other, Subject::Name),
    ];
    for subject in subjects {
        let Ok(key) = trust.verify(chain, subject, NOW) else {
            continue;
        };
        let own = own.as_ref().expect("what is accepted can be parsed");
        assert!(!trust.authorities().is_empty() && chain.len() <= MAX_CHAIN);
        assert!(own.is_for(subject) && own.may_sign() && own.is_valid_at(NOW).is_ok());
        assert_eq!(own.key(), Some(&key));
    }
}

/// Anything else that is parsed: files, names and requests of operators, names of peers.
pub fn other(bytes: &[u8]) {
    if let Ok(certificate) = Certificate::from_der(bytes) {
        assert!(!certificate.label().is_empty());
        assert_eq!(Certificate::from_der(certificate.der()).as_ref(), Ok(&certificate));
    }
    if let Some(name) = DistinguishedName::from_der(bytes) {
        assert_eq!(DistinguishedName::from_der(name.der()).as_ref(), Some(&name));
    }
    if let Ok(text) = str::from_utf8(bytes) {
        let _ = text.parse::<DistinguishedName>();
    }
    let _ = Request::from_der(bytes);
    let _ = pem::certificates(bytes);
    let _ = pem::revocation_lists(bytes);
    let _ = pem::request(bytes);
}

fn parts(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<2>() {
        let (part, rest) = rest.split_at(usize::from(u16::from_be_bytes(*length)).min(rest.len()));
        parts.push(part);
        bytes = rest;
    }
    parts
}
