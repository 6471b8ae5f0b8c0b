//! Numbers that give a message its structure.

use super::code_points;

code_points! {
    /// Exchange Type of the IKE header (RFC 7296 section 3.1).
    ExchangeType(u8) {
        IKE_SA_INIT = 34, "IKE_SA_INIT", "RFC 7296";
        IKE_AUTH = 35, "IKE_AUTH", "RFC 7296";
        CREATE_CHILD_SA = 36, "CREATE_CHILD_SA", "RFC 7296";
        INFORMATIONAL = 37, "INFORMATIONAL", "RFC 7296";
        IKE_SESSION_RESUME = 38, "IKE_SESSION_RESUME", "RFC 5723";
        GSA_AUTH = 39, "GSA_AUTH", "RFC 9838";
        GSA_REGISTRATION = 40, "GSA_REGISTRATION", "RFC 9838";
        GSA_REKEY = 41, "GSA_REKEY", "RFC 9838";
        GSA_INBAND_REKEY = 42, "GSA_INBAND_REKEY", "RFC 9838";
        IKE_INTERMEDIATE = 43, "IKE_INTERMEDIATE", "RFC 9242";
        IKE_FOLLOWUP_KE = 44, "IKE_FOLLOWUP_KE", "RFC 9370";
    }
}

code_points! {
    /// Payload type, the Next Payload field (RFC 7296 section 3.2).
    PayloadType(u8) {
        NONE = 0, "No Next Payload", "RFC 7296";
        SA = 33, "SA", "RFC 7296";
        KE = 34, "KE", "RFC 7296";
        ID_I = 35, "IDi", "RFC 7296";
        ID_R = 36, "IDr", "RFC 7296";
        CERT = 37, "CERT", "RFC 7296";
        CERTREQ = 38, "CERTREQ", "RFC 7296";
        AUTH = 39, "AUTH", "RFC 7296";
        NONCE = 40, "Nonce", "RFC 7296";
        NOTIFY = 41, "N", "RFC 7296";
        DELETE = 42, "D", "RFC 7296";
        VENDOR_ID = 43, "V", "RFC 7296";
        TS_I = 44, "TSi", "RFC 7296";
        TS_R = 45, "TSr", "RFC 7296";
        SK = 46, "SK", "RFC 7296";
        CP = 47, "CP", "RFC 7296";
        EAP = 48, "EAP", "RFC 7296";
        GSPM = 49, "GSPM", "RFC 6467";
        ID_G = 50, "IDg", "RFC 9838";
        GSA = 51, "GSA", "RFC 9838";
        KD = 52, "KD", "RFC 9838";
        SKF = 53, "SKF", "RFC 7383";
        PS = 54, "PS", "RFC 8019";
    }
}

code_points! {
    /// Security Protocol Identifier (RFC 7296 section 3.3.1).
    ProtocolId(u8) {
        NONE = 0, "none", "RFC 7296 section 3.10";
        IKE = 1, "IKE", "RFC 7296";
        AH = 2, "AH", "RFC 7296";
        ESP = 3, "ESP", "RFC 7296";
        FC_ESP_HEADER = 4, "FC_ESP_HEADER", "RFC 4595";
        FC_CT_AUTHENTICATION = 5, "FC_CT_AUTHENTICATION", "RFC 4595";
        GIKE_UPDATE = 6, "GIKE_UPDATE", "RFC 9838";
    }
}

code_points! {
    /// Transform Type (RFC 7296 section 3.3.2).
    TransformType(u8) {
        ENCR = 1, "ENCR", "RFC 7296";
        PRF = 2, "PRF", "RFC 7296";
        INTEG = 3, "INTEG", "RFC 7296";
        KE = 4, "KE", "RFC 7296 (\"Diffie-Hellman Group\") and RFC 9370";
        SN = 5, "SN", "RFC 7296 (\"Extended Sequence Numbers\") and RFC 9827";
        ADDKE1 = 6, "ADDKE1", "RFC 9370";
        ADDKE2 = 7, "ADDKE2", "RFC 9370";
        ADDKE3 = 8, "ADDKE3", "RFC 9370";
        ADDKE4 = 9, "ADDKE4", "RFC 9370";
        ADDKE5 = 10, "ADDKE5", "RFC 9370";
        ADDKE6 = 11, "ADDKE6", "RFC 9370";
        ADDKE7 = 12, "ADDKE7", "RFC 9370";
        KWA = 13, "KWA", "RFC 9838";
        GCAUTH = 14, "GCAUTH", "RFC 9838";
    }
}

impl TransformType {
    /// How many additional key exchanges a proposal can name (RFC 9370 section 2.2.1).
    pub const ADDITIONAL_KEY_EXCHANGES: usize = 7;

    /// The type of the `index`th additional key exchange, counted from 0.
    pub const fn additional_key_exchange(index: usize) -> Option<Self> {
        if index < Self::ADDITIONAL_KEY_EXCHANGES { Some(Self(6 + index as u8)) } else { None }
    }

    /// Which additional key exchange this type is, counted from 0.
    pub const fn additional_key_exchange_index(self) -> Option<usize> {
        match self.0 {
            6..=12 => Some((self.0 - 6) as usize),
            _ => None,
        }
    }
}

code_points! {
    /// Transform Attribute Type (RFC 7296 section 3.3.5), 15 bits.
    AttributeType(u16) {
        KEY_LENGTH = 14, "Key Length", "RFC 7296";
        SIGNATURE_ALGORITHM_IDENTIFIER = 18, "Signature Algorithm Identifier", "RFC 9838";
    }
}
