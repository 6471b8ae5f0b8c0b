//! YAML text as a tree in which every node knows its position.

pub mod json;

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span};

use super::problem::{Mark, Problem, Severity};

/// Deeper nesting than this is refused: no key of ours needs it.
const MAX_DEPTH: usize = 16;

/// A value and where it begins.
#[derive(Debug)]
pub struct Node {
    /// Where it begins.
    pub mark: Mark,
    /// What it is.
    pub value: Value,
}

/// What a node is.
#[derive(Debug)]
pub enum Value {
    /// Text, number, boolean: told apart by who reads it.
    Scalar {
        /// As it stands, without quotes.
        text: String,
        /// It stands without quotes.
        is_plain: bool,
    },
    /// Nothing: an empty value, `~` or `null`.
    Null,
    /// A list.
    Sequence(Vec<Node>),
    /// Keys and values in the order of the text.
    Mapping(Vec<(Key, Node)>),
}

/// A key of a mapping.
#[derive(Debug)]
pub struct Key {
    /// Where it begins.
    pub mark: Mark,
    /// The key.
    pub name: String,
}

/// Parses one YAML document.
///
/// # Errors
/// The first syntax error, or something that a configuration has no use for: aliases, tags, several
/// documents, keys that are no text, a key twice.
pub fn parse(text: &str) -> Result<Node, Problem> {
    let mut events = Events { parser: Parser::new_from_str(text), last: Mark { line: 1, column: 1 } };
    let mut root = None;
    loop {
        let (event, mark) = events.next()?;
        match event {
            Event::StreamEnd => break,
            Event::DocumentStart(_) if root.is_some() => {
                return Err(problem(mark, "only one document is allowed"));
            }
            Event::Nothing | Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd => {}
            event => root = Some(events.node(event, mark, 0)?),
        }
    }
    Ok(root.unwrap_or(Node { mark: Mark { line: 1, column: 1 }, value: Value::Null }))
}

struct Events<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    last: Mark,
}

impl<'a> Events<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Mark), Problem> {
        match self.parser.next() {
            None => Ok((Event::StreamEnd, self.last)),
            Some(Ok((event, Span { start, .. }))) => {
                self.last = mark(&start);
                Ok((event, self.last))
            }
            Some(Err(error)) => Err(problem(mark(error.marker()), error.info())),
        }
    }

    fn node(&mut self, event: Event<'a>, mark: Mark, depth: usize) -> Result<Node, Problem> {
        if depth > MAX_DEPTH {
            return Err(problem(mark, "nested too deeply"));
        }
        let value = match event {
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => return Err(problem(mark, "tags are not used here")),
            Event::Alias(_) => return Err(problem(mark, "aliases are not used here: repeat the value")),
            Event::Scalar(text, ScalarStyle::Plain, ..) if matches!(&*text, "" | "~" | "null") => Value::Null,
            Event::Scalar(text, style, ..) => {
                Value::Scalar { text: text.into_owned(), is_plain: style == ScalarStyle::Plain }
            }
            Event::SequenceStart(..) => self.sequence(depth)?,
            Event::MappingStart(..) => self.mapping(depth)?,
            _ => return Err(problem(mark, "a value was expected here")),
        };
        Ok(Node { mark, value })
    }

    fn sequence(&mut self, depth: usize) -> Result<Value, Problem> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::Sequence(items)),
                (event, mark) => items.push(self.node(event, mark, depth + 1)?),
            }
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Value, Problem> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        let mut lines: HashMap<String, usize> = HashMap::new();
        loop {
            let key = match self.next()? {
                (Event::MappingEnd, _) => return Ok(Value::Mapping(entries)),
                (Event::Scalar(text, ..), mark) => Key { mark, name: text.into_owned() },
                (_, mark) => return Err(problem(mark, "a key has to be text")),
            };
            if let Some(first) = lines.insert(key.name.clone(), key.mark.line) {
                let message = format!("key '{}' is here twice, first in line {first}", key.name);
                return Err(problem(key.mark, &message));
            }
            let (event, mark) = self.next()?;
            // An empty value has no place of its own.
            let mark =
                if matches!(&event, Event::Scalar(text, ..) if text.is_empty()) { key.mark } else { mark };
            let value = self.node(event, mark, depth + 1)?;
            entries.push((key, value));
        }
    }
}

fn mark(marker: &Marker) -> Mark {
    Mark { line: marker.line(), column: marker.col() + 1 }
}

fn problem(mark: Mark, message: &str) -> Problem {
    Problem {
        severity: Severity::Error,
        mark,
        key: String::new(),
        message: message.to_owned(),
        allowed: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_know_their_place() {
        let root = parse("a: 1\nb:\n  - x\n  - {c: \"y\"}\n").unwrap();
        let Value::Mapping(entries) = root.value else { panic!() };
        assert_eq!((entries[1].0.mark, entries[0].1.mark), (at(2, 1), at(1, 4)));
        let Value::Sequence(items) = &entries[1].1.value else { panic!() };
        assert_eq!((items[0].mark, items[1].mark), (at(3, 5), at(4, 5)));
    }

    #[test]
    fn what_a_configuration_has_no_use_for_is_refused_where_it_stands() {
        for (text, place, message) in [
            ("a: 1\na: 2", at(2, 1), "twice, first in line 1"),
            ("a: &x 1\nb: *x", at(2, 4), "aliases"),
            ("a: !t 1", at(1, 4), "tags"),
            ("[a]: 1", at(1, 1), "has to be text"),
            ("a: 1\n---\nb: 2", at(2, 1), "only one document"),
            ("a: [1", at(2, 1), ""),
        ] {
            let problem = parse(text).unwrap_err();
            assert_eq!(problem.mark, place, "{text}: {problem}");
            assert!(problem.message.contains(message), "{text}: {problem}");
        }
        let deep = "[".repeat(40);
        assert!(parse(&deep).unwrap_err().message.contains("deeply"));
    }

    fn at(line: usize, column: usize) -> Mark {
        Mark { line, column }
    }
}
