//! Repositories on servers that only have files (gitprotocol-http, «Dumb Clients»): objects are fetched one by one, packs whole.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};

use flate2::bufread::ZlibDecoder;
use net::Response;

use super::content::{Content, Spool};
use super::oid::{Format, Hasher, Oid};
use super::pack::{Kind, Pack};
use super::protocol::{Reference, advertised_line};
use super::transport::Http;
use super::{Fault, Limits, Result, Stop};

/// `info/refs` and the list of packs are text of as many lines as there are references and packs.
const TEXT_MAX_BYTES: u64 = 64 << 20;

/// The references in `info/refs`. Of what `HEAD` names nothing is said there.
pub fn references(response: &mut Response) -> Result<Vec<Reference>> {
    let mut references = Vec::new();
    for line in BufReader::new((&mut response.body).take(TEXT_MAX_BYTES)).split(b'\n') {
        let line = line?;
        if !line.is_empty() {
            advertised_line(&line, &mut references).map_err(|_| {
                Fault::server("the server has no git repository there (an answer that is no list of references)")
            })?;
        }
    }
    Ok(references)
}

/// Where `HEAD` points.
pub fn head(http: &Http<'_>) -> Result<Option<String>> {
    let Some(mut response) = http.file("HEAD")? else { return Ok(None) };
    let text = response.read_all(4096)?;
    Ok(std::str::from_utf8(&text).ok().and_then(|text| Some(text.strip_prefix("ref: ")?.trim().to_owned())))
}

/// Objects on such a server, and those that are here already.
pub struct Dumb<'a> {
    http: Http<'a>,
    format: Format,
    /// Loose objects as they came, by their names.
    loose: PathBuf,
    /// Packs that have not been fetched; none until the list was.
    packs: Option<Vec<String>>,
}

impl<'a> Dumb<'a> {
    pub fn new(http: Http<'a>, format: Format, work: &Path) -> Result<Dumb<'a>> {
        let loose = tempfile::Builder::new().prefix("objects-").tempdir_in(work)?.keep();
        Ok(Dumb { http, format, loose, packs: None })
    }

    /// The loose object; none when the server has no file of it.
    pub fn read(&self, oid: &Oid, work: &Path) -> Result<Option<(Kind, Content)>> {
        let name = oid.to_string();
        let path = self.loose.join(&name);
        if !path.exists() {
            let Some(mut response) = self.http.file(&format!("objects/{}/{}", &name[..2], &name[2..]))? else {
                return Ok(None);
            };
            let mut file = tempfile::NamedTempFile::new_in(&self.loose)?;
            let copied = io::copy(&mut (&mut response.body).take(super::OBJECT_MAX_BYTES), &mut file)?;
            if copied == super::OBJECT_MAX_BYTES {
                return Err(Fault::server("an object beyond all measure"));
            }
            decode(File::open(file.path())?, oid, self.format, work)?;
            file.persist(&path).map_err(|error| error.error)?;
        }
        decode(File::open(&path)?, oid, self.format, work).map(Some)
    }

    /// The next pack that is not here yet.
    pub fn next_pack(&mut self, work: &Path, limits: &Limits, stop: Stop<'_>) -> Result<Option<Pack>> {
        if self.packs.is_none() {
            self.packs = Some(self.list()?);
        }
        let Some(name) = self.packs.as_mut().and_then(Vec::pop) else { return Ok(None) };
        let missing = || Fault::server(format!("the server lists the pack `{name}` and does not have it"));
        let mut response = self.http.file(&format!("objects/pack/{name}"))?.ok_or_else(missing)?;
        Pack::receive(&mut response.body, self.format, work, limits, stop).map(Some)
    }

    fn list(&self) -> Result<Vec<String>> {
        let Some(mut response) = self.http.file("objects/info/packs")? else { return Ok(Vec::new()) };
        let text = response.read_all(TEXT_MAX_BYTES)?;
        let text = String::from_utf8_lossy(&text);
        let name = |line: &str| line.strip_prefix("P ").map(|name| name.trim().to_owned());
        let plain =
            |name: &String| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'));
        Ok(text.lines().filter_map(name).filter(plain).collect())
    }

    /// Names and files of the loose objects that are here.
    pub fn each_loose(&self, each: &mut dyn FnMut(&str, &mut File) -> Result<()>) -> Result<()> {
        for entry in std::fs::read_dir(&self.loose)? {
            let entry = entry?;
            if let Some(name) = entry.file_name().to_str().filter(|name| super::address::is_commit(name)) {
                each(name, &mut File::open(entry.path())?)?;
            }
        }
        Ok(())
    }
}

impl Drop for Dumb<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.loose);
    }
}

/// A loose object: `KIND SIZE`, NUL, content, all compressed. Its hash must be its name.
fn decode(file: impl Read, oid: &Oid, format: Format, work: &Path) -> Result<(Kind, Content)> {
    let broken = || Fault::server("a broken object");
    let mut inflated = BufReader::new(ZlibDecoder::new(BufReader::new(file)));
    let mut head = Vec::new();
    (&mut inflated).take(64).read_until(0, &mut head)?;
    let head = head.strip_suffix(b"\0").ok_or_else(broken)?;
    let space = head.iter().position(|byte| *byte == b' ').ok_or_else(broken)?;
    let kind = Kind::parse(&head[..space]).ok_or_else(broken)?;
    let size = std::str::from_utf8(&head[space + 1..]).ok().and_then(|size| size.parse().ok()).ok_or_else(broken)?;
    if size > super::OBJECT_MAX_BYTES {
        return Err(Fault::server("an object beyond all measure"));
    }
    let mut spool = Spool::new(size, work)?;
    let mut hasher = Hasher::object(format, kind.name(), size);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = inflated.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        spool.write_all(&buffer[..count])?;
        hasher.update(&buffer[..count]);
    }
    match hasher.finish()? == *oid {
        true => Ok((kind, spool.finish()?)),
        false => Err(Fault::server(format!("the object {oid} has another content"))),
    }
}
