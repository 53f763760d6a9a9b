//! Downloading one file: ADD of an address, contexts and Dockerfiles from the web.

use std::fs::File;
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};

use net::{Net, NetError, Response, chain, display_url};
use oci::{Digest, Hasher};
use reqwest::Url;

use crate::{ContextError, io};

/// A mistake or an endless answer; contexts and downloads of a build stay far below.
const DEFAULT_MAX_BYTES: u64 = 64 << 30;
const BUFFER_BYTES: usize = 128 * 1024;
/// What BuildKit calls a file whose address ends in no name.
const NO_NAME: &str = "__unnamed__";

/// What is to be downloaded.
#[derive(Clone, Copy, Debug)]
pub struct Fetch<'a> {
    pub url: &'a str,
    /// Sent to the host of `url` only.
    pub headers: &'a [(String, String)],
    /// `sha256:…` or `sha512:…` that the content must have.
    pub checksum: Option<&'a str>,
    pub max_bytes: u64,
}

/// A downloaded file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fetched {
    /// Where it is, in the directory that was given for it. It stays until someone removes it.
    pub path: PathBuf,
    /// Its name in the image: the last part of the path as it was written, whatever redirects and headers say.
    pub file_name: String,
    /// Seconds and nanoseconds: `Last-Modified`, or 1970 when the server says nothing or nonsense.
    pub modified: (i64, u32),
    /// Of the content; of the algorithm of the checksum where one was given, else sha256.
    pub digest: Digest,
    pub size_bytes: u64,
}

/// Downloads `url` into a new file below `work`, for ADD. See [`fetch`].
pub fn fetch_url(net: &Net, url: &str, checksum: Option<&str>, work: &Path) -> Result<Fetched, ContextError> {
    fetch(net, &Fetch { url, headers: &[], checksum, max_bytes: DEFAULT_MAX_BYTES }, work)
}

/// Downloads one file as a stream and verifies its checksum meanwhile.
///
/// BuildKit `source/http`: name, time and the statuses that are refused.
///
/// # Errors
/// [`ContextError::Fetch`] for no answer, a status that is no success, a broken or too long body and another digest;
/// [`ContextError::Invalid`] for a checksum that is none, before anything is asked. Nothing stays below `work` then.
pub fn fetch(net: &Net, wanted: &Fetch<'_>, work: &Path) -> Result<Fetched, ContextError> {
    let checksum = wanted.checksum.map(parse_checksum).transpose()?;
    let mut response = request(net, wanted.url, wanted.headers)?;
    let mut file = tempfile::Builder::new()
        .prefix("download-")
        .tempfile_in(work)
        .map_err(|source| io("could not make a file in", work.display(), source))?;
    let hasher = checksum.as_ref().map_or_else(Hasher::new, Hasher::like);
    let (digest, size_bytes) = save(&mut response, file.as_file_mut(), hasher, wanted)?;
    if let Some(expected) = checksum.filter(|expected| *expected != digest) {
        return Err(failed(wanted.url, format!("digest mismatch: expected {expected}, got {digest}")));
    }
    let (_, path) = file.keep().map_err(|error| io("could not keep", error.file.path().display(), error.error))?;
    Ok(Fetched {
        path,
        file_name: file_name(wanted.url),
        modified: (response.header("last-modified").and_then(net::parse_date).unwrap_or(0), 0),
        digest,
        size_bytes,
    })
}

/// A small file as bytes.
pub(crate) fn read_url(net: &Net, url: &str, max_bytes: u64) -> Result<Vec<u8>, ContextError> {
    request(net, url, &[])?.read_all(max_bytes).map_err(|error| failed(url, chain(&error)))
}

fn parse_checksum(text: &str) -> Result<Digest, ContextError> {
    Digest::parse(text)
        .map_err(|error| ContextError::Invalid { what: format!("checksum `{text}`"), reason: error.to_string() })
}

/// Asks for the body compressed, as BuildKit's client does: some servers compress it whether asked or not, and what is hashed
/// and copied is what was compressed.
fn request(net: &Net, url: &str, headers: &[(String, String)]) -> Result<Response, ContextError> {
    let gzip = ("accept-encoding".to_owned(), "gzip".to_owned());
    let response = net.get(url, &[headers, &[gzip]].concat()).map_err(|error| failed_on_the_way(url, &error))?;
    match response.is_success() {
        true => Ok(response),
        false => Err(failed(url, format!("the server answered {}", response.status_text()))),
    }
}

fn save(
    response: &mut Response,
    file: &mut File,
    mut hasher: Hasher,
    wanted: &Fetch<'_>,
) -> Result<(Digest, u64), ContextError> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = match response.body.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(wanted.url, chain(&error))),
        };
        hasher.update(&buffer[..read]);
        if hasher.size_bytes() > wanted.max_bytes {
            return Err(failed(wanted.url, format!("larger than the limit of {} bytes", wanted.max_bytes)));
        }
        file.write_all(&buffer[..read]).map_err(|source| io("could not store", display_url(wanted.url), source))?;
    }
    let size_bytes = hasher.size_bytes();
    Ok((hasher.finish(), size_bytes))
}

fn failed(url: &str, reason: String) -> ContextError {
    ContextError::Fetch { url: display_url(url), reason, hint: None }
}

/// No answer at all.
fn failed_on_the_way(url: &str, error: &NetError) -> ContextError {
    ContextError::Fetch { url: display_url(url), reason: chain(error), hint: error.hint().map(Into::into) }
}

/// The name of the file at `url`. BuildKit `dispatchCopy` (last part of the unescaped path) and `pathutil.SafeFileName`.
fn file_name(url: &str) -> String {
    let path = Url::parse(url).map(|url| unescape(url.path())).unwrap_or_default();
    let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or("");
    match name.trim() {
        "" | "." => NO_NAME.to_owned(),
        ".." => "download".to_owned(),
        name if name.chars().any(char::is_control) => "download".to_owned(),
        name => name.to_owned(),
    }
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = after.get(..2).filter(|_| byte == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(value) => {
                bytes.push(value);
                rest = &after[2..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests;
