//! What the programs log, passed on to `tracing`.

use std::sync::Arc;

use ::log::{Level, Log, Metadata, Record};
use aya::Ebpf;
use aya_log::EbpfLogger;
use tokio::io::unix::AsyncFd;
use tracing::level_filters::LevelFilter;

use super::BpfError;

const MAP: &str = "AYA_LOGS";

/// The level from which the programs log: a line that nobody would see costs them nothing.
pub(super) fn level() -> u8 {
    match LevelFilter::current().into_level() {
        None => 0,
        Some(tracing::Level::ERROR) => aya_log::Level::Error as u8,
        Some(tracing::Level::WARN) => aya_log::Level::Warn as u8,
        Some(tracing::Level::INFO) => aya_log::Level::Info as u8,
        Some(tracing::Level::DEBUG) => aya_log::Level::Debug as u8,
        Some(tracing::Level::TRACE) => aya_log::Level::Trace as u8,
    }
}

/// Starts the task that reads the log of an interface's program.
pub(super) fn forward(ebpf: &mut Ebpf, interface: Arc<str>) -> Result<tokio::task::JoinHandle<()>, BpfError> {
    let logger = EbpfLogger::init_with_logger(ebpf, ToTracing { interface })
        .map_err(|error| BpfError::map(MAP, error))?;
    // SAFETY: a logger shows one and the same descriptor, its ring buffer's, and closes it only when dropped,
    // which is after `AsyncFd` has deregistered it.
    let mut logger = unsafe { AsyncFd::register(logger) }.map_err(|error| BpfError::map(MAP, error))?;
    Ok(tokio::spawn(async move {
        // An error means that the runtime is being shut down.
        while let Ok(mut ready) = logger.readable_mut().await {
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    }))
}

struct ToTracing {
    interface: Arc<str>,
}

impl Log for ToTracing {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let (interface, message) = (&*self.interface, record.args());
        match record.level() {
            Level::Error => tracing::error!(target: "xdp", interface, "{message}"),
            Level::Warn => tracing::warn!(target: "xdp", interface, "{message}"),
            Level::Info => tracing::info!(target: "xdp", interface, "{message}"),
            Level::Debug => tracing::debug!(target: "xdp", interface, "{message}"),
            Level::Trace => tracing::trace!(target: "xdp", interface, "{message}"),
        }
    }

    fn flush(&self) {}
}
