//! The log: structured lines on standard error.

use std::io::IsTerminal;

use tracing_subscriber::fmt;

use crate::config::{LogConfig, LogFormat};

/// Sets up the log of the process.
pub fn start(config: LogConfig) {
    let builder = fmt().with_max_level(config.level).with_writer(std::io::stderr).with_target(false);
    // A second call in one process keeps the first log.
    let _ = match config.format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        // The journal adds the time itself.
        LogFormat::Human if std::env::var_os("JOURNAL_STREAM").is_some() => {
            builder.without_time().with_ansi(false).try_init()
        }
        LogFormat::Human => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
    };
}
