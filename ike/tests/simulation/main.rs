//! Endpoints over a simulated network with a virtual clock: hours of protocol time in milliseconds, from a seed.

mod configuration;
mod created;
mod esp;
mod ledger;
mod network;
mod node;
mod settled;
mod tap;
mod tcp;
mod trace;
mod transcript;
mod world;

mod address;
mod authority;
mod certificates;
mod childless;
mod collisions;
mod echo;
mod ends;
mod fallback;
mod policy_table;
mod policy_walks;
mod ppk;
mod puzzles;
mod race;
mod reauthentication;
mod redirect;
mod refusals;
mod rekey;
mod returns;
mod rows;
mod setup;
mod storm;
mod streams;
mod walks;
