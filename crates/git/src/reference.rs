//! Branches, tags and commits: which one is meant, what to ask for, and how a clone names them.

use super::address::is_commit;
use super::oid::Oid;
use super::protocol::{Reference, Session};
use super::{Checkout, Fault, GitDir, Result};

/// What was meant.
pub struct Chosen {
    /// Full name; none for a bare commit.
    pub name: Option<String>,
    pub oid: Oid,
}

/// The names a reference may stand for, the first that is there counting (BuildKit `resolveMetadataFromURL`; git prefers
/// branches, too).
fn candidates(reference: &str) -> [String; 3] {
    ["refs/", "refs/heads/", "refs/tags/"]
        .map(|prefix| format!("{prefix}{}", reference.strip_prefix(prefix).unwrap_or(reference)))
}

/// Asks for no more references than can be meant.
pub fn list(session: &mut Session<'_>, wanted: &Checkout, git_dir: &GitDir) -> Result<Vec<Reference>> {
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

pub fn choose(references: &[Reference], wanted: &Checkout) -> Result<Chosen> {
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
pub fn needed(
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

pub fn unique(oids: impl Iterator<Item = Oid>) -> Vec<Oid> {
    let mut oids: Vec<Oid> = oids.collect();
    oids.sort_unstable();
    oids.dedup();
    oids
}

/// As `git clone` names them: branches below `refs/remotes/origin`, the one that is checked out besides.
pub fn cloned_references(
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

pub fn peeled(oid: Oid, commit: Oid) -> Option<Oid> {
    (oid != commit).then_some(commit)
}

pub fn with_head(mut references: Vec<Reference>, target: Option<String>) -> Vec<Reference> {
    let named = target.as_ref().and_then(|target| references.iter().find(|it| it.name == *target));
    if let Some(named) = named.cloned() {
        references.push(Reference { name: "HEAD".to_owned(), target, ..named });
    }
    references
}
