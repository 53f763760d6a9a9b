//! Paths in JSON: serde writes a path as text and refuses what is not UTF-8; here it is bytes.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A path by itself, as in a list.
#[derive(Clone, Serialize, Deserialize)]
pub struct Written(#[serde(with = "crate::wire")] pub PathBuf);

pub fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
    path.as_os_str().serialize(to)
}

pub fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<PathBuf, D::Error> {
    OsString::deserialize(from).map(PathBuf::from)
}

/// A path that there may be.
pub mod optional {
    use super::*;

    pub fn serialize<S: Serializer>(path: &Option<PathBuf>, to: S) -> Result<S::Ok, S::Error> {
        path.as_ref().map(|path| path.as_os_str()).serialize(to)
    }

    pub fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Option<PathBuf>, D::Error> {
        Ok(Option::<OsString>::deserialize(from)?.map(PathBuf::from))
    }
}

/// A secret, written for a helper and for nobody else.
pub mod secret {
    use auth::Secret;

    use super::*;

    pub fn serialize<S: Serializer>(secret: &Secret<Vec<u8>>, to: S) -> Result<S::Ok, S::Error> {
        secret.reveal().serialize(to)
    }

    pub fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Secret<Vec<u8>>, D::Error> {
        Vec::deserialize(from).map(Secret::new)
    }
}
