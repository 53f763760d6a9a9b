//! Git repositories as contexts and as sources of ADD, without a `git` program.
//!
//! A client of git's protocol over our own HTTP, of `git://`, of files on an HTTP server, and of ssh where there is a program
//! for it. It fetches what one checkout needs, a pack, to the disk; the objects are read from there and written beneath a
//! directory handle. Servers and repositories are not trusted: every size, number and depth has a limit, and every name is
//! checked. Nothing of a login is ever written.

pub mod address;
mod attributes;
mod checkout;
mod content;
mod delta;
mod dumb;
mod error;
mod fetch;
mod index;
mod keep;
mod login;
mod modules;
mod object;
mod objects;
mod oid;
mod pack;
mod packet;
mod place;
mod protocol;
mod reference;
mod transport;
mod wanted;

#[cfg(test)]
mod tests;

pub use self::error::GitError;
pub use self::login::Auth;
pub use self::wanted::{Checkout, CloneSettings, GitDir, Settings};

use std::path::{Path, PathBuf};
use std::sync::Arc;

use net::{Net, NetError};
use rootfs::Tree;

use self::address::{Modified, Remote};
use self::attributes::Attributes;
use self::error::Fault;
use self::fetch::Fetcher;
use self::login::Scope;
use self::object::Commit;
use self::oid::Format;
use self::place::Builder;

/// Larger than any file that was ever sensibly kept in git.
const OBJECT_MAX_BYTES: u64 = 16 << 30;

/// Bounds of what a hostile server can make of a few bytes.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// One pack as it comes.
    pub pack_bytes: u64,
    /// All objects of one pack.
    pub unpacked_bytes: u64,
    /// All files of one checkout.
    pub files_bytes: u64,
    pub entries: u64,
}

impl Limits {
    const DEFAULT: Limits =
        Limits { pack_bytes: 64 << 30, unpacked_bytes: 1 << 40, files_bytes: 64 << 30, entries: 10_000_000 };
}

/// Says that the user asked to stop.
type Stop<'a> = &'a dyn Fn() -> Result<()>;
type Result<T> = std::result::Result<T, Fault>;

/// Files of a commit, below the directory for work.
#[derive(Clone, Debug)]
pub struct CheckedOut {
    pub tree: Arc<Tree>,
    /// What holds the tree; whoever wants to be rid of it removes this.
    pub directory: PathBuf,
    pub commit: String,
    /// The committer's time, in seconds since 1970.
    pub committed: i64,
}

/// Fetches and checks out.
///
/// # Errors
/// [`GitError::Fetch`] with the address, the reason and, where there is one, a hint.
pub fn check_out(net: &Net, auth: &Auth, wanted: &Checkout, work: &Path) -> std::result::Result<CheckedOut, GitError> {
    let stop = || if net.cancelled() { Err(Fault::from(NetError::Cancelled)) } else { Ok(()) };
    try_check_out(net, auth, wanted, work, &stop).map_err(|fault| fault.of(&wanted.remote))
}

fn try_check_out(net: &Net, auth: &Auth, wanted: &Checkout, work: &Path, stop: Stop<'_>) -> Result<CheckedOut> {
    wanted::check_words(wanted)?;
    // For packs and their like; everything in it goes with it.
    let objects = tempfile::Builder::new().prefix("git-objects-").tempdir_in(work)?;
    // What a failure leaves of it goes with `work`.
    let directory = tempfile::Builder::new().prefix("git-").tempdir_in(work)?.keep();
    let tree = Tree::create(&directory.join("files"), Some(&directory.join("table")))?;
    let tree = Arc::new(tree.stopping(&rootfs::Stop::when(&[&net.settings().cancel])));
    let fetcher = Fetcher { net, work: objects.path(), stop, scope: Scope::new(auth, &wanted.remote) };
    // A `.git` is for the whole repository.
    let git_dir = if wanted.subdir.is_empty() { wanted.git_dir.clone() } else { GitDir::No };
    let mut repository = fetcher.fetch(&wanted.remote, wanted, &git_dir)?;
    let kept = (git_dir != GitDir::No).then(|| PathBuf::from(".git"));
    Builder::new(fetcher, &tree, wanted.submodules).place(
        &mut repository,
        &wanted.subdir,
        Path::new(""),
        kept.as_deref(),
        0,
    )?;
    if wanted.modified == Modified::Commit {
        checkout::set_times(&tree, Path::new(""), repository.commit.committed)?;
    }
    Ok(CheckedOut {
        tree: Arc::clone(&tree),
        directory,
        commit: repository.head.to_string(),
        committed: repository.commit.committed,
    })
}

/// What parsers of a server's bytes make of any bytes: for the fuzz target. Nothing is kept.
#[doc(hidden)]
pub fn parse_anything(bytes: &[u8]) {
    let mut from = bytes;
    while let Ok(Some(_)) = packet::read(&mut from) {}
    let _ = modules::parse(bytes);
    let mut attributes = Attributes::default();
    attributes.enter(b"", bytes);
    let _ = attributes.line_ends(bytes);
    let _ = (Commit::parse(bytes), object::tagged(bytes));
    let mut rest = bytes;
    while let Ok(Some(_)) = object::next_item(&mut rest, Format::Sha1) {}
    let _ = pack::header(&mut &bytes[..], Format::Sha256);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = address::GitRef::parse(text);
        let _ = address::KanikoRef::parse(text, true);
        let _ = Remote::parse(text).map(|remote| remote.join(text));
    }
}

/// Takes any bytes for a pack and reads every object in it: for the fuzz target.
#[doc(hidden)]
pub fn read_any_pack(bytes: &[u8], work: &Path) {
    let limits = Limits { pack_bytes: 1 << 20, unpacked_bytes: 1 << 22, files_bytes: 1 << 22, entries: 1000 };
    let _ = pack::Pack::receive(&mut &bytes[..], Format::Sha1, work, &limits, &|| Ok(()));
}
