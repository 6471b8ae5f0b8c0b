//! Reading values out of the tree: each knows its key from the root, and what is not understood is reported.

use std::fmt::Display;
use std::str::FromStr;

use super::document::{Key, Node, Value};
use super::problem::{Mark, Problem, Problems, Severity};

/// A value with its key.
#[derive(Clone, Debug)]
pub struct Field<'a> {
    node: &'a Node,
    place: Place,
    problems: &'a Problems,
}

/// Where a value is, for problems that show only when several values are compared.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// Position of the value.
    pub mark: Mark,
    /// Its key from the root.
    pub key: String,
}

/// A mapping that is being read.
#[derive(Debug)]
pub struct Section<'a> {
    entries: &'a [(Key, Node)],
    place: Place,
    problems: &'a Problems,
    known: Vec<&'static str>,
}

impl<'a> Field<'a> {
    /// The root of a document.
    pub fn root(node: &'a Node, problems: &'a Problems) -> Self {
        Self { node, place: Place { mark: node.mark, key: String::new() }, problems }
    }

    /// Reports an error about this value.
    pub fn refuse<T>(&self, message: impl Display) -> Option<T> {
        self.problems.push(self.place.problem(Severity::Error, message));
        None
    }

    /// Reports a word that is none of a few.
    pub fn refuse_word<T>(&self, text: &str, allowed: &[&str]) -> Option<T> {
        let message = format!("'{text}' is not one of {}", allowed.join(", "));
        let allowed = allowed.iter().map(|word| (*word).to_owned()).collect();
        self.problems.push(Problem { allowed, ..self.place.problem(Severity::Error, message) });
        None
    }

    /// Reports a warning about this value.
    pub fn warn(&self, message: impl Display) {
        self.problems.push(self.place.problem(Severity::Warning, message));
    }

    /// A scalar as text.
    pub fn text(&self) -> Option<&'a str> {
        match &self.node.value {
            Value::Scalar { text, .. } => Some(text),
            _ => self.refuse("a single value is expected here"),
        }
    }

    /// A scalar that `read` understands.
    pub fn read<T, E: Display>(&self, read: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        read(self.text()?).map_err(|error| self.refuse::<T>(error)).ok()
    }

    /// A number between `least` and `most`.
    pub fn number<N: FromStr + PartialOrd + Display>(&self, least: N, most: N) -> Option<N> {
        match self.text()?.parse::<N>() {
            Ok(n) if n >= least && n <= most => Some(n),
            _ => self.refuse(format!("a number from {least} to {most} is expected here")),
        }
    }

    /// `true` or `false`.
    pub fn flag(&self) -> Option<bool> {
        self.word(&[("true", true), ("false", false)])
    }

    /// One of a few words.
    pub fn word<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let text = self.text()?;
        match words.iter().find(|(word, _)| *word == text) {
            Some((_, value)) => Some(*value),
            None => {
                let allowed: Vec<_> = words.iter().map(|(word, _)| *word).collect();
                self.refuse_word(text, &allowed)
            }
        }
    }

    /// A list, or a single value for a list of one. Items that are refused are left out.
    pub fn list<T>(&self, item: impl Fn(&Field<'a>) -> Option<T>) -> Vec<T> {
        match &self.node.value {
            Value::Sequence(nodes) => {
                let fields =
                    nodes.iter().enumerate().map(|(index, node)| self.child(node, &format!("[{index}]")));
                fields.filter_map(|field| item(&field)).collect()
            }
            Value::Null => Vec::new(),
            _ => item(self).into_iter().collect(),
        }
    }

    /// Like [`Field::list`], but reports a list without any item.
    pub fn items<T>(&self, what: &str, item: impl Fn(&Field<'a>) -> Option<T>) -> Vec<T> {
        let is_empty = match &self.node.value {
            Value::Sequence(nodes) => nodes.is_empty(),
            Value::Null => true,
            _ => false,
        };
        if is_empty {
            self.refuse::<()>(format!("at least one {what} is needed"));
        }
        self.list(item)
    }

    /// The entries of a mapping whose keys are names that the operator chose.
    pub fn entries(&self) -> Vec<(&'a str, Field<'a>)> {
        match &self.node.value {
            Value::Mapping(entries) => {
                let entry = |(key, node): &'a (Key, Node)| {
                    let mut field = self.child(node, &format!(".{}", key.name));
                    field.place.mark = key.mark;
                    (key.name.as_str(), field)
                };
                entries.iter().map(entry).collect()
            }
            Value::Null => Vec::new(),
            _ => self.refuse("keys with values are expected here").unwrap_or_default(),
        }
    }

    /// Reads a mapping with known keys; every other key is reported.
    pub fn section<T>(&self, read: impl FnOnce(&mut Section<'a>) -> Option<T>) -> Option<T> {
        let entries = match &self.node.value {
            Value::Mapping(entries) => entries.as_slice(),
            Value::Null => &[],
            _ => return self.refuse("keys with values are expected here"),
        };
        let mut section =
            Section { entries, place: self.place.clone(), problems: self.problems, known: Vec::new() };
        let value = read(&mut section);
        section.report_unknown();
        value
    }

    /// True if it is a mapping with this key.
    pub fn has(&self, name: &str) -> bool {
        matches!(&self.node.value, Value::Mapping(entries) if entries.iter().any(|(key, _)| key.name == name))
    }

    /// The value as a JSON document.
    pub fn document(&self) -> serde_json::Value {
        self.node.to_json()
    }

    fn child(&self, node: &'a Node, suffix: &str) -> Self {
        let key = format!("{}{suffix}", self.place.key);
        let key = key.strip_prefix('.').map(str::to_owned).unwrap_or(key);
        Self { node, place: Place { mark: node.mark, key }, problems: self.problems }
    }
}

impl<'a> Section<'a> {
    /// The value of a key, if it is there.
    pub fn get(&mut self, name: &'static str) -> Option<Field<'a>> {
        self.known.push(name);
        let (_, node) = self.entries.iter().find(|(key, _)| key.name == name)?;
        let key =
            if self.place.key.is_empty() { name.to_owned() } else { format!("{}.{name}", self.place.key) };
        Some(Field { node, place: Place { mark: node.mark, key }, problems: self.problems })
    }

    /// The value of a key that has to be there.
    pub fn need(&mut self, name: &'static str) -> Option<Field<'a>> {
        let field = self.get(name);
        if field.is_none() {
            self.refuse::<()>(format!("key '{name}' is missing"));
        }
        field
    }

    /// The value of a key, or `default` if it is not there or refused.
    pub fn or<T>(&mut self, name: &'static str, default: T, read: impl FnOnce(&Field<'a>) -> Option<T>) -> T {
        self.get(name).and_then(|field| read(&field)).unwrap_or(default)
    }

    /// Reports an error about the section as a whole.
    pub fn refuse<T>(&self, message: impl Display) -> Option<T> {
        self.problems.push(self.place.problem(Severity::Error, message));
        None
    }

    /// Reports a warning about the section as a whole.
    pub fn warn(&self, message: impl Display) {
        self.problems.push(self.place.problem(Severity::Warning, message));
    }

    /// True if the key is there.
    pub fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|(key, _)| key.name == name)
    }

    /// Where problems go.
    pub fn problems(&self) -> &'a Problems {
        self.problems
    }

    /// Where the section is.
    pub fn place(&self) -> Place {
        self.place.clone()
    }

    fn report_unknown(&self) {
        for (key, _) in self.entries.iter().filter(|(key, _)| !self.known.contains(&key.name.as_str())) {
            let place = Place {
                mark: key.mark,
                key: if self.place.key.is_empty() {
                    key.name.clone()
                } else {
                    format!("{}.{}", self.place.key, key.name)
                },
            };
            let mut known = self.known.clone();
            known.sort_unstable();
            known.dedup();
            let message = format!("unknown key; known here: {}", known.join(", "));
            let allowed = known.iter().map(|word| (*word).to_owned()).collect();
            self.problems.push(Problem { allowed, ..place.problem(Severity::Error, message) });
        }
    }
}

impl Place {
    /// A problem at this place.
    pub fn problem(&self, severity: Severity, message: impl Display) -> Problem {
        Problem {
            severity,
            mark: self.mark,
            key: self.key.clone(),
            message: message.to_string(),
            allowed: Vec::new(),
        }
    }
}
