//! Settings in the form of `strongswan.conf` and `swanctl.conf`: sections in sections, and values.

use std::collections::BTreeMap;
use std::fmt;

/// A section.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Settings {
    values: BTreeMap<String, String>,
    sections: BTreeMap<String, Settings>,
}

impl Settings {
    /// Sets the value at `path` (keys joined by `/`), making sections on the way.
    #[must_use]
    pub fn with(mut self, path: &str, value: impl Into<String>) -> Self {
        self.set(path, value);
        self
    }

    /// Sets the value at `path` (keys joined by `/`), making sections on the way.
    pub fn set(&mut self, path: &str, value: impl Into<String>) {
        match path.split_once('/') {
            Some((section, rest)) => self.section(section).set(rest, value),
            None => drop(self.values.insert(path.to_owned(), value.into())),
        }
    }

    /// Removes the value or section at `path`, if it is there.
    pub fn remove(&mut self, path: &str) {
        match path.split_once('/') {
            Some((section, rest)) => {
                if let Some(section) = self.sections.get_mut(section) {
                    section.remove(rest);
                }
            }
            None => {
                self.values.remove(path);
                self.sections.remove(path);
            }
        }
    }

    /// The value at `path`, if it is there.
    pub fn text(&self, path: &str) -> Option<&str> {
        match path.split_once('/') {
            Some((section, rest)) => self.sections.get(section)?.text(rest),
            None => self.values.get(path).map(String::as_str),
        }
    }

    /// Its sections by name.
    pub(super) fn sections(&self) -> impl Iterator<Item = (&str, &Settings)> {
        self.sections.iter().map(|(name, section)| (name.as_str(), section))
    }

    /// The section of this name, made if it is missing.
    pub(super) fn section(&mut self, name: &str) -> &mut Settings {
        self.sections.entry(name.to_owned()).or_default()
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, value) in &self.values {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"");
            writeln!(f, "{key} = \"{value}\"")?;
        }
        for (name, section) in &self.sections {
            write!(f, "{name} {{\n{section}}}\n")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_set_found_removed_and_written_by_path() {
        let mut settings = Settings::default().with("a/b/c", "1").with("a/b/d", "say \"2\"").with("e", "3");
        assert_eq!(settings.to_string(), "e = \"3\"\na {\nb {\nc = \"1\"\nd = \"say \\\"2\\\"\"\n}\n}\n");
        assert_eq!(
            (settings.text("a/b/c"), settings.text("a/x/c"), settings.text("e")),
            (Some("1"), None, Some("3"))
        );
        settings.remove("a/b");
        settings.remove("nowhere/at/all");
        assert_eq!(settings.text("a/b/c"), None);
    }
}
