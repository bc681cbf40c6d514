//! End-to-end tests: the program `lode` from its command line, judged from outside.

mod captures;
mod changes;
mod clone;
mod command_line;
mod connector;
mod demo;
mod documents;
mod evolution;
mod example;
mod faults;
mod lakes;
mod modules;
mod poison;
mod questions;
mod sdk;
mod secrets;
mod server;
mod sharing;
mod source;
mod streaming;
mod structure;
mod swaps;
mod variants;
