//! Any payload, message and selector that can be encoded.

use portcullis_ike::codec::*;
use proptest::collection::vec;
use proptest::prelude::*;
use std::net::IpAddr;

pub fn octets(len: impl Into<proptest::collection::SizeRange>) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), len)
}

pub fn header() -> impl Strategy<Value = Header> {
    (1_u64.., any::<u64>(), any::<u8>(), any::<bool>(), any::<bool>(), any::<u32>()).prop_map(
        |(spi_i, spi_r, exchange, initiator, response, message_id)| Header {
            spi_i,
            spi_r,
            exchange: ExchangeType(exchange),
            flags: Flags { initiator, response },
            message_id,
        },
    )
}

/// Payloads that one message may have together.
pub fn payloads() -> impl Strategy<Value = Vec<Payload<'static>>> {
    vec(payload(), 0..12).prop_map(|payloads| {
        let mut chain: Vec<Payload<'static>> = Vec::new();
        for payload in payloads {
            let repeatable = matches!(
                payload.payload_type(),
                PayloadType::CERT
                    | PayloadType::CERTREQ
                    | PayloadType::NOTIFY
                    | PayloadType::DELETE
                    | PayloadType::VENDOR_ID
                    | PayloadType::CP
            ) || matches!(payload, Payload::Unknown(_));
            if repeatable || chain.iter().all(|seen| seen.payload_type() != payload.payload_type()) {
                chain.push(payload);
            }
        }
        chain
    })
}

pub fn payload() -> impl Strategy<Value = Payload<'static>> {
    prop_oneof![
        security_association().prop_map(Payload::Sa),
        key_exchange().prop_map(Payload::Ke),
        identification().prop_map(Payload::IdI),
        identification().prop_map(Payload::IdR),
        (any::<u8>(), octets(0..200)).prop_map(|(encoding, data)| Payload::Cert(Certificate {
            encoding: CertEncoding(encoding),
            data: data.into(),
        })),
        (any::<u8>(), octets(0..200)).prop_map(|(encoding, authorities)| Payload::CertReq(
            CertificateRequest { encoding: CertEncoding(encoding), authorities: authorities.into() }
        )),
        (any::<u8>(), octets(0..200)).prop_map(|(method, data)| Payload::Auth(Authentication {
            method: AuthMethod(method),
            data: data.into(),
        })),
        octets(MIN_NONCE_LEN..=MAX_NONCE_LEN).prop_map(|nonce| Payload::Nonce(Nonce(nonce.into()))),
        (any::<u8>(), spi(), any::<u16>(), octets(0..100)).prop_map(|(protocol, spi, notify_type, data)| {
            Payload::Notify(Notify {
                protocol: ProtocolId(protocol),
                spi,
                notify_type: NotifyType(notify_type),
                data: data.into(),
            })
        }),
        delete().prop_map(Payload::Delete),
        octets(0..64).prop_map(|octets| Payload::VendorId(VendorId(octets.into()))),
        traffic_selectors().prop_map(Payload::TsI),
        traffic_selectors().prop_map(Payload::TsR),
        configuration().prop_map(Payload::Cp),
        octets(0..100).prop_map(|data| {
            let len = (4 + data.len()) as u16;
            let message = [&[1, 7], &len.to_be_bytes()[..], &data].concat();
            Payload::Eap(Eap(message.into()))
        }),
        (1_usize..20, any::<u8>())
            .prop_map(|(len, octet)| Payload::Ps(PuzzleSolution(vec![octet; 4 * len].into()))),
        (prop_oneof![1_u8..33, 55_u8..], octets(0..100)).prop_map(|(payload_type, body)| {
            Payload::Unknown(UnknownPayload { payload_type: PayloadType(payload_type), body: body.into() })
        }),
    ]
}

pub fn traffic_selector() -> impl Strategy<Value = TrafficSelector> {
    let addresses = prop_oneof![
        (any::<[u8; 4]>(), any::<[u8; 4]>()).prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b))),
        (any::<[u8; 16]>(), any::<[u8; 16]>()).prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b))),
    ];
    let ranges = addresses.prop_map(|(a, b)| AddressRange::new(a.min(b), a.max(b)).unwrap());
    let prefixes = (any::<[u8; 4]>(), 0_u8..=32).prop_map(|(address, len)| {
        let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
        let network = (u32::from_be_bytes(address) & mask).to_be_bytes();
        AddressRange::from_prefix(IpAddr::from(network), len).unwrap()
    });
    let ports = prop_oneof![
        Just(PortRange::ANY),
        Just(PortRange::OPAQUE),
        any::<u16>().prop_map(PortRange::single),
        (any::<u16>(), any::<u16>()).prop_map(|(a, b)| PortRange::new(a.min(b), a.max(b)).unwrap()),
    ];
    let protocol = prop_oneof![Just(0), Just(6), Just(17), any::<u8>()];
    (protocol, ports, prop_oneof![ranges, prefixes])
        .prop_map(|(protocol, ports, addresses)| TrafficSelector { protocol, ports, addresses })
}

fn security_association() -> impl Strategy<Value = SecurityAssociation> {
    let attribute = (
        0_u16..0x8000,
        prop_oneof![
            any::<u16>().prop_map(AttributeValue::Short),
            octets(0..20).prop_map(|octets| AttributeValue::Long(octets.into())),
        ],
    )
        .prop_map(|(attribute_type, value)| TransformAttribute {
            attribute_type: AttributeType(attribute_type),
            value,
        });
    let transform =
        (any::<u8>(), any::<u16>(), vec(attribute, 0..3)).prop_map(|(transform_type, id, attributes)| {
            Transform { transform_type: TransformType(transform_type), id, attributes }
        });
    let protocol_and_spi = prop_oneof![
        Just((ProtocolId::IKE, Spi::None)),
        any::<u64>().prop_map(|spi| (ProtocolId::IKE, Spi::Ike(spi))),
        any::<u32>().prop_map(|spi| (ProtocolId::ESP, Spi::Child(spi))),
        any::<u32>().prop_map(|spi| (ProtocolId::AH, Spi::Child(spi))),
        (4_u8.., spi()).prop_map(|(protocol, spi)| (ProtocolId(protocol), spi)),
    ];
    let proposal = (protocol_and_spi, vec(transform, 1..10))
        .prop_map(|((protocol, spi), transforms)| Proposal { number: 0, protocol, spi, transforms });
    (1_u8..200, vec(proposal, 1..6)).prop_map(|(first, mut proposals)| {
        proposals.iter_mut().zip(first..).for_each(|(proposal, number)| proposal.number = number);
        SecurityAssociation { proposals }
    })
}

fn key_exchange() -> impl Strategy<Value = KeyExchange<'static>> {
    let known = prop_oneof![
        Just(KeMethod::CURVE25519),
        Just(KeMethod::ECP_256),
        Just(KeMethod::ECP_384),
        Just(KeMethod::ML_KEM_512),
        Just(KeMethod::ML_KEM_768),
        Just(KeMethod::ML_KEM_1024),
    ];
    let known = (known, any::<bool>(), any::<u8>()).prop_map(|(method, from_initiator, octet)| {
        let lengths = method.lengths().unwrap();
        let len = if from_initiator { lengths.initiator } else { lengths.responder };
        (method, vec![octet; len])
    });
    let unknown = (1000_u16.., octets(1..100)).prop_map(|(method, data)| (KeMethod(method), data));
    prop_oneof![known, unknown].prop_map(|(method, data)| KeyExchange { method, data: data.into() })
}

fn identification() -> impl Strategy<Value = Identification<'static>> {
    prop_oneof![
        any::<IpAddr>().prop_map(Identification::from_address),
        octets(0..60).prop_map(|name| Identification::new(IdType::FQDN, name)),
        (6_u8.., any::<[u8; 3]>(), octets(0..60)).prop_map(|(id_type, reserved, data)| Identification {
            id_type: IdType(id_type),
            reserved,
            data: data.into(),
        }),
    ]
}

fn delete() -> impl Strategy<Value = Delete> {
    let protocol = prop_oneof![Just(ProtocolId::ESP), Just(ProtocolId::AH)];
    prop_oneof![
        Just(Delete::Ike),
        (protocol, vec(any::<u32>(), 0..20)).prop_map(|(protocol, spis)| Delete::Child { protocol, spis }),
    ]
}

fn traffic_selectors() -> impl Strategy<Value = TrafficSelectors> {
    let unknown = (9_u8.., any::<u8>(), octets(0..40)).prop_map(|(ts_type, second_octet, body)| {
        UnknownSelector { ts_type: TsType(ts_type), second_octet, body: body.into() }
    });
    let entry = prop_oneof![
        3 => traffic_selector().prop_map(TsEntry::Ip),
        1 => unknown.prop_map(TsEntry::Unknown),
    ];
    vec(entry, 1..8).prop_map(|entries| TrafficSelectors { entries })
}

fn configuration() -> impl Strategy<Value = Configuration<'static>> {
    let attribute = (0_u16..0x8000, octets(0..20)).prop_map(|(attribute_type, value)| {
        ConfigurationAttribute { attribute_type: CfgAttributeType(attribute_type), value: value.into() }
    });
    (any::<u8>(), vec(attribute, 0..6))
        .prop_map(|(cfg_type, attributes)| Configuration { cfg_type: CfgType(cfg_type), attributes })
}

fn spi() -> impl Strategy<Value = Spi> {
    prop_oneof![
        Just(Spi::None),
        any::<u32>().prop_map(Spi::Child),
        any::<u64>().prop_map(Spi::Ike),
        octets(1..4).prop_map(|octets| Spi::Other(octets.into())),
    ]
}
