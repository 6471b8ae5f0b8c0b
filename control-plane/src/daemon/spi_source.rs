//! Inbound SPIs come from the data plane's SA table.

use portcullis_common::Spi;
use portcullis_data_plane::handle::DataPlane;
use portcullis_ike::endpoint::SpiSource;

/// The table as an endpoint sees it.
pub struct TableSpis {
    data_plane: DataPlane,
}

impl TableSpis {
    /// Over this data plane.
    pub fn new(data_plane: DataPlane) -> Self {
        Self { data_plane }
    }
}

impl SpiSource for TableSpis {
    fn allocate(&mut self) -> Option<u32> {
        self.data_plane.allocate_spi().ok().map(|spi| spi.0)
    }

    fn release(&mut self, spi: u32) {
        self.data_plane.release_spi(Spi(spi));
    }
}
