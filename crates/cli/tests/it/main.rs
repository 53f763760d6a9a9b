//! The program as people start it: what it prints where, how it ends, and what it leaves behind.

mod docker;
mod faults;
mod fetched;
mod git;
mod harness;
mod interrupted;
mod kaniko;
mod lint;
mod on_failure;
mod outline;
mod outputs;
mod own_files;
mod registry;
mod running;
mod shortage;
mod shown;
mod signals;
mod suggestions;
mod terminal;
mod unprivileged;
mod usage;
mod verify;
