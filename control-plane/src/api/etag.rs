//! Entity tags of documents, and the conditions that callers make of them (RFC 9110 section 13).
//!
//! A tag names the document, not the live state that is shown beside it.

use axum::http::{HeaderMap, HeaderValue, header};

use crate::changes::Precondition;
use crate::digest::short_hex;

/// The tag of a document.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tag(String);

/// What a caller takes for granted about the document it changes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Conditions {
    /// If-Match.
    is: Option<Wanted>,
    /// If-None-Match.
    is_not: Option<Wanted>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Wanted {
    Any,
    One(Vec<String>),
}

impl Tag {
    /// The tag of a document that consists of these parts.
    pub fn of(parts: &[&str]) -> Self {
        Self(format!("\"{}\"", short_hex(parts.join("\0").as_bytes())))
    }

    /// As a header.
    pub fn header(&self) -> (header::HeaderName, HeaderValue) {
        let value = HeaderValue::from_str(&self.0).unwrap_or_else(|_| HeaderValue::from_static("\"\""));
        (header::ETAG, value)
    }
}

impl Conditions {
    /// Those of a request.
    pub fn of(headers: &HeaderMap) -> Self {
        Self { is: wanted(headers, &header::IF_MATCH), is_not: wanted(headers, &header::IF_NONE_MATCH) }
    }

    /// Whether they hold for what is there, if anything.
    ///
    /// # Errors
    /// Says which one does not.
    pub fn check(&self, present: Option<&Tag>) -> Result<(), Precondition> {
        match (&self.is, present) {
            (Some(_), None) => return Err(Precondition::Stale),
            (Some(Wanted::One(tags)), Some(tag)) if !tags.contains(&tag.0) => {
                return Err(Precondition::Stale);
            }
            _ => {}
        }
        match (&self.is_not, present) {
            (Some(Wanted::Any), Some(_)) => Err(Precondition::Exists),
            (Some(Wanted::One(tags)), Some(tag)) if tags.contains(&tag.0) => Err(Precondition::Exists),
            _ => Ok(()),
        }
    }

    /// Like [`Conditions::check`], and something that is there is replaced or removed only with If-Match.
    ///
    /// # Errors
    /// Says which one does not hold, or that If-Match is missing.
    pub fn check_needed(&self, present: Option<&Tag>) -> Result<(), Precondition> {
        self.check(present)?;
        if present.is_some() && self.is.is_none() { Err(Precondition::Missing) } else { Ok(()) }
    }

    /// The caller has this version already.
    pub fn has(&self, tag: &Tag) -> bool {
        match &self.is_not {
            Some(Wanted::Any) => true,
            Some(Wanted::One(tags)) => tags.iter().any(|other| other.trim_start_matches("W/") == tag.0),
            None => false,
        }
    }
}

fn wanted(headers: &HeaderMap, name: &header::HeaderName) -> Option<Wanted> {
    let mut tags = Vec::new();
    let mut values = headers.get_all(name).iter().peekable();
    values.peek()?;
    for value in values {
        // A value that is no text matches nothing.
        let text = value.to_str().unwrap_or_default();
        if text.trim() == "*" {
            return Some(Wanted::Any);
        }
        tags.extend(text.split(',').map(|tag| tag.trim().to_owned()));
    }
    Some(Wanted::One(tags))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_takes_place_only_on_the_version_that_was_read() {
        let (tag, other) = (Tag::of(&["a"]), Tag::of(&["b"]));
        assert_ne!(tag, other);
        let matching = conditions("if-match", &format!("\"x\", {}", tag.0));
        assert_eq!(matching.check_needed(Some(&tag)), Ok(()));
        assert_eq!(matching.check_needed(Some(&other)), Err(Precondition::Stale));
        assert_eq!(matching.check(None), Err(Precondition::Stale));
        assert_eq!(conditions("if-match", "*").check_needed(Some(&tag)), Ok(()));
        assert_eq!(Conditions::default().check_needed(Some(&tag)), Err(Precondition::Missing));
        assert_eq!(Conditions::default().check_needed(None), Ok(()));
        // If-Match compares strongly (RFC 9110 section 13.1.1).
        assert_eq!(
            conditions("if-match", &format!("W/{}", tag.0)).check(Some(&tag)),
            Err(Precondition::Stale)
        );
    }

    #[test]
    fn if_none_match_protects_what_is_there() {
        let tag = Tag::of(&["a"]);
        let create = conditions("if-none-match", "*");
        assert_eq!(create.check_needed(None), Ok(()));
        assert_eq!(create.check(Some(&tag)), Err(Precondition::Exists));
        assert!(conditions("if-none-match", &format!("W/{}", tag.0)).has(&tag));
    }

    fn conditions(name: &'static str, value: &str) -> Conditions {
        let headers = HeaderMap::from_iter([(
            header::HeaderName::from_static(name),
            HeaderValue::from_str(value).unwrap(),
        )]);
        Conditions::of(&headers)
    }
}
