//! Targets of `portcullis-ike`. Also compiled into its `tests/replay.rs`.

use portcullis_ike::codec::{
    CipherLayout, Message, PayloadChain, PayloadType, Spi, TrafficSelector, covers, decode_chain,
    encode_message, narrow,
};
use portcullis_ike::proposal::{
    EspProposal, IkeProposal, accept_esp, accept_ike, offer_esp, offer_ike, select_esp, select_ike,
};
use portcullis_ike::stream::{Deframer, Frame, push_ike};

/// A whole message: what can be decoded can be encoded, and means the same again.
pub fn message(bytes: &[u8]) {
    let Ok(message) = Message::decode(bytes) else {
        return;
    };
    if let Some(encrypted) = &message.encrypted {
        let _ = encrypted.split(CipherLayout { iv_len: 8, icv_len: 16 });
        let _ = encrypted.int_auth_a(encrypted.body.len());
        return;
    }
    let again = encode_message(&message.header, &message.payloads).expect("encode what was decoded");
    assert!(again.len() <= bytes.len());
    assert_eq!(Message::decode(&again).expect("decode what was encoded"), message);
}

/// The content of an Encrypted payload, behind one octet that is the type of its first payload.
pub fn chain(bytes: &[u8]) {
    let Some((first, content)) = bytes.split_first() else {
        return;
    };
    let Ok(payloads) = decode_chain(PayloadType(*first), content) else {
        return;
    };
    let again = PayloadChain::encode(&payloads).expect("encode what was decoded");
    assert_eq!(decode_chain(again.first, &again.bytes).expect("decode what was encoded"), payloads);
    select_from(&payloads);
}

/// A responder makes its choice from whatever is offered, and an initiator that had offered it would agree.
fn select_from(payloads: &[portcullis_ike::codec::Payload<'_>]) {
    let Some(sa) = payloads.iter().find_map(|payload| payload.as_sa()) else {
        return;
    };
    let ike: IkeProposal =
        "aes256gcm16-chacha20poly1305-prfsha384-prfsha256-x25519-ecp256-ke1_mlkem768-ke1_none-ke2_mlkem768-ke2_none"
            .parse()
            .expect("a valid proposal");
    if let Some(selection) = select_ike(&sa.proposals, &[ike]) {
        let answer = [selection.answer(Spi::None)];
        assert_eq!(accept_ike(&sa.proposals, &answer).expect("a choice from the offer").0, selection.suite);
    }
    let esp: EspProposal = "aes256gcm16-chacha20poly1305-x25519-modpnone-ke1_mlkem768-ke1_none-esn-noesn"
        .parse()
        .expect("a valid proposal");
    if let Some(selection) = select_esp(&sa.proposals, &[esp]) {
        let answer = [selection.answer(Spi::Child(256))];
        assert_eq!(accept_esp(&sa.proposals, &answer).expect("a choice from the offer").0, selection.suite);
    }
}

/// Proposal notation: what can be parsed is printed such that it means the same, and agrees with itself.
pub fn proposal(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    match text.parse::<IkeProposal>() {
        Ok(proposal) => {
            assert_eq!(proposal.to_string().parse().as_ref(), Ok(&proposal));
            let offer = offer_ike(std::slice::from_ref(&proposal), Spi::None);
            assert!(select_ike(&offer.proposals, &[proposal]).is_some());
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    match text.parse::<EspProposal>() {
        Ok(proposal) => {
            assert_eq!(proposal.to_string().parse().as_ref(), Ok(&proposal));
            let offer = offer_esp(std::slice::from_ref(&proposal), 256);
            assert!(select_esp(&offer.proposals, &[proposal]).is_some());
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Traffic selectors, one a line: notation survives; the first half of them narrowed by the second lies within both.
pub fn selectors(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    let selectors: Vec<TrafficSelector> =
        text.lines().take(64).filter_map(|line| line.parse().ok()).collect();
    for selector in &selectors {
        assert_eq!(selector.to_string().parse().as_ref(), Ok(selector));
    }
    let (offered, policy) = selectors.split_at(selectors.len() / 2);
    let narrowed = narrow(offered, policy);
    assert!(covers(offered, &narrowed) && covers(policy, &narrowed));
}

/// A TCP stream: its frames do not depend on how it is cut. The first octet says who opened it and how it is cut.
pub fn stream(bytes: &[u8]) {
    let Some((options, stream)) = bytes.split_first() else {
        return;
    };
    let deframer = || if options & 1 == 0 { Deframer::dialled() } else { Deframer::accepted(65_535) };
    let whole = frames(deframer(), [stream]);
    let pieces = frames(deframer(), stream.chunks(1 + usize::from(options >> 1)));
    assert_eq!(whole, pieces);
    for frame in &whole.0 {
        if let Frame::Ike(message) = frame {
            let mut framed = Vec::new();
            assert!(push_ike(&mut framed, message));
            assert_eq!(frames(Deframer::dialled(), [framed.as_slice()]).0.first(), Some(frame));
        }
    }
}

/// All frames, and whether the stream ended in an error.
fn frames<'a>(mut deframer: Deframer, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Frame>, bool) {
    let (mut frames, mut pushed) = (Vec::new(), 0);
    for piece in pieces {
        deframer.push(piece);
        pushed += piece.len();
        loop {
            match deframer.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(_) => return (frames, true),
            }
        }
        assert!(deframer.buffered_bytes() <= pushed.min(65_535));
    }
    (frames, false)
}
