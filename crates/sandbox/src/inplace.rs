//! In place.
