//! Documents of the API: JSON as the tree that YAML gives, and the tree as JSON.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value as Json;

use super::{Key, MAX_DEPTH, Node, Value};
use crate::config::problem::Mark;

/// Parses one JSON document.
///
/// # Errors
/// The first syntax error with its place, nesting that is too deep, or a key that is there twice.
pub fn parse(text: &[u8]) -> Result<Node, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let node = Seed { depth: 0 }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(node)
}

impl Node {
    /// As a JSON document. Plain scalars that JSON can spell alike become numbers and booleans.
    pub fn to_json(&self) -> Json {
        match &self.value {
            Value::Null => Json::Null,
            Value::Scalar { text, is_plain: true } => plain(text),
            Value::Scalar { text, is_plain: false } => Json::String(text.clone()),
            Value::Sequence(items) => items.iter().map(Self::to_json).collect(),
            Value::Mapping(entries) => {
                entries.iter().map(|(key, node)| (key.name.clone(), node.to_json())).collect()
            }
        }
    }

    fn of(value: Value) -> Self {
        Self { mark: Mark::default(), value }
    }

    fn plain(text: impl fmt::Display) -> Self {
        Self::of(Value::Scalar { text: text.to_string(), is_plain: true })
    }
}

fn plain(text: &str) -> Json {
    match text {
        "true" => true.into(),
        "false" => false.into(),
        _ => match text.parse::<u64>() {
            Ok(number) if number.to_string() == text => number.into(),
            _ => text.into(),
        },
    }
}

#[derive(Clone, Copy)]
struct Seed {
    depth: usize,
}

impl Seed {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        if self.depth < MAX_DEPTH {
            Ok(Self { depth: self.depth + 1 })
        } else {
            Err(E::custom("nested too deeply"))
        }
    }
}

impl<'de> DeserializeSeed<'de> for Seed {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::of(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::plain(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::plain(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::plain(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::plain(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::of(Value::Scalar { text: value.to_owned(), is_plain: false }))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let seed = self.deeper()?;
        let mut nodes = Vec::new();
        while let Some(node) = items.next_element_seed(seed)? {
            nodes.push(node);
        }
        Ok(Node::of(Value::Sequence(nodes)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let seed = self.deeper()?;
        let mut nodes: Vec<(Key, Node)> = Vec::new();
        while let Some(name) = entries.next_key::<String>()? {
            if nodes.iter().any(|(key, _)| key.name == name) {
                return Err(A::Error::custom(format!("key '{name}' is here twice")));
            }
            let node = entries.next_value_seed(seed)?;
            nodes.push((Key { mark: Mark::default(), name }, node));
        }
        Ok(Node::of(Value::Mapping(nodes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::document;

    #[test]
    fn yaml_and_json_of_the_same_meaning_give_the_same_document() {
        let yaml = document::parse("a: 10\nb: [true, 'x', \"12\", 0.5, 007]\nc: {d: ~}\n").unwrap().to_json();
        let json = br#"{"a":10,"b":[true,"x","12","0.5","007"],"c":{"d":null}}"#;
        assert_eq!(yaml, serde_json::from_slice::<Json>(json).unwrap());
        assert_eq!(parse(json).unwrap().to_json(), yaml);
    }

    #[test]
    fn what_is_no_document_is_refused() {
        for (text, message) in [
            ("{\"a\":1,\"a\":2}", "twice"),
            ("{\"a\":1} x", "trailing"),
            ("{\"a\":", "EOF"),
            (&"[".repeat(40), "deeply"),
        ] {
            let error = parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
        assert!(parse(b"\xff").is_err());
    }
}
