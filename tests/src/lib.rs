//! Harness of the end-to-end tests.
//!
//! It drives the program `lode` as a user does (a pipeline file, a command line, signals), feeds it captures from a
//! file or through a mock broker in a process of its own, and has the lake judged by scripts that share no code with
//! the runtime. It never looks inside the runtime, and ends only processes that it started.

pub mod bad;
pub mod broker;
pub mod capture;
pub mod exposition;
pub mod guest;
pub mod http;
pub mod lake;
pub mod lode;
pub mod pipeline;
pub mod places;
pub mod process;
pub mod source;
pub mod wire;
