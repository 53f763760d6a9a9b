//! inplace
