//! An SSH agent for the steps of a build: one that forwards to the user's agent, and one of our own over private keys.
//!
//! It lists keys and signs, and does nothing else that a step may ask for. Messages are those of draft-miller-ssh-agent. It
//! does not know what a step is, nor where the connection comes from that it answers.

mod agent;
mod der;
mod key;
mod openssh;
mod pem;
mod upstream;
mod wire;

pub use agent::{Agent, MESSAGE_MAX};
pub use key::{Key, KeyError};
