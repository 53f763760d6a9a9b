//! The parser.

use crate::{Dockerfile, Instruction, ParseError};

/// Parses a Dockerfile. `text` may have a BOM, CRLF lines and bytes that are not UTF-8 where BuildKit allows them.
pub fn parse(text: &[u8]) -> Result<Dockerfile, ParseError> {
    let _ = text;
    unimplemented!("parser")
}

/// Parses one ONBUILD trigger out of an image config.
pub fn parse_onbuild(text: &str) -> Result<Instruction, ParseError> {
    let _ = text;
    unimplemented!("parser")
}
