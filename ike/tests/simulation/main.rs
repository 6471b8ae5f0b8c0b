//! Endpoints over a simulated network with a virtual clock (design section 8, rung 2).

mod configuration;
mod network;
mod node;
mod world;

mod ends;
mod refusals;
mod rekey;
mod rows;
mod setup;
mod walks;
