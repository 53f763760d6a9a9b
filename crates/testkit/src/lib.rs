//! What tests of several crates need: real and faulty registries on 127.0.0.1, and images small enough to read.
//!
//! For tests only: functions panic where a test could not go on.

pub mod certificates;
pub mod docker_registry;
pub mod fake_registry;
pub mod fixture;
pub mod git_server;

pub use docker_registry::DockerRegistry;
pub use fake_registry::{FakeRegistry, Fault, Logged};
pub use git_server::GitServer;
