//! Registered numbers (IANA "IKEv2 Parameters"). A number newtype keeps values that this code does not know, and
//! prints them as numbers.

mod algorithm;
mod identity;
mod notify_type;
mod structure;

pub use algorithm::{EncrId, HashAlgorithm, IntegId, KeLengths, KeMethod, PrfId, SnId};
pub use identity::{AuthMethod, CertEncoding, CfgAttributeType, CfgType, IdType, TsType};
pub use notify_type::NotifyType;
pub use structure::{AttributeType, ExchangeType, PayloadType, ProtocolId, TransformType};

macro_rules! code_points {
    ($(#[$doc:meta])* $name:ident($int:ty) {
        $($constant:ident = $value:literal, $label:literal, $source:literal;)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $int);

        impl $name {
            $(
                #[doc = concat!($label, ", ", $source, ".")]
                pub const $constant: Self = Self($value);
            )*

            /// The registered name, if this code knows it.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some($label),)*
                    _ => None,
                }
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => core::fmt::Display::fmt(&self.0, f),
                }
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    };
}
use code_points;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_point_prints_its_name_or_its_number() {
        assert_eq!(ExchangeType(43).to_string(), "IKE_INTERMEDIATE");
        assert_eq!(ExchangeType(250).to_string(), "250");
        assert_eq!(format!("{:?}", EncrId(20)), "EncrId(ENCR_AES_GCM_16)");
        assert_eq!(format!("{:?}", NotifyType(42241)), "NotifyType(42241)");
    }
}
