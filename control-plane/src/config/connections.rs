//! Connections in the order of the file, found by name.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use portcullis_ike::shared::Shared;

use super::Connection;

/// A slice of connections that knows where each name is. Names are unique and never change in place. Configurations that have
/// a connection in common, such as that of the file and the one in effect, share it.
#[derive(Clone, Debug, Default)]
pub struct Connections {
    all: Vec<Shared<Connection>>,
    places: HashMap<Arc<str>, usize>,
}

impl Connections {
    /// The connection of this name.
    pub fn named(&self, name: &str) -> Option<&Connection> {
        self.places.get(name).map(|place| &*self.all[*place])
    }

    /// Takes the place of the connection of the same name, or comes last.
    pub fn put(&mut self, connection: Connection) {
        match self.places.get(&connection.ike.name) {
            Some(place) => self.all[*place] = connection.into(),
            None => {
                self.places.insert(connection.ike.name.clone(), self.all.len());
                self.all.push(connection.into());
            }
        }
    }
}

impl FromIterator<Connection> for Connections {
    fn from_iter<I: IntoIterator<Item = Connection>>(connections: I) -> Self {
        let mut these = Self::default();
        connections.into_iter().for_each(|connection| these.put(connection));
        these
    }
}

impl Deref for Connections {
    type Target = [Shared<Connection>];

    fn deref(&self) -> &[Shared<Connection>] {
        &self.all
    }
}

impl DerefMut for Connections {
    fn deref_mut(&mut self) -> &mut [Shared<Connection>] {
        &mut self.all
    }
}
