//! Users and groups by name, from the rootfs and never from the host (libc's getpwnam would read the wrong root).

use std::io::Read;
use std::path::Path;

use rootfs::{RootfsError, Tree};

/// Who runs a step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    /// From passwd; `/` where it has no such user.
    pub home: String,
}

/// A name in USER or `--chown` that the rootfs does not know.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    #[error("unable to find {kind} `{name}`: no matching entry in `{file}` of the image")]
    Unknown { kind: &'static str, name: String, file: &'static str },
    #[error("could not read `{file}` of the image")]
    Rootfs { file: &'static str, source: RootfsError },
}

struct Passwd {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

/// Resolves the text of USER as runc's `user.GetExecUser` does: `user[:group]`, each a name or a number.
///
/// A number needs no entry; without a group the passwd entry's group counts, else 0. The groups are the group itself, then,
/// when none was given, those of /etc/group that name the user (containerd `oci.WithUser`).
pub fn resolve(tree: &Tree, text: &str) -> Result<User, UserError> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|g| !g.is_empty())),
        None => (text, None),
    };
    let users = passwd(tree)?;
    let entry = find_user(&users, if user.is_empty() { "0" } else { user });
    let uid = match (entry, user) {
        (Some(entry), _) => entry.uid,
        (None, "") => 0,
        (None, _) => user.parse().map_err(|_| unknown("user", user, "/etc/passwd"))?,
    };
    let home = entry.map_or("/", |e| e.home.as_str());
    let home = if home.is_empty() { "/" } else { home }.to_owned();
    let groups = group_file(tree)?;
    if let Some(group) = group {
        let gid = find_group(&groups, group)?;
        return Ok(User { uid, gid, groups: vec![gid], home });
    }
    let gid = entry.map_or(0, |e| e.gid);
    let named = groups.iter().filter(|g| g.gid != gid && entry.is_some_and(|e| g.members.contains(&e.name)));
    let groups = std::iter::once(gid).chain(named.map(|g| g.gid)).collect();
    Ok(User { uid, gid, groups, home })
}

/// Resolves `--chown=user[:group]`: as BuildKit, a user without a group gives its uid as gid only when it is a number
/// without an entry; a named user brings its primary group; an empty group (`user:`) is 0.
pub fn resolve_owner(tree: &Tree, text: &str) -> Result<(u32, u32), UserError> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(if group.is_empty() { "0" } else { group })),
        None => (text, None),
    };
    let (uid, own_group) = match user.parse::<u32>() {
        Ok(uid) => (uid, uid),
        Err(_) if user.is_empty() => (0, 0),
        Err(_) => {
            let users = passwd(tree)?;
            let entry = users.iter().find(|e| e.name == user).ok_or_else(|| unknown("user", user, "/etc/passwd"))?;
            (entry.uid, entry.gid)
        }
    };
    let gid = match group {
        None => own_group,
        Some(group) => match group.parse() {
            Ok(gid) => gid,
            Err(_) => find_group(&group_file(tree)?, group)?,
        },
    };
    Ok((uid, gid))
}

fn unknown(kind: &'static str, name: &str, file: &'static str) -> UserError {
    UserError::Unknown { kind, name: name.to_owned(), file }
}

/// A number is a uid, even where an entry has it as its name (moby `user.GetExecUser`).
fn find_user<'a>(users: &'a [Passwd], user: &str) -> Option<&'a Passwd> {
    match user.parse::<u32>() {
        Ok(uid) => users.iter().find(|e| e.uid == uid),
        Err(_) => users.iter().find(|e| e.name == user),
    }
}

fn find_group(groups: &[Group], group: &str) -> Result<u32, UserError> {
    if let Ok(gid) = group.parse() {
        return Ok(gid);
    }
    groups.iter().find(|g| g.name == group).map(|g| g.gid).ok_or_else(|| unknown("group", group, "/etc/group"))
}

/// Odd lines are passed over, as runc does.
fn passwd(tree: &Tree) -> Result<Vec<Passwd>, UserError> {
    let text = read(tree, "/etc/passwd")?;
    let entry = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        let uid = fields.nth(1)?.trim().parse().ok()?;
        let gid = fields.next()?.trim().parse().ok()?;
        let home = fields.nth(1).unwrap_or_default().to_owned();
        Some(Passwd { name, uid, gid, home })
    };
    Ok(text.lines().filter_map(entry).collect())
}

fn group_file(tree: &Tree) -> Result<Vec<Group>, UserError> {
    let text = read(tree, "/etc/group")?;
    let entry = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        let gid = fields.nth(1)?.trim().parse().ok()?;
        let members = fields.next().unwrap_or_default().split(',').filter(|m| !m.is_empty());
        Some(Group { name, gid, members: members.map(|m| m.trim().to_owned()).collect() })
    };
    Ok(text.lines().filter_map(entry).collect())
}

/// The file's text, empty where there is none. At most 16 MiB: the image is not to be trusted.
fn read(tree: &Tree, file: &'static str) -> Result<String, UserError> {
    let path = Path::new(file);
    let failed = |source| UserError::Rootfs { file, source };
    let resolved = tree.resolve(path, true).map_err(failed)?;
    match tree.stat(&resolved).map_err(failed)? {
        Some(found) if found.kind == rootfs::FileKind::File => {}
        _ => return Ok(String::new()),
    }
    let mut bytes = Vec::new();
    let file_handle = tree.open_file(&resolved).map_err(failed)?;
    file_handle
        .take(16 << 20)
        .read_to_end(&mut bytes)
        .map_err(|source| failed(RootfsError::Io { action: "could not read", path: path.to_owned(), source }))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
