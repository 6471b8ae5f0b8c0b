//! Endpoints over a simulated network with a virtual clock (design section 8, rung 2).

mod configuration;
mod esp;
mod network;
mod node;
mod settled;
mod tap;
mod tcp;
mod trace;
mod world;

mod ends;
mod refusals;
mod rekey;
mod rows;
mod setup;
mod streams;
mod walks;
