//! The client against registries that run: a real one, and one of our own that fails on demand.

mod common;
mod docker_registry;
mod faults;
mod odd;
