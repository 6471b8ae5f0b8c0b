//! Which gateway a verb is about: by its configuration, or by its name.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::config::{self, Secrets};

/// The gateway that a verb is about.
#[derive(Debug, Args)]
pub struct Place {
    /// The gateway's configuration.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The gateway's name, if it is not the one in the configuration.
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,
}

/// Where state directories are without a configuration.
const STATE_ROOT: &str = "/var/lib/portcullis";

/// Where a gateway keeps what outlives its process.
#[derive(Debug)]
pub struct Found {
    /// Its name.
    pub instance: String,
    /// Its state directory.
    pub state_dir: PathBuf,
    /// Its control socket.
    pub socket: PathBuf,
}

impl Place {
    /// The gateway that is named; every gateway with a state directory in the default place, if none is.
    ///
    /// # Errors
    /// If the configuration is refused, or the name is none.
    pub fn find_all(&self) -> anyhow::Result<Vec<Found>> {
        if self.config.is_some() || self.instance.is_some() {
            return Ok(vec![self.find()?]);
        }
        let directories = match std::fs::read_dir(STATE_ROOT) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            directories => directories?,
        };
        let names = directories.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.map(|name| Self { config: None, instance: Some(name) }.find()).collect()
    }

    /// The gateway: from its configuration, else with the default paths of its name.
    ///
    /// # Errors
    /// If the configuration is refused, or the name is none.
    pub fn find(&self) -> anyhow::Result<Found> {
        if let Some(file) = &self.config {
            let config = config::load(file, self.instance.as_deref(), &Secrets::Skip)?.config;
            return Ok(Found {
                instance: config.instance.to_string(),
                state_dir: config.state_dir,
                socket: config.control.socket,
            });
        }
        let instance = self.instance.as_deref().unwrap_or("default");
        let instance =
            config::name(instance).map_err(|error| anyhow::anyhow!("--instance: {error}"))?.to_owned();
        Ok(Found {
            state_dir: Path::new(STATE_ROOT).join(&instance),
            socket: Path::new("/run/portcullis").join(&instance).join("control.sock"),
            instance,
        })
    }
}
