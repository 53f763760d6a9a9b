//! COPY and ADD between trees, with BuildKit's rules (`solver/llbsolver/file`, `fsutil/copy`).
//!
//! The destination is resolved inside the rootfs, its last symbolic link included; what lands *below* it replaces links of that
//! name and never writes through them. A source is resolved inside its own tree, as far as the filter lets it be seen.
//! This module does not know Dockerfiles: expansion, `--chown` look-up and ADD's fetching are over before it is called.

mod anchor;
mod chmod;
mod content;
mod destination;
mod files;
mod source;
mod walk;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use crate::{FileKind, RootfsError, Tree, archive};

use destination::{Destination, Looks, Target};
use source::{Pattern, Source};
use walk::Copier;

/// What of the source tree may be seen (`.dockerignore`, `--exclude`).
pub trait Filter {
    /// Whether `path` (relative to the source tree) is left out.
    fn excludes(&self, path: &Path) -> bool;
    /// Whether something below an excluded directory may be let in again.
    fn may_include_below(&self, directory: &Path) -> bool;
}

/// Everything may be seen.
pub struct Everything;

impl Filter for Everything {
    fn excludes(&self, _: &Path) -> bool {
        false
    }
    fn may_include_below(&self, _: &Path) -> bool {
        true
    }
}

/// `--chmod`: an octal mode (at most 0o7777) or symbolic clauses such as `u=rwX,go=rX`. Made by [`Mode::parse`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Mode {
    Octal(u32),
    Symbolic(String),
}

impl Mode {
    /// Reads the value of `--chmod`.
    ///
    /// Digits are octal, anything else is symbolic as in BSD chmod(1) with an empty umask (BuildKit `dispatchCopy`,
    /// `tonistiigi/dchapes-mode`).
    ///
    /// # Errors
    /// [`CopyError::Refused`] for another digit, a mode beyond 07777 and broken clauses; the message shows the text.
    pub fn parse(text: &str) -> Result<Mode, CopyError> {
        if !text.starts_with(|first: char| first.is_ascii_digit()) {
            chmod::Clauses::parse(text)?;
            return Ok(Mode::Symbolic(text.to_owned()));
        }
        match u32::from_str_radix(text, 8) {
            Ok(mode) if mode <= 0o7777 => Ok(Mode::Octal(mode)),
            _ => refuse(format!("invalid chmod value `{text}`: it should be an octal number between 0 and 07777")),
        }
    }

    /// What becomes of the permission bits `before`.
    ///
    /// # Errors
    /// [`CopyError::Refused`] for clauses that [`Mode::parse`] has not seen.
    pub fn of(&self, before: u32, is_directory: bool) -> Result<u32, CopyError> {
        match self {
            Mode::Octal(mode) => Ok(mode & 0o7777),
            Mode::Symbolic(text) => Ok(chmod::Clauses::parse(text)?.apply(before, is_directory)),
        }
    }
}

/// How local archives are treated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Archives {
    /// COPY, and ADD --unpack=false.
    Copy,
    /// ADD of a local file, and ADD --unpack: unpack what is an archive by its content.
    Unpack,
}

#[derive(Clone, Debug)]
pub struct CopyOptions {
    /// Owner of everything written, implicit parents included; none: 0:0 for contexts, the source's for stages.
    pub owner: Option<(u32, u32)>,
    /// Whether the source is a stage or an image (COPY --from): with `owner` none its owners are kept rather than becoming
    /// 0:0, and file capabilities come along, which BuildKit loses when it receives a context.
    pub keep_owner: bool,
    pub mode: Option<Mode>,
    /// Whether sources are names as they are, and wildcards in them mean nothing (mounts).
    pub literal: bool,
    /// `--parents`
    pub parents: bool,
    /// `--exclude`, relative to the source.
    pub exclude: dockerfile::ignore::Patterns,
    pub archives: Archives,
    /// Whether names of one file in a source are names of one file again; else each gets a file of its own.
    pub keep_links: bool,
    /// Modification time (seconds) of directories that are made on the way (implicit parents), if fixed.
    pub made_modified: Option<i64>,
    /// How many threads may copy files at a time. 0 counts as 1.
    pub threads: usize,
}

/// What was written: files, links and directories, those made on the way included; bytes of file content.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Copied {
    pub entries: u64,
    pub size_bytes: u64,
    /// Files that the next source replaced at once, since the destination is one file for several: worth a warning.
    pub overwritten: u64,
}

impl Copied {
    fn add(&mut self, more: Copied) {
        self.entries += more.entries;
        self.size_bytes += more.size_bytes;
        self.overwritten += more.overwritten;
    }
}

#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A literal source that is not there (`path` as it was written).
    #[error("`{}` does not exist", path.display())]
    NotFound {
        path: PathBuf,
        /// It is there, but the filter hides it.
        excluded: bool,
        /// The name in the same directory that looks most like it, as a path in the source tree.
        suggestion: Option<PathBuf>,
    },
    #[error("{message}")]
    Refused { message: String },
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
}

/// Copies `sources` (expanded text, may hold wildcards) of `from` to `destination` (absolute in the rootfs; a trailing `/`
/// has its meaning) in `to`.
///
/// A wildcard that matches nothing is no error. Of a directory the contents are copied. Hard links stay links within one
/// source. With [`Archives::Unpack`] a file that is an archive by its content is unpacked into the destination instead.
///
/// # Errors
/// [`CopyError::NotFound`] for a literal source (or the literal beginning of a wildcard) that is not there;
/// [`CopyError::Refused`] for a directory over a file, a file over a directory, a file in the way of a parent and a broken
/// pattern. What was copied before the error stays: discard the tree.
pub fn copy(
    from: &Tree,
    filter: &dyn Filter,
    sources: &[String],
    to: &Tree,
    destination: &str,
    options: &CopyOptions,
) -> Result<Copied, CopyError> {
    let looks = Looks::new(options)?;
    let destination = Destination::parse(destination);
    std::thread::scope(|scope| {
        let mut copier = Copier::new(from, filter, to, &looks, scope);
        for source in sources {
            copier.copy(source, &destination)?;
        }
        copier.finish()
    })
}

/// The directory before the first component of `source` that has a wildcard; none where that is the root, or nothing has one.
pub fn wildcard_directory(source: &str) -> Option<PathBuf> {
    let pattern = Pattern::parse(source.as_bytes());
    (!pattern.wild.is_empty() && pattern.literal.file_name().is_some()).then_some(pattern.literal)
}

/// Whether `source` takes something in `directory`, the directory itself, or all of one that it is in. A `directory` that is not
/// there is not judged: [`copy`] fails for it.
///
/// A client of BuildKit sends what some source takes, and nothing else is there for wildcards to look at.
///
/// # Errors
/// [`CopyError::Rootfs`] when `from` cannot be read.
pub fn reaches(from: &Tree, filter: &dyn Filter, source: &str, directory: &Path) -> Result<bool, CopyError> {
    let seen = Source { tree: from, filter, stop: from.stop() };
    let directory = seen.resolve(directory, true)?;
    if seen.visible(&directory)?.is_none() {
        return Ok(true);
    }
    let pattern = Pattern::parse(source.as_bytes());
    let base = seen.resolve(&pattern.literal, true)?;
    let is_near = |path: &Path| path.starts_with(&directory) || directory.starts_with(path);
    let mut found = false;
    match seen.visible(&base)? {
        Some(_) if pattern.wild.is_empty() => found = is_near(&base),
        Some(metadata) if metadata.kind == FileKind::Directory => {
            seen.each_match(&base, &pattern.wild, &mut |path| {
                found |= is_near(path);
                Ok(())
            })?
        }
        _ => {}
    }
    Ok(found)
}

/// Writes one new file, by the rules of [`copy`] for a file called `name`: into `destination` when that is a directory or ends
/// in `/`, else as `destination`.
///
/// For here-documents (`mode` 0o644) and ADD of an address (0o600, `modified` its Last-Modified). Without an owner in
/// `options` the file belongs to 0:0; `options.mode` is applied to `mode`; sources, exclusions and archives play no role
/// (see [`add_file`] for the last).
///
/// # Errors
/// As for [`copy`]; reading `content` fails as [`RootfsError::Io`] that names the file.
pub fn write_file(
    to: &Tree,
    destination: &str,
    name: &str,
    content: &mut dyn Read,
    mode: u32,
    modified: Option<(i64, u32)>,
    options: &CopyOptions,
) -> Result<Copied, CopyError> {
    let looks = Looks::new(options)?;
    let mut target = Target::new(to, &looks);
    let path = target.place(&Destination::parse(destination), false, Some(name.as_ref()))?;
    target.clear(&path)?;
    target.write_content(&path, content)?;
    let (uid, gid) = options.owner.unwrap_or((0, 0));
    to.set_owner(&path, uid, gid)?;
    to.set_mode(&path, looks.mode_for(mode, FileKind::File))?;
    if let Some(modified) = modified {
        to.set_modified(&path, modified)?;
    }
    target.finish()
}

/// [`write_file`] for a file at hand, by the rules of ADD: with [`Archives::Unpack`] in `options` it is unpacked into
/// `destination` when it is an archive by its content (ADD --unpack of an address).
///
/// # Errors
/// As for [`copy`] and [`write_file`].
pub fn add_file(
    to: &Tree,
    destination: &str,
    name: &str,
    mut file: File,
    mode: u32,
    modified: Option<(i64, u32)>,
    options: &CopyOptions,
) -> Result<Copied, CopyError> {
    if options.archives == Archives::Unpack {
        let again = file.try_clone().map_err(RootfsError::Read)?;
        if let Some(mut archive) = archive::open_archive(again, to.stop())? {
            let looks = Looks::new(options)?;
            let mut target = Target::new(to, &looks);
            target.unpack(archive.as_mut(), &Destination::parse(destination))?;
            return target.finish();
        }
        file.seek(SeekFrom::Start(0)).map_err(RootfsError::Read)?;
    }
    write_file(to, destination, name, &mut file, mode, modified, options)
}

/// Makes `path` and its parents (WORKDIR): 0755, owned by `owner` (0:0 without one, but the group of a set-group-ID directory is
/// handed on); what exists is left alone, links are followed in the tree.
///
/// # Errors
/// [`CopyError::Refused`] when something that is no directory is in the way.
pub fn make_dirs(to: &Tree, path: &Path, owner: Option<(u32, u32)>) -> Result<(), CopyError> {
    make_dirs_at(to, path, owner, None)
}

/// [`make_dirs`] with the modification time (seconds) of what is made: `SOURCE_DATE_EPOCH`.
pub fn make_dirs_at(to: &Tree, path: &Path, owner: Option<(u32, u32)>, modified: Option<i64>) -> Result<(), CopyError> {
    let options = CopyOptions {
        owner,
        keep_owner: false,
        mode: None,
        literal: true,
        parents: false,
        exclude: Default::default(),
        archives: Archives::Copy,
        keep_links: true,
        made_modified: modified,
        threads: 1,
    };
    let looks = Looks::new(&options)?;
    let mut target = Target::new(to, &looks);
    target.make_parents(&to.resolve(path, true)?)?;
    target.finish().map(|_| ())
}

fn refuse<T>(message: String) -> Result<T, CopyError> {
    Err(CopyError::Refused { message })
}

fn io_error(action: &'static str, path: &Path, source: std::io::Error) -> CopyError {
    crate::tree::io_error(action, path, source).into()
}

/// `path` as Go's `filepath.Join("/", path)` makes it, without the `/`: no empty component, no `.`, and `..` stops at the root.
fn clean(path: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    let mut cleaned = PathBuf::new();
    for component in path.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => drop(cleaned.pop()),
            name => cleaned.push(std::ffi::OsStr::from_bytes(name)),
        }
    }
    cleaned
}
