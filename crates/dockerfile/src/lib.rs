//! Text to spanned instructions: the Dockerfile language of BuildKit's frontend 1.26, and `.dockerignore`.
//!
//! [`parse`] is the whole front door. What it returns is syntax: variables are not expanded (that needs the values of a
//! build, see [`expand`]), names are not resolved, nothing is read from disk. Every node has its byte range.

pub mod ast;
pub mod error;
pub mod expand;
pub mod glob;
pub mod ignore;
mod parse;

pub use ast::*;
pub use error::{Diagnostic, ParseError};
pub use parse::{parse, parse_onbuild};
