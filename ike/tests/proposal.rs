//! Proposals: notation, offers, choices and the check of answers.

use portcullis_ike::codec::*;
use portcullis_ike::proposal::*;
use proptest::prelude::*;
use proptest::sample::subsequence;

proptest! {
    #[test]
    fn ike_notation_survives(proposal in ike_proposal()) {
        prop_assert_eq!(proposal.to_string().parse::<IkeProposal>().unwrap(), proposal);
    }

    #[test]
    fn esp_notation_survives(proposal in esp_proposal()) {
        prop_assert_eq!(proposal.to_string().parse::<EspProposal>().unwrap(), proposal);
    }

    /// Whatever a responder chooses, the initiator accepts, and both hold the same suite.
    #[test]
    fn both_sides_end_with_one_suite(
        ours in proptest::collection::vec(ike_proposal(), 1..4),
        theirs in proptest::collection::vec(ike_proposal(), 1..4),
    ) {
        let offer = offer_ike(&theirs, Spi::Ike(1)).proposals;
        if let Some(selection) = select_ike(&offer, &ours) {
            let answer = [selection.answer(Spi::Ike(2))];
            prop_assert_eq!(accept_ike(&offer, &answer).unwrap(), (selection.suite.clone(), Spi::Ike(2)));
            prop_assert_eq!(selection.peer_spi, Spi::Ike(1));
            prop_assert!(selection.suite.to_string().parse::<IkeProposal>().is_ok());
        }
    }

    #[test]
    fn a_proposal_agrees_with_itself(proposal in esp_proposal()) {
        let offer = offer_esp(std::slice::from_ref(&proposal), 7).proposals;
        let selection = select_esp(&offer, &[proposal]).unwrap();
        let answer = [selection.answer(Spi::Child(8))];
        prop_assert_eq!(accept_esp(&offer, &answer).unwrap(), (selection.suite, Spi::Child(8)));
    }

    #[test]
    fn any_text_is_a_proposal_or_an_error(text in "[a-z0-9_-]{0,40}") {
        let _ = text.parse::<IkeProposal>();
        let _ = text.parse::<EspProposal>();
    }
}

#[test]
fn notation_is_strongswans() {
    let proposal = ike("aes256gcm16-prfsha384-x25519-ke1_mlkem768");
    assert_eq!(proposal.prf, [PrfId::HMAC_SHA2_384]);
    assert_eq!(proposal.ke, [KeMethod::CURVE25519]);
    assert_eq!(proposal.additional[0], [KeMethod::ML_KEM_768]);
    assert!(proposal.has_additional_key_exchanges());
    for (text, printed) in [
        ("curve25519-prfsha256-chacha20poly1305", "chacha20poly1305-prfsha256-x25519"),
        ("aes128gcm128-prfsha256-ecp256", "aes128gcm16-prfsha256-ecp256"),
        (
            "aes256gcm16-aes128gcm16-prfsha512-ecp384-x25519-ke2_mlkem1024-ke2_none-ke7_mlkem512",
            "aes256gcm16-aes128gcm16-prfsha512-ecp384-x25519-ke2_mlkem1024-ke2_none-ke7_mlkem512",
        ),
    ] {
        assert_eq!(ike(text).to_string(), printed);
    }
    for (text, printed) in [
        ("aes256gcm16", "aes256gcm16"),
        ("aes256gcm16-noesn", "aes256gcm16"),
        ("aes256gcm16-esn-noesn", "aes256gcm16-esn-noesn"),
        ("aes256gcm16-x25519-modpnone-esn-ke1_mlkem768", "aes256gcm16-x25519-modpnone-ke1_mlkem768-esn"),
    ] {
        assert_eq!(esp(text).to_string(), printed);
    }
}

#[test]
fn a_wrong_word_is_named_with_those_that_are_known() {
    let error = "aes256gcm16-prfsha384-x25518".parse::<IkeProposal>().unwrap_err().to_string();
    assert!(error.starts_with("`x25518` is not known in IKE proposals; known are aes128gcm16, "), "{error}");
    assert!(error.contains("x25519") && !error.contains("esn"), "{error}");
    for text in ["aes256gcm16-prfsha384-x25519-esn", "aes256gcm16--prfsha384", "", "ke8_x25519", "ke1_"] {
        assert!(matches!(text.parse::<IkeProposal>(), Err(ProposalError::UnknownWord { .. })), "{text}");
    }
    let error = "aes256gcm16-prfsha384".parse::<EspProposal>().unwrap_err().to_string();
    assert!(
        error.starts_with("`prfsha384` is not known in ESP proposals") && error.contains("esn"),
        "{error}"
    );
}

#[test]
fn a_proposal_that_nobody_could_agree_on_is_refused() {
    let missing = |text: &str, what| {
        let expected = ProposalError::Missing { what, kind: ProposalKind::Ike };
        assert_eq!(text.parse::<IkeProposal>(), Err(expected), "{text}");
    };
    missing("prfsha256-x25519", Missing::Encryption);
    missing("aes256gcm16-x25519", Missing::Prf);
    missing("aes256gcm16-prfsha256", Missing::KeyExchange);
    let error = "aes256gcm16-x25519-curve25519".parse::<EspProposal>();
    assert_eq!(error, Err(ProposalError::Repeated("curve25519".into())));
    let error = "aes256gcm16-ke1_mlkem768".parse::<EspProposal>();
    assert_eq!(error, Err(ProposalError::AdditionalWithoutKeyExchange));
    let error = "aes256gcm16-prfsha256-x25519-ke1_mlkem768-ke2_mlkem768".parse::<IkeProposal>();
    assert_eq!(error, Err(ProposalError::SameMethodTwice));
}

#[test]
fn the_responder_prefers_its_own_order() {
    let offer = offer_ike(&[ike("aes128gcm16-aes256gcm16-prfsha256-prfsha384-ecp256-x25519")], Spi::None);
    let ours = [ike("aes256gcm16-prfsha384-prfsha256-x25519"), ike("aes128gcm16-prfsha256-ecp256")];
    let suite = select_ike(&offer.proposals, &ours).unwrap().suite;
    assert_eq!(suite.to_string(), "aes256gcm16-prfsha384-x25519");
}

#[test]
fn the_answer_has_the_number_of_the_proposal_that_was_chosen() {
    let offer =
        offer_ike(&[ike("aes128gcm16-prfsha256-ecp256"), ike("aes256gcm16-prfsha384-x25519")], Spi::None);
    let selection = select_ike(&offer.proposals, &[ike("aes256gcm16-prfsha384-x25519")]).unwrap();
    let answer = selection.answer(Spi::None);
    assert_eq!((answer.number, answer.protocol), (2, ProtocolId::IKE));
    assert_eq!(answer.transforms, offer.proposals[1].transforms);
}

#[test]
fn nothing_in_common_is_no_choice() {
    let offer = offer_ike(&[ike("aes256gcm16-prfsha384-x25519-ke1_mlkem768")], Spi::None).proposals;
    for ours in [
        "aes128gcm16-prfsha384-x25519-ke1_mlkem768",
        "aes256gcm16-prfsha256-x25519-ke1_mlkem768",
        "aes256gcm16-prfsha384-ecp256-ke1_mlkem768",
        "aes256gcm16-prfsha384-x25519-ke1_mlkem1024",
        "aes256gcm16-prfsha384-x25519-ke2_mlkem768",
        "aes256gcm16-prfsha384-x25519",
    ] {
        assert_eq!(select_ike(&offer, &[ike(ours)]), None, "{ours}");
    }
}

/// RFC 9370 section 2.2.1: a type left out of a proposal is as if it were there with NONE.
#[test]
fn an_optional_additional_key_exchange_is_left_out_where_one_side_has_none() {
    let optional = "aes256gcm16-prfsha384-x25519-ke1_mlkem768-ke1_none";
    let plain = "aes256gcm16-prfsha384-x25519";
    for (theirs, ours) in [(optional, plain), (plain, optional)] {
        let offer = offer_ike(&[ike(theirs)], Spi::None).proposals;
        let selection = select_ike(&offer, &[ike(ours)]).unwrap();
        assert_eq!(selection.suite.additional, []);
        let answer = selection.answer(Spi::None);
        let answered = answer.transforms.iter().any(|t| t.transform_type == TransformType::ADDKE1);
        assert_eq!(answered, theirs == optional, "one of each type that was offered");
        assert_eq!(accept_ike(&offer, &[answer]).unwrap().0, selection.suite);
    }
    let offer = offer_ike(&[ike(optional)], Spi::None).proposals;
    let required = ike("aes256gcm16-prfsha384-x25519-ke1_mlkem768");
    let suite = select_ike(&offer, &[required]).unwrap().suite;
    assert_eq!(suite.additional, [AdditionalKe { number: 1, method: KeMethod::ML_KEM_768 }]);
}

/// RFC 9370 section 2.2.1: "the responder's choice MUST NOT contain duplicated algorithms"; the example of the section.
#[test]
fn no_method_is_chosen_for_two_additional_key_exchanges() {
    let lists = "ke2_mlkem512-ke2_mlkem768-ke3_mlkem512-ke3_mlkem768-ke5_mlkem1024-ke5_none";
    let offer = offer_ike(&[ike(&format!("aes256gcm16-prfsha256-ecp384-{lists}"))], Spi::None).proposals;
    let ours = ike("aes256gcm16-prfsha256-ecp384-ke2_mlkem512-ke2_mlkem768-ke3_mlkem512-ke5_none");
    let suite = select_ike(&offer, &[ours]).unwrap().suite;
    assert_eq!(suite.to_string(), "aes256gcm16-prfsha256-ecp384-ke2_mlkem768-ke3_mlkem512");

    let mut answer = select_ike(&offer, &[ike(&format!("aes256gcm16-prfsha256-ecp384-{lists}"))])
        .unwrap()
        .answer(Spi::None);
    let first = |t: &Transform| t.transform_type.additional_key_exchange_index().is_some() && t.id != 0;
    answer.transforms.iter_mut().filter(|t| first(t)).take(2).for_each(|t| t.id = KeMethod::ML_KEM_512.0);
    assert_eq!(accept_ike(&offer, &[answer]), Err(AnswerError::SameMethod(TransformType::ADDKE2)));
}

/// RFC 7296 section 3.3.6: an unknown transform or attribute makes that transform unacceptable, an unknown type the whole
/// proposal.
#[test]
fn unknown_transforms_are_passed_over_and_unknown_types_spoil_their_proposal() {
    let ours = [ike("aes256gcm16-prfsha384-x25519")];
    let mut offer = offer_ike(&ours, Spi::None).proposals;
    let mut with_unknown_attribute = offer[0].transforms[0].clone();
    with_unknown_attribute
        .attributes
        .push(TransformAttribute { attribute_type: AttributeType(99), value: AttributeValue::Short(1) });
    offer[0].transforms.insert(0, with_unknown_attribute);
    offer[0].transforms.insert(0, Transform::new(TransformType::ENCR, 999));
    let answer = select_ike(&offer, &ours).unwrap().answer(Spi::None);
    assert_eq!(answer.transforms.len(), 3);
    assert_eq!(answer.transforms[0].attributes.len(), 1);

    let mut spoilt = offer.clone();
    spoilt[0].transforms.push(Transform::new(TransformType(99), 1));
    assert_eq!(select_ike(&spoilt, &ours), None);
    spoilt.push(Proposal { number: 2, ..offer[0].clone() });
    assert_eq!(select_ike(&spoilt, &ours).unwrap().answer(Spi::None).number, 2);
}

/// RFC 7296 section 3.3: with AEAD no integrity algorithm, or NONE.
#[test]
fn integrity_may_be_none_and_nothing_else() {
    let ours = [ike("aes256gcm16-prfsha384-x25519")];
    let mut offer = offer_ike(&ours, Spi::None).proposals;
    offer[0].transforms.push(Transform::new(TransformType::INTEG, IntegId::HMAC_SHA2_256_128.0));
    assert_eq!(select_ike(&offer, &ours), None);
    offer[0].transforms.push(Transform::new(TransformType::INTEG, IntegId::NONE.0));
    let answer = select_ike(&offer, &ours).unwrap().answer(Spi::None);
    assert!(answer.transforms.contains(&Transform::new(TransformType::INTEG, 0)));
    assert!(accept_ike(&offer, &[answer]).is_ok());
}

/// RFC 7296 section 3.3.5: AES-GCM has to have a Key Length attribute, ChaCha20 must not.
#[test]
fn a_cipher_without_its_key_length_is_no_choice() {
    let ours = [ike("aes256gcm16-chacha20poly1305-prfsha384-x25519")];
    let mut offer = offer_ike(&ours, Spi::None).proposals;
    offer[0].transforms[0].attributes.clear();
    offer[0].transforms[1] =
        Transform::with_key_length(TransformType::ENCR, EncrId::CHACHA20_POLY1305.0, 256);
    assert_eq!(select_ike(&offer, &ours), None);
}

/// RFC 7296 section 1.2: no key exchange of its own in IKE_AUTH; section 1.3.1: with one in CREATE_CHILD_SA.
#[test]
fn perfect_forward_secrecy_is_left_to_create_child_sa() {
    let pfs = esp("aes256gcm16-x25519-ke1_mlkem768-esn");
    let offer = offer_esp(&[pfs.without_key_exchange()], 7).proposals;
    assert_eq!(select_esp(&offer, std::slice::from_ref(&pfs)), None, "PFS is not given up");
    let suite = select_esp(&offer, &[pfs.without_key_exchange()]).unwrap().suite;
    assert_eq!((suite.to_string().as_str(), suite.ke), ("aes256gcm16-esn", None));

    let optional = esp("aes256gcm16-x25519-modpnone-esn");
    assert_eq!(select_esp(&offer, &[optional]).unwrap().suite.ke, None);
    let offer = offer_esp(std::slice::from_ref(&pfs), 7).proposals;
    let suite = select_esp(&offer, &[pfs]).unwrap().suite;
    assert_eq!(suite.to_string(), "aes256gcm16-x25519-ke1_mlkem768-esn");
}

/// RFC 7296 section 3.3.3: ESN is mandatory in ESP proposals.
#[test]
fn an_esp_proposal_without_sequence_numbers_is_no_choice() {
    let ours = [esp("aes256gcm16-esn-noesn")];
    let mut offer = offer_esp(&ours, 7).proposals;
    assert_eq!(select_esp(&offer, &ours).unwrap().suite.sn, SnId::PARTIAL_64);
    offer[0].transforms.retain(|transform| transform.transform_type != TransformType::SN);
    assert_eq!(select_esp(&offer, &ours), None);
    assert_eq!(select_ike(&offer_esp(&ours, 7).proposals, &[ike("aes256gcm16-prfsha256-x25519")]), None);
}

/// RFC 7296 section 3.3.6: the initiator "MUST check that the accepted offer is consistent with one of its proposals".
#[test]
fn an_answer_that_is_no_choice_from_the_offer_is_refused() {
    let offer =
        offer_ike(&[ike("aes256gcm16-aes128gcm16-prfsha384-x25519-ke1_mlkem768")], Spi::None).proposals;
    let good =
        select_ike(&offer, &[ike("aes256gcm16-prfsha384-x25519-ke1_mlkem768")]).unwrap().answer(Spi::None);
    let altered = |alter: &dyn Fn(&mut Proposal)| {
        let mut answer = good.clone();
        alter(&mut answer);
        accept_ike(&offer, &[answer]).unwrap_err()
    };
    assert_eq!(accept_ike(&offer, &[]), Err(AnswerError::ProposalCount(0)));
    assert_eq!(accept_ike(&offer, &[good.clone(), good.clone()]), Err(AnswerError::ProposalCount(2)));
    assert_eq!(altered(&|answer| answer.number = 2), AnswerError::Proposal(2));
    assert_eq!(altered(&|answer| answer.protocol = ProtocolId::ESP), AnswerError::Proposal(1));
    assert_eq!(
        altered(&|answer| answer.transforms[1].id = PrfId::HMAC_SHA2_256.0),
        AnswerError::NotOffered(TransformType::PRF)
    );
    assert_eq!(
        altered(&|answer| answer.transforms[0].attributes.clear()),
        AnswerError::NotOffered(TransformType::ENCR)
    );
    assert_eq!(
        altered(&|answer| answer.transforms.push(offer[0].transforms[1].clone())),
        AnswerError::Repeated(TransformType::ENCR)
    );
    assert_eq!(
        altered(&|answer| answer.transforms.truncate(3)),
        AnswerError::Missing(TransformType::ADDKE1),
        "a downgrade to the classical key exchange alone"
    );
}

/// draft-ietf-ipsecme-ikev2-mlkem section 2.1: ML-KEM-512 may go into IKE_SA_INIT over UDP, the larger ones may not.
#[test]
fn only_small_key_exchanges_fit_an_ike_sa_init_over_udp() {
    for (text, fits) in [
        ("aes256gcm16-prfsha384-x25519-ke1_mlkem1024", true),
        ("aes256gcm16-prfsha384-mlkem512", true),
        ("aes256gcm16-prfsha384-mlkem768", false),
        ("aes256gcm16-prfsha384-mlkem1024", false),
    ] {
        assert_eq!(ike_sa_init_fits_udp(&[ike(text)]), fits, "{text}");
    }
    let many = vec![ike("aes256gcm16-aes128gcm16-chacha20poly1305-prfsha384-x25519-ecp256-ecp384"); 30];
    assert!(!ike_sa_init_fits_udp(&many), "an SA payload alone can be too large");
}

fn ike_proposal() -> impl Strategy<Value = IkeProposal> {
    let prf = [PrfId::HMAC_SHA2_256, PrfId::HMAC_SHA2_384, PrfId::HMAC_SHA2_512];
    (ciphers(), subsequence(prf.to_vec(), 1..=3).prop_shuffle(), methods(1), additional())
        .prop_map(|(encr, prf, ke, additional)| IkeProposal { encr, prf, ke, additional })
}

fn esp_proposal() -> impl Strategy<Value = EspProposal> {
    let sn = subsequence(vec![SnId::PARTIAL_64, SnId::SEQUENTIAL_32], 1..=2).prop_shuffle();
    (ciphers(), methods(0), additional(), sn, any::<bool>()).prop_map(
        |(encr, mut ke, mut additional, sn, optional)| {
            if ke.is_empty() {
                additional = AdditionalKes::default();
            }
            if optional {
                ke.push(KeMethod::NONE);
            }
            EspProposal { encr, ke, additional, sn }
        },
    )
}

fn ciphers() -> impl Strategy<Value = Vec<Encryption>> {
    let ciphers = ["aes128gcm16", "aes256gcm16", "chacha20poly1305"].map(|word| esp(word).encr[0]);
    subsequence(ciphers.to_vec(), 1..=3).prop_shuffle()
}

fn methods(min: usize) -> impl Strategy<Value = Vec<KeMethod>> {
    let methods = [
        KeMethod::CURVE25519,
        KeMethod::ECP_256,
        KeMethod::ECP_384,
        KeMethod::ML_KEM_512,
        KeMethod::ML_KEM_768,
        KeMethod::ML_KEM_1024,
    ];
    subsequence(methods.to_vec(), min..=6).prop_shuffle()
}

/// Lists of which a choice without duplicates is possible: beside the first, all are optional.
fn additional() -> impl Strategy<Value = AdditionalKes> {
    proptest::array::uniform7(methods(0)).prop_map(|mut lists| {
        for list in lists.iter_mut().skip(1).filter(|list| !list.is_empty()) {
            list.push(KeMethod::NONE);
        }
        lists
    })
}

fn ike(text: &str) -> IkeProposal {
    text.parse().unwrap()
}

fn esp(text: &str) -> EspProposal {
    text.parse().unwrap()
}
