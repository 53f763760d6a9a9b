//! Text to spanned instructions: the Dockerfile language of BuildKit's frontend 1.26, and `.dockerignore`.
//!
//! [`parse()`] is the whole front door. What it returns is syntax: variables are not expanded (that needs the values of a
//! build, see [`expand`]), names are not resolved, nothing is read from disk. Every node has its byte range.

pub mod ast;
mod directives;
pub mod error;
pub mod expand;
pub mod glob;
mod heredoc;
pub mod ignore;
mod instruction;
mod json;
mod lex;
pub mod lint;
mod mount;
mod parse;
mod source;
mod suggest;
mod values;

pub use ast::*;
pub use error::{Diagnostic, ParseError};
pub use parse::{parse, parse_onbuild, parse_with_checks};
pub use values::size_bytes;

/// The longest Dockerfile that is read, in bytes. What is longer is no Dockerfile but a mistake, say an archive.
pub const MAX_SOURCE_BYTES: usize = 16 << 20;
