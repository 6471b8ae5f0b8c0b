//! A daemon's configuration file, and what a laboratory changes in it.

use std::path::Path;

use anyhow::{Context, Result};
use serde_yaml::Value;

/// A configuration as YAML, to be changed and written.
#[derive(Clone, PartialEq, Debug)]
pub struct DaemonConfig(Value);

/// Which path packets take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DataPlaneMode {
    /// AF_XDP, here in copy mode.
    Xdp,
    /// TUN and sockets.
    Tun,
}

impl DataPlaneMode {
    /// The word in the configuration.
    pub fn label(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::Tun => "tun",
        }
    }
}

impl DaemonConfig {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read or is no YAML.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        Ok(Self(serde_yaml::from_str(&text).with_context(|| format!("parsing {}", path.display()))?))
    }

    /// Sets the value at `path` (keys joined by `/`), making mappings on the way.
    #[must_use]
    pub fn with(mut self, path: &str, value: impl Into<Value>) -> Self {
        self.set(path, value);
        self
    }

    /// Sets the value at `path` (keys joined by `/`), making mappings on the way.
    pub fn set(&mut self, path: &str, value: impl Into<Value>) {
        let mut place = &mut self.0;
        for key in path.split('/') {
            if !place.is_mapping() {
                *place = Value::Mapping(serde_yaml::Mapping::new());
            }
            place = &mut place[key];
        }
        *place = value.into();
    }

    /// Parses `yaml` and sets it at `path`.
    ///
    /// # Errors
    /// If it is no YAML.
    pub fn set_yaml(&mut self, path: &str, yaml: &str) -> Result<()> {
        let value: Value = serde_yaml::from_str(yaml)?;
        self.set(path, value);
        Ok(())
    }

    /// Puts what is at `from` at `to` as well.
    pub fn copy(&mut self, from: &str, to: &str) {
        let value = from.split('/').try_fold(&self.0, |place, key| place.get(key)).cloned();
        self.set(to, value.unwrap_or_default());
    }

    /// Removes the value at `path`, if it is there.
    pub fn remove(&mut self, path: &str) {
        let (parent, key) = path.rsplit_once('/').unwrap_or(("", path));
        let mut place = &mut self.0;
        for key in parent.split('/').filter(|key| !key.is_empty()) {
            match place.get_mut(key) {
                Some(next) => place = next,
                None => return,
            }
        }
        if let Some(mapping) = place.as_mapping_mut() {
            mapping.remove(key);
        }
    }

    /// The text at `path`, if there is any.
    pub fn text(&self, path: &str) -> Option<&str> {
        path.split('/').try_fold(&self.0, |place, key| place.get(key))?.as_str()
    }

    /// The names of its connections.
    pub fn connections(&self) -> Vec<String> {
        let connections = self.0.get("connections").and_then(Value::as_mapping);
        connections.into_iter().flatten().filter_map(|(name, _)| name.as_str().map(str::to_owned)).collect()
    }

    /// Writes a file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_yaml::to_string(&self.0)?;
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_set_found_and_removed_by_path() {
        let mut config =
            DaemonConfig(serde_yaml::from_str("a: { b: text }\nconnections: { one: {} }").unwrap());
        config.set("a/c/d", "new");
        assert_eq!(
            (config.text("a/b"), config.text("a/c/d"), config.text("a/x")),
            (Some("text"), Some("new"), None)
        );
        config.remove("a/b");
        config.remove("nowhere/at/all");
        assert_eq!(config.text("a/b"), None);
        assert_eq!(config.connections(), ["one"]);
    }
}
