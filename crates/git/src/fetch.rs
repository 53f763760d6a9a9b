//! Fetching a repository, in whichever way its server offers.

use std::path::Path;

use net::Net;

use super::address::Remote;
use super::login::Scope;
use super::object::Commit;
use super::objects::Objects;
use super::oid::{Format, Oid};
use super::protocol::{Opened, Reference, Session, Wanted};
use super::reference::{Chosen, choose, cloned_references, list, needed, peeled, unique, with_head};
use super::{Checkout, Fault, GitDir, Limits, Result, Stop, dumb, keep, pack, protocol};

/// A fetched repository.
pub struct Repository<'a> {
    pub remote: Remote,
    pub objects: Objects<'a>,
    pub head: Oid,
    pub commit: Commit,
    pub shallow: Vec<Oid>,
    /// The branch that is checked out, where one is.
    pub branch: Option<String>,
    /// For its `.git`.
    pub references: Vec<(String, Oid, Option<Oid>)>,
}

/// The way to one repository and its submodules.
pub struct Fetcher<'a> {
    pub net: &'a Net,
    /// For packs and their like.
    pub work: &'a Path,
    pub stop: Stop<'a>,
    pub scope: Scope<'a>,
}

impl<'a> Fetcher<'a> {
    /// Fetches what `wanted` names, again when the connection breaks.
    pub fn fetch(&self, remote: &Remote, wanted: &Checkout, git_dir: &GitDir) -> Result<Repository<'a>> {
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
}
