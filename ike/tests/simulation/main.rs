//! Endpoints over a simulated network with a virtual clock (design section 8, rung 2).

mod configuration;
mod network;
mod node;
mod world;

mod rekey;
mod rows;
mod setup;
