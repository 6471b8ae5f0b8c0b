//! Published Diffie-Hellman values that every provider is held to.

use crate::crypto::ke::KeMethod;
use crate::crypto::prf::tests::unhex;

/// One exchange, as its RFC prints it.
pub(crate) struct DhVector {
    pub(crate) method: KeMethod,
    private: &'static str,
    public: &'static str,
    peer: &'static str,
    shared: &'static str,
}

impl DhVector {
    pub(crate) fn private(&self) -> Vec<u8> {
        unhex(self.private)
    }

    pub(crate) fn public(&self) -> Vec<u8> {
        unhex(self.public)
    }

    pub(crate) fn peer(&self) -> Vec<u8> {
        unhex(self.peer)
    }

    pub(crate) fn shared(&self) -> Vec<u8> {
        unhex(self.shared)
    }
}

/// RFC 7748 section 6.1, RFC 5903 sections 8.1 and 8.2.
pub(crate) const ALL: [DhVector; 3] = [
    DhVector {
        method: KeMethod::Curve25519,
        private: "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
        public: "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
        peer: "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
        shared: "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742",
    },
    DhVector {
        method: KeMethod::Ecp256,
        private: "C88F01F510D9AC3F70A292DAA2316DE544E9AAB8AFE84049C62A9C57862D1433",
        public: "DAD0B65394221CF9B051E1FECA5787D098DFE637FC90B9EF945D0C3772581180\
                 5271A0461CDB8252D61F1C456FA3E59AB1F45B33ACCF5F58389E0577B8990BB3",
        peer: "D12DFB5289C8D4F81208B70270398C342296970A0BCCB74C736FC7554494BF63\
               56FBF3CA366CC23E8157854C13C58D6AAC23F046ADA30F8353E74F33039872AB",
        shared: "D6840F6B42F6EDAFD13116E0E12565202FEF8E9ECE7DCE03812464D04B9442DE",
    },
    DhVector {
        method: KeMethod::Ecp384,
        private: "099F3C7034D4A2C699884D73A375A67F7624EF7C6B3C0F160647B67414DCE655E35B538041E649EE3FAEF896783AB194",
        public: "667842D7D180AC2CDE6F74F37551F55755C7645C20EF73E31634FE72B4C55EE6DE3AC808ACB4BDB4C88732AEE95F41AA\
                 9482ED1FC0EEB9CAFC4984625CCFC23F65032149E0E144ADA024181535A0F38EEB9FCFF3C2C947DAE69B4C634573A81C",
        peer: "E558DBEF53EECDE3D3FCCFC1AEA08A89A987475D12FD950D83CFA41732BC509D0D1AC43A0336DEF96FDA41D0774A3571\
               DCFBEC7AACF3196472169E838430367F66EEBE3C6E70C416DD5F0C68759DD1FFF83FA40142209DFF5EAAD96DB9E6386C",
        shared: "11187331C279962D93D604243FD592CB9D0A926F422E47187521287E7156C5C4D603135569B9E9D09CF5D4A270F59746",
    },
];

/// What RFC 6989 section 2.3 and RFC 8031 section 2.3 refuse.
pub(crate) const OFF_THE_CURVE: [(KeMethod, &[u8]); 3] =
    [(KeMethod::Curve25519, &[0; 32]), (KeMethod::Ecp256, &[1; 64]), (KeMethod::Ecp384, &[1; 96])];
