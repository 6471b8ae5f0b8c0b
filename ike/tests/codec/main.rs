//! The wire format, from outside: what is written can be read, what is wrong is named, and nothing makes it panic.

mod encrypted;
mod hostile;
mod malformed;
mod notify;
mod round_trip;
mod selectors;
mod strategies;
mod wire;
