//! Payloads octet by octet, as the figures of RFC 7296 draw them.

use portcullis_ike::codec::*;

/// Figures 6 to 9: proposal, transforms, Key Length attribute.
#[test]
fn an_sa_payload_is_laid_out_as_in_section_3_3() {
    let proposal = Proposal {
        number: 1,
        protocol: ProtocolId::ESP,
        spi: Spi::Child(0xc0ff_ee01),
        transforms: vec![
            Transform::with_key_length(TransformType::ENCR, EncrId::AES_GCM_16.0, 256),
            Transform::new(TransformType::SN, SnId::PARTIAL_64.0),
        ],
    };
    let sa = Payload::Sa(SecurityAssociation { proposals: vec![proposal] });
    #[rustfmt::skip]
    let expected = [
        0, 0, 0, 36,
        0, 0, 0, 32, 1, 3, 4, 2, 0xc0, 0xff, 0xee, 0x01,
        3, 0, 0, 12, 1, 0, 0, 20, 0x80, 14, 1, 0,
        0, 0, 0, 8, 5, 0, 0, 1,
    ];
    assert_eq!(encoded(sa), expected);
}

/// Figure 10.
#[test]
fn a_key_exchange_payload_is_laid_out_as_in_section_3_4() {
    let ke = KeyExchange { method: KeMethod::CURVE25519, data: vec![0x77; 32].into() };
    assert_eq!(encoded(Payload::Ke(ke)), [&[0, 0, 0, 40, 0, 31, 0, 0][..], &[0x77; 32]].concat());
}

/// Figure 11, and what of it AUTH covers (section 2.15), RESERVED as received.
#[test]
fn an_identification_payload_is_laid_out_as_in_section_3_5() {
    let id = Identification::new(IdType::FQDN, b"gw.example".as_slice());
    assert_eq!(encoded(Payload::IdI(id)), *b"\0\0\0\x12\x02\0\0\0gw.example");
    let received = decode_chain(PayloadType::ID_R, b"\0\0\0\x0a\x02\x01\x02\x03gw").unwrap();
    assert_eq!(received[0].as_id_r().unwrap().body(), *b"\x02\x01\x02\x03gw");
}

/// Figure 14.
#[test]
fn an_authentication_payload_is_laid_out_as_in_section_3_8() {
    let auth = Authentication { method: AuthMethod::SHARED_KEY, data: vec![1, 2].into() };
    assert_eq!(encoded(Payload::Auth(auth)), [0, 0, 0, 10, 2, 0, 0, 0, 1, 2]);
}

/// Figure 16: REKEY_SA has the SPI, COOKIE has data.
#[test]
fn a_notify_payload_is_laid_out_as_in_section_3_10() {
    let rekey = Notify::about_child(NotifyType::REKEY_SA, 0x0102_0304);
    assert_eq!(encoded(Payload::Notify(rekey)), [0, 0, 0, 12, 3, 4, 0x40, 0x09, 1, 2, 3, 4]);
    let cookie = Notify::with_data(NotifyType::COOKIE, vec![9].into());
    assert_eq!(encoded(Payload::Notify(cookie)), [0, 0, 0, 9, 0, 0, 0x40, 0x06, 9]);
}

/// Figure 17.
#[test]
fn a_delete_payload_is_laid_out_as_in_section_3_11() {
    assert_eq!(encoded(Payload::Delete(Delete::Ike)), [0, 0, 0, 8, 1, 0, 0, 0]);
    let child = Delete::Child { protocol: ProtocolId::ESP, spis: vec![0x0102_0304] };
    assert_eq!(encoded(Payload::Delete(child)), [0, 0, 0, 12, 3, 4, 0, 1, 1, 2, 3, 4]);
}

/// Figures 19 and 20.
#[test]
fn a_traffic_selector_payload_is_laid_out_as_in_section_3_13() {
    let selector = "10.1.0.0/16[tcp/80]".parse().unwrap();
    #[rustfmt::skip]
    let expected = [
        0, 0, 0, 24, 1, 0, 0, 0,
        7, 6, 0, 16, 0, 80, 0, 80, 10, 1, 0, 0, 10, 1, 255, 255,
    ];
    assert_eq!(encoded(Payload::TsI(TrafficSelectors::new(&[selector]))), expected);
}

/// Figures 22 and 23.
#[test]
fn a_configuration_payload_is_laid_out_as_in_section_3_15() {
    let attribute_type = CfgAttributeType::INTERNAL_IP4_ADDRESS;
    let attributes = vec![ConfigurationAttribute { attribute_type, value: vec![10, 0, 0, 1].into() }];
    let cp = Configuration { cfg_type: CfgType::REPLY, attributes };
    assert_eq!(encoded(Payload::Cp(cp)), [0, 0, 0, 16, 2, 0, 0, 0, 0, 1, 0, 4, 10, 0, 0, 1]);
}

/// RFC 3948 section 2.2.
#[test]
fn the_non_esp_marker_tells_ike_from_esp() {
    assert_eq!(without_non_esp_marker(&[0, 0, 0, 0, 7]), Some(&[7][..]));
    assert_eq!(without_non_esp_marker(&[0, 0, 1, 0, 7]), None);
    assert_eq!(without_non_esp_marker(&[0xff]), None);
}

/// Messages that another encoder wrote: the seeds of the fuzz targets, made by a script from the figures of the RFC.
#[test]
fn an_ike_sa_init_of_another_encoder_is_understood() {
    let bytes = include_bytes!("../../../fuzz/seeds/ike_message/ike_sa_init_request");
    let message = Message::decode(bytes).unwrap();
    assert_eq!((message.header.spi_i, message.header.spi_r), (0x1122_3344_5566_7788, 0));
    assert_eq!(message.header.exchange, ExchangeType::IKE_SA_INIT);
    assert_eq!(message.header.flags, Flags { initiator: true, response: false });
    let sa = message.payloads.iter().find_map(Payload::as_sa).unwrap();
    let types: Vec<_> = sa.proposals[0].transforms.iter().map(|t| (t.transform_type, t.id)).collect();
    let expected = [
        (TransformType::ENCR, 20),
        (TransformType::PRF, 6),
        (TransformType::KE, 31),
        (TransformType::ADDKE1, 36),
    ];
    assert_eq!(types, expected);
    let notifies: Vec<_> =
        message.payloads.iter().filter_map(Payload::as_notify).map(|notify| notify.notify_type.0).collect();
    assert_eq!(notifies, [16388, 16389, 16430, 16438, 16431, 42241]);
    assert_eq!(encode_message(&message.header, &message.payloads).unwrap(), bytes);
}

#[test]
fn an_ike_auth_of_another_encoder_is_understood() {
    let (first, content) =
        include_bytes!("../../../fuzz/seeds/ike_chain/ike_auth_psk").split_first().unwrap();
    let payloads = decode_chain(PayloadType(*first), content).unwrap();
    let id = payloads.iter().find_map(Payload::as_id_i).unwrap();
    assert_eq!((id.id_type, &*id.data), (IdType::FQDN, &b"gw1.example.net"[..]));
    let ts = payloads.iter().find_map(Payload::as_ts_r).unwrap();
    let printed: Vec<_> = ts.ip().iter().map(TrafficSelector::to_string).collect();
    assert_eq!(printed, ["10.1.0.0/16[tcp/80]", "2001:db8::/32"]);
    assert_eq!(ts.entries.len(), 3, "the selector of unknown type is kept");
    let chain = PayloadChain::encode(&payloads).unwrap();
    assert_eq!((chain.first.0, chain.bytes.as_slice()), (*first, content));
}

fn encoded(payload: Payload<'_>) -> Vec<u8> {
    PayloadChain::encode(&[payload]).unwrap().bytes
}
