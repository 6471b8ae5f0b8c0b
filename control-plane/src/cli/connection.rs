//! `portcullis status`, `up`, `down` and `rekey`: what is asked of a running daemon.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::place::Place;
use crate::client;

/// Which daemon is asked.
#[derive(Debug, Args)]
pub struct Daemon {
    /// Its control socket, if not where its name puts it.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
}

/// Show how traffic travels now, and why.
#[derive(Debug, Args)]
pub struct Status {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Only the data plane, every worker and drop reason.
    #[arg(long)]
    data_plane: bool,
    #[command(flatten)]
    daemon: Daemon,
}

/// One connection, and a child of it or all.
#[derive(Debug, Args)]
pub struct UpOrDown {
    /// Name of the connection.
    connection: String,
    /// Only this child.
    #[arg(long, value_name = "NAME")]
    child: Option<String>,
    #[command(flatten)]
    daemon: Daemon,
}

/// One connection.
#[derive(Debug, Args)]
pub struct Probe {
    /// Name of the connection.
    connection: String,
    #[command(flatten)]
    daemon: Daemon,
}

/// One connection, and where its peers go.
#[derive(Debug, Args)]
pub struct Redirect {
    /// Name of the connection.
    connection: String,
    /// Address of the other gateway.
    #[arg(long, value_name = "ADDRESS")]
    to: IpAddr,
    #[command(flatten)]
    daemon: Daemon,
}

/// What to give new keys.
#[derive(Debug, Args)]
pub struct Rekey {
    /// Name of the connection.
    connection: String,
    /// This child; every child without it.
    #[arg(long, value_name = "NAME", conflicts_with = "ike")]
    child: Option<String>,
    /// The IKE SA.
    #[arg(long)]
    ike: bool,
    #[command(flatten)]
    daemon: Daemon,
}

impl Daemon {
    /// The control socket of the daemon that is meant.
    ///
    /// # Errors
    /// If the configuration that names it is refused.
    pub fn socket(&self) -> Result<PathBuf> {
        match &self.socket {
            Some(socket) => Ok(socket.clone()),
            None => self.place.find().map(|found| found.socket),
        }
    }
}

impl Status {
    /// Prints it.
    ///
    /// # Errors
    /// If no daemon answers.
    pub fn run(&self) -> Result<()> {
        let socket = self.daemon.socket()?;
        if self.data_plane {
            client::data_plane(&socket, self.json)
        } else {
            client::status(&socket, self.json)
        }
    }
}

impl UpOrDown {
    /// Carries out `verb` and waits for its outcome.
    ///
    /// # Errors
    /// If no daemon answers, or what it says against it.
    pub fn run(&self, verb: &str) -> Result<()> {
        client::command(&self.daemon.socket()?, &self.connection, verb, self.child.as_deref(), false)
    }
}

impl Probe {
    /// Asks for it and prints what was begun.
    ///
    /// # Errors
    /// If no daemon answers, or what it says against it.
    pub fn run(&self) -> Result<()> {
        client::command(&self.daemon.socket()?, &self.connection, "probe", None, false)
    }
}

impl Redirect {
    /// Asks for it and prints how many were sent.
    ///
    /// # Errors
    /// If no daemon answers, or what it says against it.
    pub fn run(&self) -> Result<()> {
        client::redirect(&self.daemon.socket()?, &self.connection, self.to)
    }
}

impl Rekey {
    /// Rekeys and waits for the outcome.
    ///
    /// # Errors
    /// If no daemon answers, or what it says against it.
    pub fn run(&self) -> Result<()> {
        client::command(&self.daemon.socket()?, &self.connection, "rekey", self.child.as_deref(), self.ike)
    }
}
