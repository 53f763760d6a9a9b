//! The objects of one repository, wherever they are.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::content::Content;
use super::dumb::Dumb;
use super::object::{self, Commit};
use super::oid::{Format, Oid};
use super::pack::{Kind, Pack};
use super::{Fault, Limits, Result, Stop};

/// Far more than any commit or tag has.
const TEXT_MAX_BYTES: u64 = 16 << 20;
/// A directory of a million files.
const TREE_MAX_BYTES: u64 = 64 << 20;
/// Tags of tags.
const TAGS_MAX: usize = 16;

pub struct Objects<'a> {
    format: Format,
    work: PathBuf,
    packs: Vec<Pack>,
    dumb: Option<Dumb<'a>>,
    limits: &'a Limits,
    stop: Stop<'a>,
}

impl<'a> Objects<'a> {
    pub fn new(
        format: Format,
        packs: Vec<Pack>,
        dumb: Option<Dumb<'a>>,
        work: &Path,
        limits: &'a Limits,
        stop: Stop<'a>,
    ) -> Objects<'a> {
        Objects { format, work: work.to_owned(), packs, dumb, limits, stop }
    }

    pub fn format(&self) -> Format {
        self.format
    }

    pub fn packs(&self) -> &[Pack] {
        &self.packs
    }

    pub fn dumb(&self) -> Option<&Dumb<'a>> {
        self.dumb.as_ref()
    }

    /// The commit that `oid` is or, as a tag, names in the end, and its name.
    pub fn commit(&mut self, oid: Oid) -> Result<(Oid, Commit)> {
        let mut oid = oid;
        for _ in 0..TAGS_MAX {
            let (kind, content) = self.read(&oid)?;
            let text = content.bytes(TEXT_MAX_BYTES, "a commit or tag")?;
            match kind {
                Kind::Commit => return Ok((oid, Commit::parse(&text)?)),
                Kind::Tag => oid = object::tagged(&text)?,
                Kind::Tree | Kind::Blob => {
                    return Err(Fault::server(format!("{oid} is a {}, not a commit", kind.name())));
                }
            }
        }
        Err(Fault::server("a tag of tags without end"))
    }

    pub fn tree(&mut self, oid: &Oid) -> Result<Rc<Vec<u8>>> {
        match self.read(oid)? {
            (Kind::Tree, content) => content.bytes(TREE_MAX_BYTES, "a directory"),
            _ => Err(Fault::server(format!("{oid} is not a tree"))),
        }
    }

    /// A small file.
    pub fn small_blob(&mut self, oid: &Oid, limit: u64, what: &str) -> Result<Rc<Vec<u8>>> {
        match self.read(oid)? {
            (Kind::Blob, content) => content.bytes(limit, what),
            _ => Err(Fault::server(format!("{oid} is not a file"))),
        }
    }

    /// Writes a file of at most `limit` bytes; gives its size.
    pub fn copy_blob(&mut self, oid: &Oid, limit: u64, out: &mut dyn Write) -> Result<u64> {
        (self.stop)()?;
        for pack in &mut self.packs {
            if let Some(offset) = pack.find(oid)? {
                return pack.copy_blob(offset, limit, out);
            }
        }
        match self.read(oid)? {
            (Kind::Blob, content) if content.size() <= limit => {
                content.copy_to(out)?;
                Ok(content.size())
            }
            (Kind::Blob, _) => Err(Fault::server(format!("a file beyond the limit of {limit} bytes"))),
            _ => Err(Fault::server(format!("{oid} is not a file"))),
        }
    }

    fn read(&mut self, oid: &Oid) -> Result<(Kind, Content)> {
        (self.stop)()?;
        for pack in &mut self.packs {
            if let Some(offset) = pack.find(oid)? {
                return pack.read(offset);
            }
        }
        let Some(dumb) = &mut self.dumb else {
            return Err(Fault::server(format!("the server did not send the object {oid}")));
        };
        if let Some(found) = dumb.read(oid, &self.work)? {
            return Ok(found);
        }
        while let Some(mut pack) = dumb.next_pack(&self.work, self.limits, self.stop)? {
            let found = pack.find(oid)?;
            let read = found.map(|offset| pack.read(offset)).transpose()?;
            self.packs.push(pack);
            if let Some(read) = read {
                return Ok(read);
            }
        }
        Err(Fault::server(format!("the server does not have the object {oid}")))
    }
}
