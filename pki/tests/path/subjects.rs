//! Whose a certificate is (RFC 4945 section 3.1).

use portcullis_pki::{Certificate, DistinguishedName, Refusal, Subject};
use rcgen::SanType;

use super::authority::{Authority, NOW, dns};

#[test]
fn identities_are_matched_to_the_name_of_their_kind() {
    let root = Authority::root("root");
    let gateway = root.gateway(|params| {
        params.subject_alt_names = vec![
            dns("gw1.example.net"),
            dns("*.example.org"),
            SanType::Rfc822Name("ops@example.net".try_into().unwrap()),
            SanType::IpAddress("192.0.2.1".parse().unwrap()),
            SanType::IpAddress("2001:db8::1".parse().unwrap()),
        ];
    });
    let subject = Certificate::from_der(&gateway).unwrap().subject().unwrap().clone();
    let other: DistinguishedName = "CN=gw2".parse().unwrap();
    let trust = root.trust();
    for (subject, is_accepted) in [
        (Subject::Fqdn("gw1.example.net"), true),
        (Subject::Fqdn("GW1.Example.NET"), true),
        (Subject::Fqdn("gw2.example.net"), false),
        (Subject::Fqdn("a.example.org"), false),
        (Subject::Fqdn("ops@example.net"), false),
        (Subject::Fqdn("gw1"), false),
        (Subject::Email("ops@example.net"), true),
        (Subject::Email("gw1.example.net"), false),
        (Subject::Address("192.0.2.1".parse().unwrap()), true),
        (Subject::Address("2001:db8::1".parse().unwrap()), true),
        (Subject::Address("192.0.2.2".parse().unwrap()), false),
        (Subject::Name(&subject), true),
        (Subject::Name(&other), false),
        (Subject::Other, false),
    ] {
        let verdict = trust.verify(&[&gateway], subject, NOW).map(drop);
        assert_eq!(verdict, if is_accepted { Ok(()) } else { Err(Refusal::Subject) }, "{subject:?}");
    }
}
