//! The running gateway: shards, data plane, observers, and the life of the process around them.

mod carry_out;
mod clock;
mod facts;
mod gateway;
mod input;
mod life;
mod log_limit;
mod observer;
mod privilege;
mod puzzles;
mod shard;
mod sources;
mod spi_source;
mod supervisor;
mod words;

pub use clock::Clock;
pub use gateway::CommandError;
pub use input::{Input, InputSender};
pub use life::{Run, run};
pub use observer::Observer;
