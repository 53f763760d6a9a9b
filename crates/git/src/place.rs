//! Placing what was fetched: the files of a commit, its `.git`, and its submodules.

use std::path::{Path, PathBuf};

use rootfs::Tree;

use super::address::{Modified, Remote};
use super::attributes::Attributes;
use super::checkout::{self, Budget, Found, Gitlink, Writer};
use super::fetch::{Fetcher, Repository};
use super::keep::{self, IndexWriter};
use super::modules::{self, Module};
use super::object::ItemKind;
use super::{Checkout, Fault, GitDir, Limits, Result};

const MODULES_MAX_BYTES: u64 = 1 << 20;
/// Submodules within submodules. A commit cannot contain itself, but a server may make up ever new ones.
const MODULE_DEPTH_MAX: u32 = 16;
const MODULES_MAX: u32 = 1000;

/// The work of one checkout, submodules included.
pub struct Builder<'a> {
    fetcher: Fetcher<'a>,
    tree: &'a Tree,
    submodules: bool,
    budget: Budget,
    modules_left: u32,
}

impl<'a> Builder<'a> {
    pub fn new(fetcher: Fetcher<'a>, tree: &'a Tree, submodules: bool) -> Builder<'a> {
        Builder { fetcher, tree, submodules, budget: Budget::new(&Limits::DEFAULT), modules_left: MODULES_MAX }
    }

    /// Writes `subdir` of the repository into the existing directory `to`, and its `.git` if one is kept.
    pub fn place(
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
        let mut index = git_dir.map(|_| IndexWriter::create(self.fetcher.work)).transpose()?;
        let (into, budget, work) = (self.tree, &mut self.budget, self.fetcher.work);
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
        let mut repository = self.fetcher.fetch(&remote, &wanted, &kept).map_err(named)?;
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
