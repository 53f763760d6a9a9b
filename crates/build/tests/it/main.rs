//! Whole builds, held against what BuildKit does with the same Dockerfile.

mod args;
mod cache;
mod compare;
mod config;
mod copies;
mod faults;
mod harness;
mod layers;
mod parallel;
mod print;
mod runs;
mod stages;
