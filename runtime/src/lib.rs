//! Lodestream: database changes from Kafka into Delta tables.
//!
//! The modules stand in the order the data meets them. `pipeline` alone knows them all.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod error;
pub mod model;
pub mod config;
pub mod failpoint;

pub mod source;
pub mod decode;
pub mod buffer;
pub mod transform;
pub mod lake;
pub mod gold;
pub mod connector;
pub mod pipeline;
pub mod server;

pub mod demo;
pub mod cli;
