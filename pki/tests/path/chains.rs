//! Paths, validity, usage.

use portcullis_pki::{Certificate, KeyType, Refusal, Trust};
use rcgen::{
    BasicConstraints, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_ML_DSA_44, PKCS_ML_DSA_65,
    PKCS_ML_DSA_87,
};

use super::authority::{Authority, GATEWAY, NOW, at, day, verify};

#[test]
fn every_algorithm_signs_a_chain() {
    for (algorithm, key_type) in [
        (&PKCS_ECDSA_P256_SHA256, KeyType::EcdsaP256),
        (&PKCS_ECDSA_P384_SHA384, KeyType::EcdsaP384),
        (&PKCS_ED25519, KeyType::Ed25519),
        (&PKCS_ML_DSA_44, KeyType::MlDsa44),
        (&PKCS_ML_DSA_65, KeyType::MlDsa65),
        (&PKCS_ML_DSA_87, KeyType::MlDsa87),
    ] {
        let root = Authority::root_with("root", algorithm, |_| {});
        let middle = root.below("middle", |_| {});
        let gateway = middle.gateway(|_| {});
        let key = root.trust().verify(&[&gateway, &middle.der], GATEWAY, NOW).unwrap();
        assert_eq!(key.key_type, key_type);
    }
}

#[test]
fn authorities_may_come_in_any_order_and_with_the_root() {
    let root = Authority::root("root");
    let first = root.below("first", |_| {});
    let second = first.below("second", |_| {});
    let gateway = second.gateway(|_| {});
    assert_eq!(verify(&root.trust(), &[&gateway, &first.der, &second.der]), Ok(()));
    assert_eq!(verify(&root.trust(), &[&gateway, &second.der, &root.der, &first.der]), Ok(()));
    assert_eq!(verify(&second.trust(), &[&gateway]), Ok(()), "any authority may be the configured one");
}

#[test]
fn paths_that_do_not_lead_to_a_configured_authority_are_refused() {
    let (root, other) = (Authority::root("root"), Authority::root("root"));
    let middle = root.below("middle", |_| {});
    let gateway = middle.gateway(|_| {});
    assert_eq!(verify(&root.trust(), &[&gateway]), Err(Refusal::UnknownAuthority));
    assert_eq!(
        verify(&other.trust(), &[&gateway, &middle.der]),
        Err(Refusal::UnknownAuthority),
        "the name alone"
    );
    assert_eq!(verify(&Trust::new(), &[&gateway, &middle.der, &root.der]), Err(Refusal::UnknownAuthority));
    assert_eq!(verify(&root.trust(), &[]), Err(Refusal::Missing));
}

#[test]
fn chains_are_bounded() {
    let root = Authority::root("root");
    let gateway = root.gateway(|_| {});
    let chain: Vec<&[u8]> = std::iter::once(&*gateway).chain(std::iter::repeat_n(&*root.der, 4)).collect();
    assert_eq!(verify(&root.trust(), &chain[..4]), Ok(()));
    assert_eq!(verify(&root.trust(), &chain), Err(Refusal::TooMany));
    let middle = root.below("middle", |params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    let lower = middle.below("lower", |_| {});
    let gateway = lower.gateway(|_| {});
    assert_eq!(verify(&root.trust(), &[&gateway, &lower.der, &middle.der]), Err(Refusal::Constraint));
}

#[test]
fn validity_is_checked_of_every_certificate() {
    let root = Authority::root("root");
    let expired = root.gateway(|params| params.not_after = at(day(999)));
    assert_eq!(verify(&root.trust(), &[&expired]), Err(Refusal::Expired));
    let early = root.gateway(|params| params.not_before = at(day(1001)));
    assert_eq!(verify(&root.trust(), &[&early]), Err(Refusal::NotYetValid));
    let middle = root.below("middle", |params| params.not_after = at(day(999)));
    let gateway = middle.gateway(|_| {});
    assert_eq!(verify(&root.trust(), &[&gateway, &middle.der]), Err(Refusal::Expired));
    let old = Authority::root_with("old", &PKCS_ECDSA_P256_SHA256, |params| params.not_after = at(day(999)));
    let gateway = old.gateway(|_| {});
    assert_eq!(verify(&old.trust(), &[&gateway]), Err(Refusal::Expired), "the configured authority as well");
}

#[test]
fn a_key_usage_has_to_be_for_signatures() {
    let root = Authority::root("root");
    for (usages, verdict) in [
        (vec![], Ok(())),
        (vec![KeyUsagePurpose::DigitalSignature], Ok(())),
        (vec![KeyUsagePurpose::ContentCommitment, KeyUsagePurpose::KeyEncipherment], Ok(())),
        (vec![KeyUsagePurpose::KeyEncipherment], Err(Refusal::Usage)),
    ] {
        let gateway = root.gateway(|params| params.key_usages = usages.clone());
        assert_eq!(verify(&root.trust(), &[&gateway]), verdict, "{usages:?}");
    }
}

#[test]
fn extended_key_usage_is_for_ike_or_any() {
    let root = Authority::root("root");
    let ipsec_ike = || ExtendedKeyUsagePurpose::Other(vec![1, 3, 6, 1, 5, 5, 7, 3, 17]);
    for (purposes, verdict) in [
        (vec![ipsec_ike()], Ok(())),
        (vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::Any], Ok(())),
        (vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth], Err(Refusal::Usage)),
    ] {
        let gateway = root.gateway(|params| params.extended_key_usages = purposes.clone());
        assert_eq!(verify(&root.trust(), &[&gateway]), verdict, "{purposes:?}");
    }
}

#[test]
fn unknown_extensions_are_refused_only_if_critical() {
    let root = Authority::root("root");
    for (critical, verdict) in [(false, Ok(())), (true, Err(Refusal::CriticalExtension))] {
        let gateway = root.gateway(|params| {
            let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]);
            extension.set_criticality(critical);
            params.custom_extensions = vec![extension];
        });
        assert_eq!(verify(&root.trust(), &[&gateway]), verdict);
    }
}

#[test]
fn only_authorities_issue() {
    let root = Authority::root("root");
    let no_authority = root.below("middle", |params| params.is_ca = IsCa::ExplicitNoCa);
    let gateway = no_authority.gateway(|_| {});
    assert_eq!(verify(&root.trust(), &[&gateway, &no_authority.der]), Err(Refusal::Constraint));
    let signs_no_certificates =
        root.below("middle", |params| params.key_usages = vec![KeyUsagePurpose::CrlSign]);
    let gateway = signs_no_certificates.gateway(|_| {});
    assert_eq!(verify(&root.trust(), &[&gateway, &signs_no_certificates.der]), Err(Refusal::Constraint));
    let gateway = root.gateway(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    assert_eq!(verify(&root.trust(), &[&gateway]), Err(Refusal::Constraint), "an authority is no gateway");
    let mut trust = Trust::new();
    let gateway = Certificate::from_der(&root.gateway(|_| {})).unwrap();
    assert_eq!(trust.add_authority(gateway), Err(Refusal::Constraint));
}
