//! Published packets: draft-mcgrew-gcm-test-01 (AES-GCM in ESP), RFC 7634 appendix A, RFC 8439 section 2.8.2.

use super::*;

struct Vector {
    algorithm: Algorithm,
    key: &'static str,
    salt: &'static str,
    esn: bool,
    sequence: u64,
    packet: &'static str,
    text: &'static str,
}

#[test]
fn published_packets_open() {
    for (number, vector) in VECTORS.iter().enumerate() {
        let packet = bytes(vector.packet);
        let mut inbound = inbound_before(vector);
        let (opened, payload) = open(&mut inbound, &packet).unwrap_or_else(|e| panic!("{number}: {e}"));
        let text = bytes(vector.text);
        let [.., pad_len, next_header] = text[..] else { panic!("{number}") };
        assert_eq!(payload, text[..text.len() - 2 - usize::from(pad_len)], "{number}");
        assert_eq!((opened.next_header.0, opened.sequence), (next_header, vector.sequence), "{number}");
        assert_eq!(open(&mut inbound, &packet), Err(OpenError::Replay), "{number}");
    }
}

#[test]
fn published_packets_with_a_wrong_tag_do_not_open() {
    for vector in VECTORS {
        let mut packet = bytes(vector.packet);
        *packet.last_mut().unwrap() ^= 1;
        assert_eq!(open(&mut inbound_before(vector), &packet), Err(OpenError::IcvFailure));
    }
}

#[test]
fn published_texts_seal_to_the_published_packets() {
    for vector in VECTORS {
        let packet = bytes(vector.packet);
        let iv = u64::from_be_bytes(packet[8..16].try_into().unwrap());
        let keymat = ExpandedKeymat::new(&material(vector)).unwrap();
        let aad = crate::outbound::aad(packet_spi(&packet).unwrap(), vector.sequence, vector.esn);
        let mut text = bytes(vector.text);
        let mut icv = [0; Algorithm::ICV_LEN];
        keymat.key.seal(keymat.nonce(iv), aad.bytes(), &mut text, &mut icv).unwrap();
        assert_eq!([text, icv.to_vec()].concat(), packet[16..]);
    }
}

/// RFC 8439 section 2.8.2: the AEAD alone, with 12 octets of associated data.
#[test]
fn rfc_8439_example_seals_and_opens() {
    let key: Vec<u8> = (0x80..=0x9f).collect();
    let key = aead::ExpandedKey::new(Algorithm::ChaCha20Poly1305, &key).unwrap();
    let nonce: [u8; 12] = bytes("070000004041424344454647").try_into().unwrap();
    let aad = bytes("50515253c0c1c2c3c4c5c6c7");
    let plain =
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, \
        sunscreen would be it.";
    let mut text = plain.to_vec();
    let mut icv = [0; Algorithm::ICV_LEN];
    key.seal(nonce, &aad, &mut text, &mut icv).unwrap();
    assert_eq!(text, bytes(RFC_8439_CIPHERTEXT));
    assert_eq!(icv.to_vec(), bytes("1ae10b594f09e26a7e902ecbd0600691"));
    text.extend(icv);
    key.open(nonce, &aad, &mut text).unwrap();
    assert_eq!(text[..plain.len()], plain[..]);
}

fn inbound_before(vector: &Vector) -> TestInbound {
    let memory = (InboundLive::default(), (0..64).map(|_| AtomicU64::new(0)).collect());
    write(&memory.0.highest, vector.sequence - 1);
    let spi = packet_spi(&bytes(vector.packet)).unwrap();
    let parameters = InboundParameters { spi, esn: vector.esn, lifetime: Lifetime::default() };
    Inbound::new(parameters, ExpandedKeymat::new(&material(vector)).unwrap(), Arc::new(memory)).unwrap()
}

fn material(vector: &Vector) -> KeyMaterial {
    KeyMaterial::from_keymat(vector.algorithm, &bytes(&[vector.key, vector.salt].concat())).unwrap()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

const RFC_8439_CIPHERTEXT: &str = concat!(
    "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6",
    "3dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36",
    "92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc",
    "3ff4def08e4b7a9de576d26586cec64b6116",
);

const VECTORS: &[Vector] = &[
    // draft-mcgrew-gcm-test-01 section 4
    Vector {
        algorithm: Algorithm::Aes128Gcm16,
        key: "4c80cdefbb5d10da906ac73c3613a634",
        salt: "2e443b68",
        esn: true,
        sequence: 0x8765432100000000,
        packet: concat!(
            "00004321000000004956ed7e3b244cfefecf537e729d5b07dc30df528dd22b76",
            "8d1b98736696a6fd348509fa13ceac34cfa2436f14a3f3cf65925bf1f4a13c5d",
            "15b21e1884f5ff6247aeabb786b93bce61bc17d768fd9732459018148f6cbe72",
            "2fd04796562dfdb4",
        ),
        text: concat!(
            "45000048699a000080114db7c0a80102c0a801010a9bf15638d3010000010000",
            "00000000045f736970045f756470037369700963796265726369747902646b00",
            "0021000101020201",
        ),
    },
    // draft-mcgrew-gcm-test-01 section 4
    Vector {
        algorithm: Algorithm::Aes128Gcm16,
        key: "feffe9928665731c6d6a8f9467308308",
        salt: "cafebabe",
        esn: false,
        sequence: 0xa,
        packet: concat!(
            "0000a5f80000000afacedbaddecaf888deb22cd9b07c72c16e3a65beeb8df304",
            "a5a5897d33ae530f1ba76d5d114d2a5c3de81827c10e9a4f51330d0eec416642",
            "cfbb85a5b47e48a4ec3b9ba95d918bd183b70d3aa8bc6ee4c309e9d85a41ad4a",
        ),
        text: concat!(
            "4500003e698f000080114dccc0a80102c0a801010a980035002a2343b2d00100",
            "0001000000000000037369700963796265726369747902646b00000100010001",
        ),
    },
    // draft-mcgrew-gcm-test-01 section 4
    Vector {
        algorithm: Algorithm::Aes256Gcm16,
        key: "abbccddef00112233445566778899aababbccddef00112233445566778899aab",
        salt: "11223344",
        esn: false,
        sequence: 0x2,
        packet: concat!(
            "4a2cbfe3000000020102030405060708ff425c9b724599df7a3bcd510194e00d",
            "6a78107f1b0b1cbf06efae9d65a5d763748a637985771d347f0545659f14e99d",
            "ef842d8eb335f4eecfdbf831824b4c4915956c96",
        ),
        text: concat!(
            "4500003069a6400080062690c0a801029389155e0a9e008b2dc57ee000000000",
            "7002400020bf0000020405b40101040201020201",
        ),
    },
    // draft-mcgrew-gcm-test-01 section 4
    Vector {
        algorithm: Algorithm::Aes128Gcm16,
        key: "00000000000000000000000000000000",
        salt: "00000000",
        esn: false,
        sequence: 0x1,
        packet: concat!(
            "000000000000000100000000000000004688daf2f973a392732909c331d56d60",
            "f694abaa414b5e7ff5fdcdfff5e9a284456476492719ffb64de7d9dca1e1d894",
            "bc3bd57873ed4d181d19d4d5c8c18af3f821d496eeb096e98ad2b69e4799c71d",
        ),
        text: concat!(
            "4500003c99c500008001cb7a40679318010101010800075c0200440061626364",
            "65666768696a6b6c6d6e6f707172737475767761626364656667686901020201",
        ),
    },
    // draft-mcgrew-gcm-test-01 section 4
    Vector {
        algorithm: Algorithm::Aes128Gcm16,
        key: "3de09874b388e6491988d0c3607eae1f",
        salt: "57690e43",
        esn: true,
        sequence: 0x1010101010101010,
        packet: concat!(
            "42f67e3f101010104e280000a2fca1a3fba2caa4853cf9f0f22cb10d86dd83b0",
            "fec75691cf1a04b00d1138ec9c35791765acbd8701ad79845bf9fe3fba487bc9",
            "1755e6662b4c8d0d1f5e22739530320ae0d731cc978ecafaeae88f00e80d6e48",
        ),
        text: concat!(
            "4500003c99c300008001cb7c40679318010101010800085c0200430061626364",
            "65666768696a6b6c6d6e6f707172737475767761626364656667686901020201",
        ),
    },
    // draft-mcgrew-gcm-test-01 section 4
    Vector {
        algorithm: Algorithm::Aes128Gcm16,
        key: "3de09874b388e6491988d0c3607eae1f",
        salt: "57690e43",
        esn: true,
        sequence: 0x1010101010101010,
        packet: concat!(
            "42f67e3f101010104e280000a2fca1a3fba2ca845e5df9f0f22c3e6e86dd831e",
            "1fc65792cd1af9130e1379ed369f071f35e034be95f112e4e7d05d35",
        ),
        text: "4500001c42a200008001441f406793b6e00000020a00f5ff01020201",
    },
    // draft-mcgrew-gcm-test-01 section 4
    Vector {
        algorithm: Algorithm::Aes128Gcm16,
        key: "abbccddef00112233445566778899aab",
        salt: "decaf888",
        esn: true,
        sequence: 0x1,
        packet: concat!(
            "0000010000000001cafedebaceface7418a6fd42f72cbf4ab2a2ea901f73d814",
            "e3e7f243d95412e1c349c1d2fbec168f9190feebaf2cb01984e65863965d7472",
            "b79da345e0e780191f0d2f0e0f496c226f2127b27db35724e7845d68651f57e6",
            "5f354f75ff17015769623436",
        ),
        text: concat!(
            "4500004933ba00007f119106c3fb1d10c2b1d326c02831ce0035dd7b800302d5",
            "00004e20001e8c18d75b81dc91baa0476b91b924b280389d92c963bac046ec95",
            "9b6266c04722b14923010101",
        ),
    },
    // draft-mcgrew-gcm-test-01 section 4
    Vector {
        algorithm: Algorithm::Aes256Gcm16,
        key: "abbccddef00112233445566778899aababbccddef00112233445566778899aab",
        salt: "73616c74",
        esn: true,
        sequence: 0x156f3126dd0db99b,
        packet: concat!(
            "17405e67dd0db99b616e640169766563f2d69ecdbd5a0d5b8d5ef38bad4da58d",
            "1f278fde98ef67549d524a3018d9a57ff4d3a31ce673119e451626c2415771e3",
            "b7eebca614c89b35",
        ),
        text: concat!("45080028732c00004006e9f90a0106120a01038f06b88023dd6bafbecb712602", "50101f646d540001",),
    },
    // draft-mcgrew-gcm-test-01 section 4
    Vector {
        algorithm: Algorithm::Aes128Gcm16,
        key: "3de09874b388e6491988d0c3607eae1f",
        salt: "57690e43",
        esn: true,
        sequence: 0x1010101010101010,
        packet: concat!(
            "42f67e3f101010104e280000a2fca1a3fba2cad12fc1f9f00d3cebf305410db8",
            "3d7784b607323d220f24b0a97d54182800cadb0f68d99ef0e0c0c89ae9bea888",
            "4e52d65bc1afd0740f742444747b5b39ab533163aad4550ee5160975cdb608c5",
            "769189609763b8e18caa81e2",
        ),
        text: concat!(
            "45000049333e00007f119182c3fb1d10c2b1d326c02831ce0035cb458003025b",
            "000001e0001e8c18d65759d52284a0352c71475c8880391c764d6e5ee0496b32",
            "5ae270c03899493915010101",
        ),
    },
    // draft-mcgrew-gcm-test-01 section 4
    Vector {
        algorithm: Algorithm::Aes256Gcm16,
        key: "abbccddef00112233445566778899aababbccddef00112233445566778899aab",
        salt: "73616c74",
        esn: true,
        sequence: 0x156f3126dd0db99b,
        packet: concat!(
            "17405e67dd0db99b616e640169766563d4b7ed86a1777f2ea13d6973d324c69e",
            "7b43f826fb56831226508bebd2dceb18d0a6df10e5487df074113e14c641024e",
            "3e6773d91a62ee429b043a10e3efe6b012a49363412364f8c0cac587f249e56b",
            "11e24f30e44ccc76",
        ),
        text: concat!(
            "636973636f0172756c657301746865016e6574776501646566696e6501746865",
            "746563686e6f6c6f67696573017468617477696c6c01646566696e65746f6d6f",
            "72726f7701020201",
        ),
    },
    // draft-mcgrew-gcm-test-01 section 4
    Vector {
        algorithm: Algorithm::Aes128Gcm16,
        key: "7d773d00c144c525ac619d18c84a3f47",
        salt: "d9664267",
        esn: false,
        sequence: 0xffffffff,
        packet: concat!("335467aeffffffff43457e9182443bc6437f866bcb3f699fe9b0822bac961c45", "04bef270",),
        text: "01020201",
    },
    // draft-mcgrew-gcm-test-01 section 4
    Vector {
        algorithm: Algorithm::Aes128Gcm16,
        key: "abbccddef00112233445566778899aab",
        salt: "decaf888",
        esn: true,
        sequence: 0x1,
        packet: concat!(
            "0000010000000001cafedebaceface7429c9fc69a197d038ccdd14e2ddfcaa05",
            "43332164412503524303ed3c6c5f283843af8c3e",
        ),
        text: "746f016265016f72016e6f7401746f0162650001",
    },
    // draft-mcgrew-gcm-test-01 section 4
    Vector {
        algorithm: Algorithm::Aes256Gcm16,
        key: "6c6567616c697a656d6172696a75616e61616e64646f69746265666f72656961",
        salt: "7475726e",
        esn: true,
        sequence: 0xffffffffffffffff,
        packet: concat!(
            "796b6963ffffffff333021696765746df97ab2aa356d8edce17644ac8c78e25d",
            "d24dedbb29ebf1b64a274b39b49c3a864cd3d78ca4ae68a32b42458fb57dbe82",
            "1dcc63b9d0937ba2945f669368661a329fb4c053",
        ),
        text: concat!(
            "45000030da3a00008001df3bc0a80005c0a800010800c6cd0200070061626364",
            "65666768696a6b6c6d6e6f707172737401020201",
        ),
    },
    // RFC 7634 appendix A
    Vector {
        algorithm: Algorithm::ChaCha20Poly1305,
        key: "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
        salt: "a0a1a2a3",
        esn: false,
        sequence: 0x5,
        packet: concat!(
            "0102030400000005101112131415161724039428b97f417e3c13753a4f05087b",
            "67c352e6a7fab1b982d466ef407ae5c614ee8099d52844eb61aa95dfab4c02f7",
            "2aa71e7c4c4f64c9befe2facc638e8f3cbec163fac469b502773f6fb94e664da",
            "9165b82829f641e076aaa8266b7fb0f7b11b369907e1ad43",
        ),
        text: concat!(
            "45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec10",
            "0007362708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223",
            "2425262728292a2b2c2d2e2f303132333435363701020204",
        ),
    },
];
