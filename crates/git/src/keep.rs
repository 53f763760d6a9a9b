//! The directory `.git` of a checkout that keeps it, made of what was fetched: a repository that git works with, without any
//! login, hook or log in it (gitrepository-layout, gitformat-index).

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read as _, Seek as _, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rootfs::Tree;

use super::address::Remote;
use super::object::ItemKind;
use super::objects::Objects;
use super::oid::{Format, Hasher, Oid};
use super::{Fault, Result};

/// What is in a `.git` besides objects.
pub struct Head<'a> {
    pub remote: &'a Remote,
    pub commit: Oid,
    /// `refs/heads/NAME` where a branch is checked out; none for a detached head.
    pub branch: Option<&'a str>,
    /// Full names, what they name, and what that names in the end if it is a tag.
    pub references: Vec<(String, Oid, Option<Oid>)>,
    /// Commits whose parents are not there.
    pub shallow: &'a [Oid],
    /// From the directory back to the files, for one that is not their `.git`.
    pub work_tree: Option<PathBuf>,
    /// Submodules as (name, address).
    pub modules: Vec<(String, String)>,
}

/// Writes the repository to `at`, of which only the parent is there (or parts of it, from submodules).
pub fn write(tree: &Tree, at: &Path, head: &Head<'_>, objects: &Objects<'_>, index: IndexWriter) -> Result<()> {
    let format = objects.format();
    for directory in ["", "objects", "objects/info", "objects/pack", "refs", "refs/heads", "refs/tags"] {
        make_dirs(tree, &at.join(directory))?;
    }
    let text = match head.branch {
        Some(branch) => format!("ref: {branch}\n"),
        None => format!("{}\n", head.commit),
    };
    write_file(tree, &at.join("HEAD"), text.as_bytes())?;
    write_file(tree, &at.join("config"), config(head, format).as_bytes())?;
    write_file(tree, &at.join("packed-refs"), packed(head).as_bytes())?;
    if !head.shallow.is_empty() {
        let lines: String = head.shallow.iter().map(|oid| format!("{oid}\n")).collect();
        write_file(tree, &at.join("shallow"), lines.as_bytes())?;
    }
    write_objects(tree, &at.join("objects"), objects)?;
    let mut out = BufWriter::new(tree.make_file(&at.join("index"))?);
    index.finish(format, &mut out)?;
    out.flush()?;
    Ok(tree.set_mode(&at.join("index"), 0o644)?)
}

/// Makes `path` and what is missing above it.
pub fn make_dirs(tree: &Tree, path: &Path) -> Result<()> {
    let mut made = PathBuf::new();
    for component in path.components() {
        made.push(component);
        if tree.stat(&made)?.is_none() {
            tree.make_dir(&made, 0o755)?;
        }
    }
    Ok(())
}

pub fn write_file(tree: &Tree, path: &Path, bytes: &[u8]) -> Result<()> {
    tree.make_file(path)?.write_all(bytes)?;
    Ok(tree.set_mode(path, 0o644)?)
}

fn config(head: &Head<'_>, format: Format) -> String {
    let version = if format == Format::Sha1 { 0 } else { 1 };
    let mut text = format!("[core]\n\trepositoryformatversion = {version}\n\tfilemode = true\n\tbare = false\n");
    if let Some(work_tree) = &head.work_tree {
        text += &format!("\tworktree = {}\n", quoted(&work_tree.to_string_lossy()));
    }
    if format != Format::Sha1 {
        text += &format!("[extensions]\n\tobjectformat = {}\n", format.name());
    }
    text += &format!("[remote \"origin\"]\n\turl = {}\n", quoted(&head.remote.to_string()));
    text += "\tfetch = +refs/heads/*:refs/remotes/origin/*\n";
    if let Some(name) = head.branch.and_then(|branch| branch.strip_prefix("refs/heads/")) {
        text += &format!("[branch {}]\n\tremote = origin\n\tmerge = refs/heads/{}\n", quoted(name), quoted(name));
    }
    for (name, url) in &head.modules {
        text += &format!("[submodule {}]\n\tactive = true\n\turl = {}\n", quoted(name), quoted(url));
    }
    text
}

/// A value that git-config reads as it is.
fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

fn packed(head: &Head<'_>) -> String {
    let mut references: Vec<_> = head.references.iter().filter(|(name, ..)| is_plain(name)).collect();
    references.sort();
    references.dedup_by(|one, other| one.0 == other.0);
    let mut text = "# pack-refs with: peeled fully-peeled sorted \n".to_owned();
    for (name, oid, peeled) in references {
        text += &format!("{oid} {name}\n");
        if let Some(peeled) = peeled {
            text += &format!("^{peeled}\n");
        }
    }
    text
}

/// What git takes for a reference name (git-check-ref-format(1)), nearly.
pub fn is_plain(name: &str) -> bool {
    let bad = |byte: u8| byte <= b' ' || byte == 0x7f || b"~^:?*[\\".contains(&byte);
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
    name.starts_with("refs/")
        && !name.bytes().any(bad)
        && !name.contains("..")
        && !name.contains("@{")
        && !name.ends_with('.')
        && name.split('/').all(part)
}

fn write_objects(tree: &Tree, at: &Path, objects: &Objects<'_>) -> Result<()> {
    for pack in objects.packs() {
        let mut file = pack.file();
        let length = objects.format().length();
        file.seek(SeekFrom::End(-(length as i64)))?;
        let mut sum = vec![0; length];
        file.read_exact(&mut sum)?;
        let name = format!("pack/pack-{}", Oid::new(&sum)?);
        file.seek(SeekFrom::Start(0))?;
        copy(tree, &at.join(format!("{name}.pack")), &mut |out| copy_all(&mut &*file, out))?;
        copy(tree, &at.join(format!("{name}.idx")), &mut |out| pack.index().copy_to(out))?;
    }
    if let Some(dumb) = objects.dumb() {
        dumb.each_loose(&mut |name, file| {
            make_dirs(tree, &at.join(&name[..2]))?;
            let path = at.join(&name[..2]).join(&name[2..]);
            copy(tree, &path, &mut |out| copy_all(file, out))
        })?;
    }
    Ok(())
}

fn copy(tree: &Tree, path: &Path, content: &mut dyn FnMut(&mut dyn Write) -> Result<()>) -> Result<()> {
    let mut out = tree.make_file(path)?;
    content(&mut out)?;
    Ok(tree.set_mode(path, 0o444)?)
}

fn copy_all(from: &mut dyn io::Read, out: &mut dyn Write) -> Result<()> {
    io::copy(from, out)?;
    Ok(())
}

/// The index: what git believes to have checked out. Entries go to a nameless file until their number is known.
pub struct IndexWriter {
    entries: BufWriter<File>,
    count: u32,
}

impl IndexWriter {
    pub fn create(work: &Path) -> Result<IndexWriter> {
        Ok(IndexWriter { entries: BufWriter::new(tempfile::tempfile_in(work)?), count: 0 })
    }

    /// Times, inode and owner are left out: git finds out by the content that a file is unchanged.
    pub fn entry(&mut self, path: &Path, kind: ItemKind, oid: &Oid, size: u64) -> Result<()> {
        let name = path.as_os_str().as_bytes();
        let mut entry = vec![0; 24];
        entry.extend_from_slice(&kind.mode().to_be_bytes());
        entry.extend_from_slice(&[0; 8]);
        entry.extend_from_slice(&(size as u32).to_be_bytes());
        entry.extend_from_slice(oid.as_bytes());
        entry.extend_from_slice(&(name.len().min(0xfff) as u16).to_be_bytes());
        entry.extend_from_slice(name);
        // One to eight NULs, up to a multiple of eight.
        entry.resize(entry.len() / 8 * 8 + 8, 0);
        self.entries.write_all(&entry)?;
        self.count = self.count.checked_add(1).ok_or_else(|| Fault::server("a repository of too many files"))?;
        Ok(())
    }

    fn finish(self, format: Format, out: &mut dyn Write) -> Result<()> {
        let mut file = self.entries.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.seek(SeekFrom::Start(0))?;
        let mut hasher = Hasher::new(format);
        let head = [&b"DIRC\x00\x00\x00\x02"[..], &self.count.to_be_bytes()].concat();
        let mut content = BufReader::new(io::Cursor::new(head).chain(file));
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = content.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
            out.write_all(&buffer[..count])?;
        }
        Ok(out.write_all(hasher.finish()?.as_bytes())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_references() {
        for good in ["refs/heads/main", "refs/tags/v1.0", "refs/heads/a/b-c_d"] {
            assert!(is_plain(good), "{good}");
        }
        for bad in [
            "HEAD",
            "refs/heads/../x",
            "refs/heads/a b",
            "refs/heads/a\n^",
            "refs//x",
            "refs/heads/.x",
            "refs/heads/x.lock",
        ] {
            assert!(!is_plain(bad), "{bad}");
        }
    }
}
