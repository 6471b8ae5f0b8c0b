//! The classic pcap file format, as tshark reads it.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, Result};

/// Writes Ethernet frames with the time of their writing.
pub(super) struct PcapWriter(BufWriter<File>);

impl PcapWriter {
    pub(super) fn create(path: &Path) -> Result<Self> {
        const MAGIC_MICROSECONDS: u32 = 0xa1b2_c3d4;
        const ETHERNET: u32 = 1;
        const SNAP_LENGTH: u32 = 1 << 18;
        let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
        let mut writer = BufWriter::new(file);
        writer.write_all(&MAGIC_MICROSECONDS.to_ne_bytes())?;
        writer.write_all(&[2u16.to_ne_bytes(), 4u16.to_ne_bytes()].concat())?;
        // Time zone and accuracy are zero in every file.
        writer.write_all(&[0; 8])?;
        writer.write_all(&[SNAP_LENGTH.to_ne_bytes(), ETHERNET.to_ne_bytes()].concat())?;
        Ok(Self(writer))
    }

    pub(super) fn write(&mut self, frame: &[u8]) -> Result<()> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        let length = frame.len() as u32;
        for field in [now.as_secs() as u32, now.subsec_micros(), length, length] {
            self.0.write_all(&field.to_ne_bytes())?;
        }
        Ok(self.0.write_all(frame)?)
    }

    pub(super) fn finish(mut self) -> Result<()> {
        Ok(self.0.flush()?)
    }
}
