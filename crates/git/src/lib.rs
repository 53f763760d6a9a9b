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
mod index;
mod keep;
mod modules;
mod object;
mod objects;
mod oid;
mod pack;
mod packet;
mod protocol;
mod transport;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use auth::Secret;
use net::{Net, NetError};
use rootfs::{RootfsError, Tree};

use self::address::{GitRef, KanikoRef, Modified, Remote, is_commit};
use self::attributes::Attributes;
use self::checkout::{Budget, Found, Gitlink, Writer};
use self::keep::IndexWriter;
use self::modules::Module;
use self::object::{Commit, ItemKind};
use self::objects::Objects;
use self::oid::{Format, Oid};
use self::protocol::{Opened, Reference, Session, Wanted};

/// Larger than any file that was ever sensibly kept in git.
const OBJECT_MAX_BYTES: u64 = 16 << 30;
const MODULES_MAX_BYTES: u64 = 1 << 20;
/// Submodules within submodules. A commit cannot contain itself, but a server may make up ever new ones.
const MODULE_DEPTH_MAX: u32 = 16;
const MODULES_MAX: u32 = 1000;

/// Bounds of what a hostile server can make of a few bytes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
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

/// Logins for repositories over HTTP.
#[derive(Clone, Default)]
pub struct Auth {
    /// BuildKit's secrets: `GIT_AUTH_TOKEN` and `GIT_AUTH_HEADER`, with or without `.HOST`.
    pub secrets: Vec<(String, Secret<Vec<u8>>)>,
    /// kaniko's variables `GIT_TOKEN`, `GIT_USERNAME` and `GIT_PASSWORD`: for the build context. A token is the user.
    pub user: Option<(Secret, Secret)>,
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Auth(..)")
    }
}

impl Auth {
    /// The value of `Authorization` for `remote` (BuildKit `authSecretNames`), and whether it is for all of its host.
    fn authorization(&self, remote: &Remote) -> Option<(Secret, bool)> {
        let host = remote.host_and_port();
        let names = [
            format!("GIT_AUTH_HEADER.{host}"),
            format!("GIT_AUTH_TOKEN.{host}"),
            "GIT_AUTH_HEADER".to_owned(),
            "GIT_AUTH_TOKEN".to_owned(),
        ];
        let secret = |name: &String| {
            let (_, value) = self.secrets.iter().find(|(known, _)| known == name)?;
            // Files end in a newline that nobody means.
            let value = Secret::new(String::from_utf8_lossy(value.reveal().trim_ascii_end()));
            let token = name.starts_with("GIT_AUTH_TOKEN");
            Some((if token { transport::basic(&Secret::new("x-access-token"), &value) } else { value }, false))
        };
        let user = || self.user.as_ref().map(|(user, password)| (transport::basic(user, password), true));
        names.iter().find_map(secret).or_else(user)
    }
}

/// What of `.git` comes along.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GitDir {
    No,
    /// With the one commit.
    Shallow,
    /// As kaniko clones: history, branches and tags.
    Clone {
        /// How many commits; none for all.
        depth: Option<u32>,
        single_branch: bool,
    },
}

/// How a build context is fetched, as far as its address does not say.
#[derive(Clone, Default, Debug)]
pub struct Settings {
    pub auth: Auth,
    /// `BUILDKIT_CONTEXT_KEEP_GIT_DIR`
    pub keep_git_dir: bool,
    /// File times are the commit's: the build has a `SOURCE_DATE_EPOCH`.
    pub commit_times: bool,
    pub clone: CloneSettings,
}

/// kaniko's `--git`, for its `git://` addresses.
#[derive(Clone, Default, Debug)]
pub struct CloneSettings {
    pub branch: Option<String>,
    pub single_branch: bool,
    /// None for all.
    pub depth: Option<u32>,
    pub submodules: bool,
}

impl Settings {
    /// BuildKit `DetectGitContext`.
    pub fn checkout(&self, found: &GitRef) -> Checkout {
        let keep = self.keep_git_dir || found.keep_git_dir == Some(true);
        let times = if self.commit_times { Modified::Commit } else { Modified::Checkout };
        Checkout {
            git_dir: if keep { GitDir::Shallow } else { GitDir::No },
            modified: found.modified.unwrap_or(times),
            ..Checkout::of(found)
        }
    }

    /// As kaniko clones.
    ///
    /// # Errors
    /// [`GitError::TwoReferences`]
    pub fn clone_of(&self, found: &KanikoRef) -> std::result::Result<Checkout, GitError> {
        let clone = &self.clone;
        let reference = match &clone.branch {
            Some(_) if !found.reference.is_empty() => {
                return Err(GitError::TwoReferences { remote: found.remote.to_string() });
            }
            Some(branch) => branch,
            None => &found.reference,
        };
        Ok(Checkout {
            remote: found.remote.clone(),
            reference: reference.clone(),
            checksum: None,
            fetch_by_commit: false,
            commit: found.commit.clone(),
            subdir: String::new(),
            submodules: clone.submodules,
            git_dir: GitDir::Clone { depth: clone.depth, single_branch: clone.single_branch },
            modified: Modified::Checkout,
        })
    }
}

/// What is to be checked out, of where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checkout {
    pub remote: Remote,
    /// Branch, tag, full name or full commit hash; empty for the default branch.
    pub reference: String,
    /// Beginning of the commit's hash, or the tag's.
    pub checksum: Option<String>,
    pub fetch_by_commit: bool,
    /// Checked out in the end instead of what the reference names.
    pub commit: Option<String>,
    pub subdir: String,
    pub submodules: bool,
    pub git_dir: GitDir,
    pub modified: Modified,
}

impl Checkout {
    /// What an address says by itself, without `.git`.
    pub fn of(found: &GitRef) -> Checkout {
        Checkout {
            remote: found.remote.clone(),
            reference: found.reference.clone(),
            checksum: found.checksum.clone(),
            fetch_by_commit: found.fetch_by_commit,
            commit: None,
            subdir: found.subdir.clone(),
            submodules: found.submodules.unwrap_or(true),
            git_dir: GitDir::No,
            modified: found.modified.unwrap_or(Modified::Checkout),
        }
    }
}

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

/// What of a repository could not be had. Its address is shown without a login.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// What was fetched from where, and why that did not work.
    #[error("could not fetch git repository `{remote}`: {reason}")]
    Fetch { remote: String, reason: String, hint: Option<String> },
    #[error("context `{remote}`: `--git=branch=…` and `#…` both name what to check out")]
    TwoReferences { remote: String },
}

impl GitError {
    /// What the user can do, where that is known.
    pub fn hint(&self) -> Option<&str> {
        match self {
            GitError::Fetch { hint, .. } => hint.as_deref(),
            GitError::TwoReferences { .. } => None,
        }
    }
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
    check_words(wanted)?;
    // For packs and their like; everything in it goes with it.
    let objects = tempfile::Builder::new().prefix("git-objects-").tempdir_in(work)?;
    // What a failure leaves of it goes with `work`.
    let directory = tempfile::Builder::new().prefix("git-").tempdir_in(work)?.keep();
    let tree = Tree::create(&directory.join("files"), Some(&directory.join("table")))?;
    let tree = Arc::new(tree.stopping(&rootfs::Stop::when(&[&net.settings().cancel])));
    let (authorization, whole_host) = auth.authorization(&wanted.remote).unzip();
    let scope = Scope { authorization, whole_host: whole_host.unwrap_or(false), remote: &wanted.remote };
    let mut builder = Builder {
        net,
        work: objects.path(),
        stop,
        tree: &tree,
        scope,
        submodules: wanted.submodules,
        budget: Budget::new(&Limits::DEFAULT),
        modules_left: MODULES_MAX,
    };
    // A `.git` is for the whole repository.
    let git_dir = if wanted.subdir.is_empty() { wanted.git_dir.clone() } else { GitDir::No };
    let mut repository = builder.fetch(&wanted.remote, wanted, &git_dir)?;
    let kept = (git_dir != GitDir::No).then(|| PathBuf::from(".git"));
    builder.place(&mut repository, &wanted.subdir, Path::new(""), kept.as_deref(), 0)?;
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

/// BuildKit `gitSourceHandler.resolveMetadata`: what can be refused without asking anybody.
fn check_words(wanted: &Checkout) -> Result<()> {
    let checksum = wanted.checksum.as_deref().unwrap_or("");
    if !checksum.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Fault::server(format!("invalid checksum `{checksum}`, expected the hash of a commit")));
    }
    if is_commit(&wanted.reference) {
        return match wanted.reference.starts_with(checksum) {
            true => Ok(()),
            false => Err(Fault::server(format!("expected checksum to match {checksum}, got {}", wanted.reference))),
        };
    }
    if wanted.fetch_by_commit && !is_commit(checksum) {
        return Err(Fault::server("fetch-by-commit needs the full hash of a commit, as checksum or as reference"));
    }
    Ok(())
}

/// Whom a login is for.
struct Scope<'a> {
    authorization: Option<Secret>,
    /// Other repositories of the host, too.
    whole_host: bool,
    remote: &'a Remote,
}

impl Scope<'_> {
    /// The login for `remote`: the repository itself and what is below its path, all of GitHub for one there (BuildKit
    /// `tokenScope`), or the whole host.
    fn authorization(&self, remote: &Remote) -> Option<Secret> {
        let own = self.remote;
        if (own.transport, own.host_and_port()) != (remote.transport, remote.host_and_port()) {
            return None;
        }
        let (path, other) = (own.path.trim_end_matches('/'), remote.path.as_str());
        let below = other.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let github = matches!(own.host.as_str(), "github.com" | "www.github.com");
        self.authorization.clone().filter(|_| below || github || self.whole_host)
    }
}

/// A fetched repository.
struct Repository<'a> {
    remote: Remote,
    objects: Objects<'a>,
    head: Oid,
    commit: Commit,
    shallow: Vec<Oid>,
    /// The branch that is checked out, where one is.
    branch: Option<String>,
    /// For its `.git`.
    references: Vec<(String, Oid, Option<Oid>)>,
}

/// The work of one checkout, submodules included.
struct Builder<'a> {
    net: &'a Net,
    work: &'a Path,
    stop: Stop<'a>,
    tree: &'a Tree,
    scope: Scope<'a>,
    submodules: bool,
    budget: Budget,
    modules_left: u32,
}

impl<'a> Builder<'a> {
    /// Fetches what `wanted` names, again when the connection breaks.
    fn fetch(&self, remote: &Remote, wanted: &Checkout, git_dir: &GitDir) -> Result<Repository<'a>> {
        let mut attempt = 0;
        loop {
            match self.try_fetch(remote, wanted, git_dir) {
                Err(fault) if fault.is_cut() && attempt < self.net.settings().retries.min(2) => {
                    self.net.back_off(attempt)?;
                    attempt += 1;
                }
                Err(fault) if fault.is_refusal() => return self.fetch_all(remote, wanted, git_dir, fault),
                outcome => return outcome,
            }
        }
    }

    fn try_fetch(&self, remote: &Remote, wanted: &Checkout, git_dir: &GitDir) -> Result<Repository<'a>> {
        match protocol::open(self.net, remote, self.scope.authorization(remote))? {
            Opened::Smart(mut session) => {
                let references = list(&mut session, wanted, git_dir)?;
                let chosen = choose(&references, wanted)?;
                let (oids, depth) = needed(&references, &chosen, wanted, git_dir)?;
                self.receive(session, remote, &oids, depth, wanted, git_dir, &references, &chosen)
            }
            Opened::Dumb { http, references } => {
                if matches!(git_dir, GitDir::Clone { .. }) {
                    return Err(Fault::server("a server that only has files cannot be cloned with its history")
                        .hint(Some("give the address as `https://….git#REF` instead of `git://`")));
                }
                let head = dumb::head(&http)?;
                let chosen = choose(&with_head(references.clone(), head), wanted)?;
                let dumb = dumb::Dumb::new(http, chosen.oid.format(), self.work)?;
                let objects = self.objects(chosen.oid.format(), Vec::new(), Some(dumb));
                self.repository(remote, objects, Vec::new(), wanted, git_dir, &references, &chosen)
            }
        }
    }

    /// For servers that give no commit that no reference names: everything is fetched, and the commit is in it.
    fn fetch_all(&self, remote: &Remote, wanted: &Checkout, git_dir: &GitDir, why: Fault) -> Result<Repository<'a>> {
        let Opened::Smart(mut session) = protocol::open(self.net, remote, self.scope.authorization(remote))? else {
            return Err(why);
        };
        let references = session.references(&["refs/heads/", "refs/tags/"])?;
        let chosen = choose(&references, wanted)?;
        let oids = unique(references.iter().map(|it| it.oid));
        if oids.is_empty() {
            return Err(why);
        }
        self.receive(session, remote, &oids, None, wanted, git_dir, &references, &chosen)
    }

    #[expect(clippy::too_many_arguments, reason = "the two ways to fetch differ in nothing else")]
    fn receive(
        &self,
        session: Session<'_>,
        remote: &Remote,
        oids: &[Oid],
        depth: Option<u32>,
        wanted: &Checkout,
        git_dir: &GitDir,
        references: &[Reference],
        chosen: &Chosen,
    ) -> Result<Repository<'a>> {
        let format = session.format();
        let sent = session.fetch(&Wanted { oids, depth }, self.work, &Limits::DEFAULT, self.stop)?;
        let objects = self.objects(format, vec![sent.pack], None);
        self.repository(remote, objects, sent.shallow, wanted, git_dir, references, chosen)
    }

    fn objects(&self, format: Format, packs: Vec<pack::Pack>, dumb: Option<dumb::Dumb<'a>>) -> Objects<'a> {
        Objects::new(format, packs, dumb, self.work, &Limits::DEFAULT, self.stop)
    }

    #[expect(clippy::too_many_arguments, reason = "what was fetched, and what of it is meant")]
    fn repository(
        &self,
        remote: &Remote,
        mut objects: Objects<'a>,
        mut shallow: Vec<Oid>,
        wanted: &Checkout,
        git_dir: &GitDir,
        references: &[Reference],
        chosen: &Chosen,
    ) -> Result<Repository<'a>> {
        let aim = match &wanted.commit {
            Some(commit) => Oid::parse(commit.as_bytes())?,
            None => chosen.oid,
        };
        let (head, commit) = objects.commit(aim)?;
        if let Some(checksum) = wanted.checksum.as_deref().filter(|_| chosen.name.is_none()) {
            let named = [chosen.oid, head].map(|oid| oid.to_string());
            if !named.iter().any(|name| name.starts_with(checksum)) {
                return Err(Fault::server(format!(
                    "expected checksum to match {checksum}, got {}",
                    named.join(" or ")
                )));
            }
        }
        if objects.dumb().is_some() && commit.has_parents {
            shallow.push(head);
        }
        let cloned = matches!(git_dir, GitDir::Clone { .. });
        let branch = chosen.name.clone().filter(|name| {
            cloned && wanted.commit.is_none() && name.starts_with("refs/heads/") && keep::is_plain(name)
        });
        let references = match git_dir {
            GitDir::No => Vec::new(),
            GitDir::Shallow => {
                chosen.name.iter().map(|name| (name.clone(), chosen.oid, peeled(chosen.oid, head))).collect()
            }
            GitDir::Clone { single_branch, .. } => cloned_references(references, chosen, *single_branch),
        };
        Ok(Repository { remote: remote.clone(), objects, head, commit, shallow, branch, references })
    }

    /// Writes `subdir` of the repository into the existing directory `to`, and its `.git` if one is kept.
    fn place(
        &mut self,
        repository: &mut Repository<'_>,
        subdir: &str,
        to: &Path,
        git_dir: Option<&Path>,
        depth: u32,
    ) -> Result<()> {
        let root = repository.commit.tree;
        let mut attributes = Attributes::default();
        let tree = match checkout::descend(&mut repository.objects, root, subdir, &mut attributes)? {
            Found::Tree(tree) => tree,
            Found::Beyond(_, _) if !self.submodules => {
                return Err(Fault::server(format!("the subdirectory `{subdir}` is in a submodule")));
            }
            Found::Beyond(link, rest) => {
                let modules = self.modules(repository)?;
                let module = module_of(&modules, &link)?;
                return self.module(repository, module, &link, &rest, to, None, depth);
            }
        };
        let mut index = git_dir.map(|_| IndexWriter::create(self.work)).transpose()?;
        let (into, budget, work) = (self.tree, &mut self.budget, self.work);
        let mut writer = Writer { into, budget, index: index.as_mut(), attributes, work };
        let links = writer.write(&mut repository.objects, &tree, Path::new(subdir), to)?;
        let mut kept = Vec::new();
        if self.submodules && !links.is_empty() {
            let modules = self.modules(repository)?;
            for link in &links {
                let module = module_of(&modules, link)?;
                if module.skipped {
                    continue;
                }
                let below = link.path.strip_prefix(subdir).unwrap_or(&link.path);
                let own = git_dir.map(|git_dir| git_dir.join("modules").join(&module.name));
                self.module(repository, module, link, "", &to.join(below), own.as_deref(), depth)?;
                kept.push((module.name.clone(), shown_address(module, &repository.remote)));
            }
        }
        match (git_dir, index) {
            (Some(git_dir), Some(index)) => self.keep(repository, to, git_dir, index, kept),
            _ => Ok(()),
        }
    }

    fn keep(
        &self,
        repository: &Repository<'_>,
        to: &Path,
        git_dir: &Path,
        index: IndexWriter,
        modules: Vec<(String, String)>,
    ) -> Result<()> {
        let inner = !to.as_os_str().is_empty();
        let up = |path: &Path| path.components().map(|_| "..").collect::<PathBuf>();
        let head = keep::Head {
            remote: &repository.remote,
            commit: repository.head,
            branch: repository.branch.as_deref(),
            references: repository.references.clone(),
            shallow: &repository.shallow,
            work_tree: inner.then(|| up(git_dir).join(to)),
            modules,
        };
        keep::write(self.tree, git_dir, &head, &repository.objects, index)?;
        if inner {
            let back = up(to).join(git_dir);
            keep::write_file(self.tree, &to.join(".git"), format!("gitdir: {}\n", back.display()).as_bytes())?;
        }
        Ok(())
    }

    /// The submodules of a repository; none where it has no `.gitmodules`.
    fn modules(&self, repository: &mut Repository<'_>) -> Result<Vec<Module>> {
        let objects = &mut repository.objects;
        match checkout::entry(objects, &repository.commit.tree, b".gitmodules")? {
            Some((ItemKind::File { .. }, oid)) => {
                modules::parse(&objects.small_blob(&oid, MODULES_MAX_BYTES, "a `.gitmodules`")?)
            }
            _ => Ok(Vec::new()),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "a submodule is placed by all of them")]
    fn module(
        &mut self,
        parent: &Repository<'_>,
        module: &Module,
        link: &Gitlink,
        subdir: &str,
        to: &Path,
        git_dir: Option<&Path>,
        depth: u32,
    ) -> Result<()> {
        let named = |fault: Fault| fault.within(&format!("submodule `{}`", link.path.display()));
        let left = self.modules_left.checked_sub(1).filter(|_| depth < MODULE_DEPTH_MAX);
        self.modules_left = left.ok_or_else(|| named(Fault::server("submodules without end")))?;
        let remote = module_address(module, &parent.remote).map_err(named)?;
        let wanted = Checkout {
            remote: remote.clone(),
            reference: link.oid.to_string(),
            checksum: None,
            fetch_by_commit: false,
            commit: None,
            subdir: subdir.to_owned(),
            submodules: true,
            git_dir: GitDir::No,
            modified: Modified::Checkout,
        };
        let kept = if git_dir.is_some() { GitDir::Shallow } else { GitDir::No };
        let mut repository = self.fetch(&remote, &wanted, &kept).map_err(named)?;
        self.place(&mut repository, subdir, to, git_dir, depth + 1).map_err(named)
    }
}

/// git: `No url found for submodule path`.
fn module_of<'m>(modules: &'m [Module], link: &Gitlink) -> Result<&'m Module> {
    use std::os::unix::ffi::OsStrExt as _;
    let path = link.path.as_os_str().as_bytes();
    modules.iter().find(|module| module.path == path).ok_or_else(|| {
        Fault::server(format!("`.gitmodules` has no address for the submodule `{}`", link.path.display()))
            .hint(Some("`?submodules=false` leaves submodules out"))
    })
}

/// Only what a server can be reached by: a file of this machine is no submodule.
fn module_address(module: &Module, parent: &Remote) -> Result<Remote> {
    let relative = module.url.starts_with("./") || module.url.starts_with("../");
    let remote = if relative { parent.join(&module.url) } else { Remote::parse(&module.url) };
    remote.ok_or_else(|| Fault::server(format!("`{}` is no address to fetch from", net::display_url(&module.url))))
}

fn shown_address(module: &Module, parent: &Remote) -> String {
    module_address(module, parent).map(|remote| remote.to_string()).unwrap_or_default()
}

/// What was meant.
struct Chosen {
    /// Full name; none for a bare commit.
    name: Option<String>,
    oid: Oid,
}

/// The names a reference may stand for, the first that is there counting (BuildKit `resolveMetadataFromURL`; git prefers
/// branches, too).
fn candidates(reference: &str) -> [String; 3] {
    ["refs/", "refs/heads/", "refs/tags/"]
        .map(|prefix| format!("{prefix}{}", reference.strip_prefix(prefix).unwrap_or(reference)))
}

/// Asks for no more references than can be meant.
fn list(session: &mut Session<'_>, wanted: &Checkout, git_dir: &GitDir) -> Result<Vec<Reference>> {
    let cloned = matches!(git_dir, GitDir::Clone { .. });
    let bare = is_commit(&wanted.reference) || wanted.fetch_by_commit;
    if bare && !cloned {
        return Ok(Vec::new());
    }
    let candidates = candidates(&wanted.reference);
    let mut prefixes = vec!["HEAD"];
    match wanted.reference.is_empty() {
        true => prefixes.push("refs/heads/"),
        false => prefixes.extend(candidates.iter().map(String::as_str)),
    }
    if cloned {
        prefixes.extend(["refs/heads/", "refs/tags/"]);
    }
    session.references(&prefixes)
}

fn choose(references: &[Reference], wanted: &Checkout) -> Result<Chosen> {
    let reference = wanted.reference.as_str();
    if is_commit(reference) {
        return Ok(Chosen { name: None, oid: Oid::parse(reference.as_bytes())? });
    }
    let checksum = wanted.checksum.as_deref().unwrap_or("");
    if wanted.fetch_by_commit {
        let name = match reference {
            "" => None,
            full if full.starts_with("refs/") => Some(full.to_owned()),
            short => Some(format!("refs/heads/{short}")),
        };
        return Ok(Chosen { name, oid: Oid::parse(checksum.as_bytes())? });
    }
    let by_name = |name: &str| references.iter().find(|it| it.name == name);
    let found = match reference {
        "" => {
            let head = by_name("HEAD");
            head.and_then(|head| by_name(head.target.as_deref()?)).or(head)
        }
        _ => candidates(reference).iter().find_map(|name| by_name(name)),
    };
    let Some(found) = found else {
        return Err(match reference {
            "" => Fault::server("could not find the default branch"),
            _ => Fault::server(format!("repository does not contain ref `{reference}`")),
        });
    };
    let names = [Some(found.oid), found.peeled].into_iter().flatten().map(|oid| oid.to_string());
    let names: Vec<String> = names.collect();
    if !names.iter().any(|name| name.starts_with(checksum)) {
        return Err(Fault::server(format!("expected checksum to match {checksum}, got {}", names.join(" or "))));
    }
    Ok(Chosen { name: Some(found.name.clone()).filter(|name| name != "HEAD"), oid: found.oid })
}

/// The objects to ask for, and how deep.
fn needed(
    references: &[Reference],
    chosen: &Chosen,
    wanted: &Checkout,
    git_dir: &GitDir,
) -> Result<(Vec<Oid>, Option<u32>)> {
    let GitDir::Clone { depth, single_branch } = git_dir else { return Ok((vec![chosen.oid], Some(1))) };
    let commit = wanted.commit.as_ref().map(|commit| Oid::parse(commit.as_bytes())).transpose()?;
    let fetched = references
        .iter()
        .filter(|it| it.name.starts_with("refs/tags/") || !single_branch && it.name.starts_with("refs/heads/"))
        .map(|it| it.oid);
    Ok((unique([chosen.oid].into_iter().chain(commit).chain(fetched)), *depth))
}

fn unique(oids: impl Iterator<Item = Oid>) -> Vec<Oid> {
    let mut oids: Vec<Oid> = oids.collect();
    oids.sort_unstable();
    oids.dedup();
    oids
}

/// As `git clone` names them: branches below `refs/remotes/origin`, the one that is checked out besides.
fn cloned_references(
    references: &[Reference],
    chosen: &Chosen,
    single_branch: bool,
) -> Vec<(String, Oid, Option<Oid>)> {
    let mut kept = Vec::new();
    for it in references {
        let own = chosen.name.as_deref() == Some(&it.name);
        match it.name.strip_prefix("refs/heads/") {
            Some(name) if own || !single_branch => kept.push((format!("refs/remotes/origin/{name}"), it.oid, None)),
            _ => {}
        }
        if own || it.name.starts_with("refs/tags/") {
            kept.push((it.name.clone(), it.oid, it.peeled));
        }
    }
    kept
}

fn peeled(oid: Oid, commit: Oid) -> Option<Oid> {
    (oid != commit).then_some(commit)
}

fn with_head(mut references: Vec<Reference>, target: Option<String>) -> Vec<Reference> {
    let named = target.as_ref().and_then(|target| references.iter().find(|it| it.name == *target));
    if let Some(named) = named.cloned() {
        references.push(Reference { name: "HEAD".to_owned(), target, ..named });
    }
    references
}

/// Why it did not work.
#[derive(Debug)]
pub struct Fault {
    kind: FaultKind,
    reason: String,
    hint: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum FaultKind {
    /// The connection failed or ended: the same may work a moment later.
    Cut,
    /// The server does not give a commit that no reference names.
    Refusal,
    Other,
}

impl Fault {
    /// What the server sent or lacks is at fault.
    fn server(reason: impl Into<String>) -> Fault {
        Fault { kind: FaultKind::Other, reason: reason.into(), hint: None }
    }

    fn cut(reason: impl Into<String>) -> Fault {
        Fault { kind: FaultKind::Cut, ..Fault::server(reason) }
    }

    /// What the server says, fit to be shown.
    fn told(message: &[u8]) -> Fault {
        let text = String::from_utf8_lossy(message);
        let text: String = text.trim().chars().take(400).map(|c| if c.is_control() { ' ' } else { c }).collect();
        let refusal = text.contains("not our ref") || text.contains("unadvertised object");
        let kind = if refusal { FaultKind::Refusal } else { FaultKind::Other };
        Fault { kind, reason: format!("the server says: {text}"), hint: None }
    }

    fn hint(self, hint: Option<&str>) -> Fault {
        Fault { hint: hint.map(str::to_owned), ..self }
    }

    fn within(self, what: &str) -> Fault {
        Fault { reason: format!("{what}: {}", self.reason), ..self }
    }

    /// As the error of fetching `remote`.
    fn of(self, remote: &Remote) -> GitError {
        GitError::Fetch { remote: remote.to_string(), reason: self.reason, hint: self.hint }
    }

    fn is_cut(&self) -> bool {
        self.kind == FaultKind::Cut
    }

    fn is_refusal(&self) -> bool {
        self.kind == FaultKind::Refusal
    }

    /// Through a reader; [`Fault::from`] gets it back.
    fn into_io(self) -> io::Error {
        io::Error::other(self)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Fault {}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        if error.get_ref().is_some_and(|inner| inner.is::<Fault>()) {
            let inner = error.into_inner().and_then(|inner| inner.downcast::<Fault>().ok());
            return inner.map_or_else(|| Fault::server("unknown"), |fault| *fault);
        }
        let transient = net::cause_of(&error).is_some_and(NetError::is_transient)
            || matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset);
        let reason = match error.kind() {
            io::ErrorKind::UnexpectedEof => "the answer ends too early".to_owned(),
            _ => net::chain(&error),
        };
        if transient { Fault::cut(reason) } else { Fault::server(reason) }
    }
}

impl From<NetError> for Fault {
    fn from(error: NetError) -> Fault {
        // Requests have been tried again by then.
        Fault::server(net::chain(&error)).hint(error.hint().as_deref())
    }
}

impl From<RootfsError> for Fault {
    fn from(error: RootfsError) -> Fault {
        Fault::server(net::chain(&error))
    }
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
