//! Published test vectors: files of `name = value` lines, a case in each paragraph.

use std::collections::BTreeMap;
use std::convert::Infallible;

use rand_core::{TryCryptoRng, TryRng};

use crate::crypto::prf::tests::unhex;

/// The cases of one file, in order.
pub(crate) fn cases(file: &'static str) -> Vec<Case> {
    let paragraphs = file.split("\n\n").map(|text| {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Case(
            lines
                .filter_map(|line| line.split_once(" ="))
                .map(|(name, value)| (name, value.trim()))
                .collect(),
        )
    });
    paragraphs.filter(|case| !case.0.is_empty()).collect()
}

/// One case.
#[derive(Debug)]
pub(crate) struct Case(BTreeMap<&'static str, &'static str>);

impl Case {
    /// The text of a field.
    pub(crate) fn text(&self, name: &str) -> &'static str {
        self.0[name]
    }

    /// The octets of a field.
    pub(crate) fn octets(&self, name: &str) -> Vec<u8> {
        unhex(self.0[name])
    }

    /// The octets of a field that not every case has.
    pub(crate) fn some_octets(&self, name: &str) -> Option<Vec<u8>> {
        self.0.get(name).map(|hex| unhex(hex))
    }

    /// It is to succeed.
    pub(crate) fn is_valid(&self) -> bool {
        match self.text("result") {
            "valid" => true,
            "invalid" => false,
            other => panic!("{other} is no result"),
        }
    }

    /// What to say of it when it fails.
    pub(crate) fn label(&self) -> String {
        let head = ["algorithm", "name", "method", "tc"].iter().filter_map(|name| self.0.get(name).copied());
        head.collect::<Vec<_>>().join(" ")
    }
}

/// A generator that gives out these octets, once.
pub(crate) struct Fixed(pub(crate) Vec<u8>);

impl TryRng for Fixed {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut word = [0; 4];
        self.try_fill_bytes(&mut word)?;
        Ok(u32::from_le_bytes(word))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut word = [0; 8];
        self.try_fill_bytes(&mut word)?;
        Ok(u64::from_le_bytes(word))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        let rest = self.0.split_off(out.len());
        out.copy_from_slice(&self.0);
        self.0 = rest;
        Ok(())
    }
}

impl TryCryptoRng for Fixed {}
