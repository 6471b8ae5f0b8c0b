//! Pseudorandom functions: HMAC-SHA-2 (RFC 4868) and prf+ (RFC 7296 section 2.13).

use zeroize::{Zeroize, Zeroizing};

use super::provider;

/// A negotiated pseudorandom function, transform type 2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Prf {
    /// PRF_HMAC_SHA2_256.
    HmacSha256,
    /// PRF_HMAC_SHA2_384.
    HmacSha384,
    /// PRF_HMAC_SHA2_512.
    HmacSha512,
}

impl Prf {
    /// The function with this transform ID, if it is supported.
    pub(crate) const fn from_id(id: u16) -> Option<Self> {
        match id {
            5 => Some(Self::HmacSha256),
            6 => Some(Self::HmacSha384),
            7 => Some(Self::HmacSha512),
            _ => None,
        }
    }

    /// Its transform ID.
    pub(crate) const fn id(self) -> u16 {
        match self {
            Self::HmacSha256 => 5,
            Self::HmacSha384 => 6,
            Self::HmacSha512 => 7,
        }
    }

    /// Octets of output, which is also the preferred key size (RFC 7296 section 2.12).
    pub(crate) const fn output_len(self) -> usize {
        match self {
            Self::HmacSha256 => 32,
            Self::HmacSha384 => 48,
            Self::HmacSha512 => 64,
        }
    }

    /// prf(key, parts), the parts concatenated.
    pub(crate) fn compute(self, key: &[u8], parts: &[&[u8]]) -> PrfOutput {
        provider::HmacKey::new(self, key).compute(parts)
    }

    /// The first `len` octets of prf+(key, seed). The counter of RFC 7296 section 2.13 is one octet, so there are at
    /// most 255 blocks; no set of keys comes near it.
    pub(crate) fn plus(self, key: &[u8], seed: &[&[u8]], len: usize) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(len.next_multiple_of(self.output_len())));
        let key = provider::HmacKey::new(self, key);
        let seed = Zeroizing::new(seed.concat());
        let mut last: Option<PrfOutput> = None;
        for counter in 1..=u8::MAX {
            if out.len() >= len {
                break;
            }
            let block = key.compute(&[last.as_deref().unwrap_or_default(), &seed, &[counter]]);
            out.extend_from_slice(&block);
            last = Some(block);
        }
        out.truncate(len);
        out
    }
}

/// The output of a pseudorandom function; wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct PrfOutput {
    octets: [u8; 64],
    len: u8,
}

impl PrfOutput {
    /// The first 64 octets of `octets`; no function here gives more.
    pub(crate) fn new(octets: &[u8]) -> Self {
        let len = octets.len().min(64);
        let mut out = Self { octets: [0; 64], len: len as u8 };
        if let (Some(to), Some(from)) = (out.octets.get_mut(..len), octets.get(..len)) {
            to.copy_from_slice(from);
        }
        out
    }
}

impl core::ops::Deref for PrfOutput {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.octets.get(..usize::from(self.len)).unwrap_or(&[])
    }
}

impl Drop for PrfOutput {
    fn drop(&mut self) {
        self.octets.zeroize();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// RFC 4231 sections 4.2, 4.3 and 4.7.
    #[test]
    fn hmac_matches_rfc_4231() {
        let cases: [(&[u8], &[u8], [&str; 3]); 3] = [
            (
                &[0x0b; 20],
                b"Hi There",
                [
                    "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
                    "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59cfaea9ea9076ede7f4af152e8b2fa9cb6",
                    "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cde\
                     daa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854",
                ],
            ),
            (
                b"Jefe",
                b"what do ya want for nothing?",
                [
                    "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
                    "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
                    "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554\
                     9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
                ],
            ),
            (
                &[0xaa; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                [
                    "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
                    "4ece084485813e9088d2c63a041bc5b44f9ef1012a2b588f3cd11f05033ac4c60c2ef6ab4030fe8296248df163f44952",
                    "80b24263c7c1a3ebb71493c1dd7be8b49b46d1f41b4aeec1121b013783f8f352\
                     6b56d037e05f2598bd0fd2215d6a1e5295e64f73f63f0aec8b915a985d786598",
                ],
            ),
        ];
        for (key, data, expected) in cases {
            for (prf, hex) in [Prf::HmacSha256, Prf::HmacSha384, Prf::HmacSha512].into_iter().zip(expected) {
                assert_eq!(prf.compute(key, &[data]).to_vec(), unhex(hex), "{prf:?}");
                let (head, tail) = data.split_at(3);
                assert_eq!(prf.compute(key, &[head, tail]).to_vec(), unhex(hex), "{prf:?} in parts");
            }
        }
    }

    /// prf+ of RFC 7296 section 2.13 is HKDF-Expand of RFC 5869 section 2.3: RFC 5869 appendix A.1 to A.3 are vectors
    /// for it.
    #[test]
    fn prf_plus_matches_rfc_5869() {
        let long_info: Vec<u8> = (0xb0..=0xff).collect();
        let cases: [(&str, &[u8], &str); 3] = [
            (
                "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5",
                &unhex("f0f1f2f3f4f5f6f7f8f9"),
                "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
            ),
            (
                "06a6b88c5853361a06104c9ceb35b45cef760014904671014a193f40c15fc244",
                &long_info,
                "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09\
                 da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
            ),
            (
                "19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04",
                &[],
                "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
            ),
        ];
        for (key, info, okm) in cases {
            let okm = unhex(okm);
            assert_eq!(*Prf::HmacSha256.plus(&unhex(key), &[info], okm.len()), okm);
        }
    }

    pub(crate) fn unhex(hex: &str) -> Vec<u8> {
        assert!(hex.len().is_multiple_of(2));
        (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
    }
}
