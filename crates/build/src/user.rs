//! Users and groups by name, from the rootfs and never from the host (libc's getpwnam would read the wrong root).

use std::io::Read;
use std::path::Path;

use rootfs::{RootfsError, Tree};

/// The largest number that is a user or group (moby `sys/user`, for systems of 32 bits).
const LARGEST_ID: u32 = i32::MAX as u32;

/// Who runs a step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    /// Of the first entry in passwd with this uid, which may be empty; `/` where there is none.
    pub home: String,
}

/// A user in USER or `--chown` that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    #[error("unable to find {kind} `{name}`: no matching entry in `{file}` of the image")]
    Unknown { kind: &'static str, name: String, file: &'static str },
    #[error("{kind} `{number}` is out of range: there are numbers from 0 to {LARGEST_ID}")]
    Range { kind: &'static str, number: String },
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

/// Resolves the text of USER: `user[:group]`, each a name or a number.
///
/// A number needs no entry; without a group the passwd entry's group counts, else 0. The groups are the group itself, then,
/// when none was given, those of /etc/group that name the user. With both given as numbers or `root`, nothing is looked up.
/// (BuildKit `executor/oci/user.go` GetUser, moby `sys/user` GetExecUser; the home directory is runc's affair, which knows the
/// number only.)
pub fn resolve(tree: &Tree, text: &str) -> Result<User, UserError> {
    let users = passwd(tree)?;
    let home = |uid| users.iter().find(|e| e.uid == uid).map_or("/", |e| e.home.as_str()).to_owned();
    if let Some((uid, gid)) = text.split_once(':').and_then(|(user, group)| Some((id(user)?, id(group)?))) {
        return Ok(User { uid, gid, groups: vec![gid], home: home(uid) });
    }
    let mut parts = text.split(':');
    let user = parts.next().unwrap_or_default();
    let group = parts.next().unwrap_or_default();
    let number = number("user", if user.is_empty() { "0" } else { user })?;
    let entry = match number {
        Some(uid) => users.iter().find(|e| e.uid == uid),
        None => users.iter().find(|e| e.name == user),
    };
    let uid = entry.map(|e| e.uid).or(number).ok_or_else(|| unknown("user", user, "/etc/passwd"))?;
    let groups = group_file(tree)?;
    if !group.is_empty() {
        let gid = find_group(&groups, group)?;
        return Ok(User { uid, gid, groups: vec![gid], home: home(uid) });
    }
    let gid = entry.map_or(0, |e| e.gid);
    let named = groups.iter().filter(|g| g.gid != gid && entry.is_some_and(|e| g.members.contains(&e.name)));
    let groups = std::iter::once(gid).chain(named.map(|g| g.gid)).collect();
    Ok(User { uid, gid, groups, home: home(uid) })
}

/// Resolves `--chown=user[:group]`: as BuildKit, a user without a group gives its uid as gid only when it is a number
/// without an entry; a named user brings its primary group; an empty group (`user:`) is 0. `root` needs no entry.
pub fn resolve_owner(tree: &Tree, text: &str) -> Result<(u32, u32), UserError> {
    let (user, group) = owner_parts(text);
    let (uid, own_group) = owner(tree, user)?;
    let gid = group.map(|group| owner_group(tree, group)).transpose()?;
    Ok((uid, gid.unwrap_or(own_group)))
}

/// [`resolve_owner`] for the directories of WORKDIR: what the image does not know is root, and a group that it does not know the
/// user's (BuildKit `readUser`). A RUN of such a user fails; one that is only there for WORKDIR need not.
pub fn resolve_owner_or_root(tree: &Tree, text: &str) -> Result<(u32, u32), UserError> {
    let (user, group) = owner_parts(text);
    let (uid, own_group) = owner(tree, user).or_else(|error| if_unknown(error, (0, 0)))?;
    let gid = group.map(|group| owner_group(tree, group).or_else(|error| if_unknown(error, own_group))).transpose()?;
    Ok((uid, gid.unwrap_or(own_group)))
}

fn if_unknown<T>(error: UserError, value: T) -> Result<T, UserError> {
    match error {
        UserError::Unknown { .. } | UserError::Range { .. } => Ok(value),
        UserError::Rootfs { .. } => Err(error),
    }
}

/// Whether an owner has to be looked up in the image.
pub fn has_names(text: &str) -> bool {
    let (user, group) = owner_parts(text);
    let is_name = |part: &str| !part.is_empty() && !matches!(number("", part), Ok(Some(_))) && part != "root";
    is_name(user) || group.is_some_and(is_name)
}

/// A group that is written and empty is 0.
fn owner_parts(text: &str) -> (&str, Option<&str>) {
    match text.split_once(':') {
        Some((user, group)) => (user, Some(if group.is_empty() { "root" } else { group })),
        None => (text, None),
    }
}

fn owner(tree: &Tree, user: &str) -> Result<(u32, u32), UserError> {
    if matches!(user, "" | "root") {
        return Ok((0, 0));
    }
    if let Some(uid) = number("user", user)? {
        return Ok((uid, uid));
    }
    let entry = passwd(tree)?.into_iter().find(|e| e.name == user);
    entry.map(|e| (e.uid, e.gid)).ok_or_else(|| unknown("user", user, "/etc/passwd"))
}

fn owner_group(tree: &Tree, group: &str) -> Result<u32, UserError> {
    if group == "root" { Ok(0) } else { find_group(&group_file(tree)?, group) }
}

fn unknown(kind: &'static str, name: &str, file: &'static str) -> UserError {
    UserError::Unknown { kind, name: name.to_owned(), file }
}

/// A number is an id, even where an entry has it as its name; none for a name.
fn number(kind: &'static str, text: &str) -> Result<Option<u32>, UserError> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse() {
        Ok(id) if id <= LARGEST_ID => Ok(Some(id)),
        _ => Err(UserError::Range { kind, number: text.to_owned() }),
    }
}

/// An id where nothing is looked up: all of 32 bits, and `root`.
fn id(text: &str) -> Option<u32> {
    if text == "root" { Some(0) } else { text.parse().ok().filter(|_| !text.starts_with('+')) }
}

fn find_group(groups: &[Group], group: &str) -> Result<u32, UserError> {
    match number("group", group)? {
        Some(gid) => Ok(gid),
        None => {
            groups.iter().find(|g| g.name == group).map(|g| g.gid).ok_or_else(|| unknown("group", group, "/etc/group"))
        }
    }
}

/// An entry whose line is cut short has what there is, and a number that is none is 0, as for whatever runs the image later (moby
/// `sys/user` ParsePasswdFilter).
fn passwd(tree: &Tree) -> Result<Vec<Passwd>, UserError> {
    let text = read(tree, "/etc/passwd")?;
    let entry = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next().unwrap_or_default().to_owned();
        let uid = file_number(fields.nth(1));
        let gid = file_number(fields.next());
        Passwd { name, uid, gid, home: fields.nth(1).unwrap_or_default().to_owned() }
    };
    Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(entry).collect())
}

/// As in passwd; a line that begins with `#` is a comment here.
fn group_file(tree: &Tree) -> Result<Vec<Group>, UserError> {
    let text = read(tree, "/etc/group")?;
    let entry = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next().unwrap_or_default().to_owned();
        let gid = file_number(fields.nth(1));
        let members = fields.next().unwrap_or_default().split(',').filter(|member| !member.is_empty());
        Group { name, gid, members: members.map(str::to_owned).collect() }
    };
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(entry).collect())
}

/// Go's `strconv.Atoi` without its error, cut to 32 bits.
fn file_number(field: Option<&str>) -> u32 {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    let number =
        field.unwrap_or_default().parse().unwrap_or_else(|error: std::num::ParseIntError| match error.kind() {
            PosOverflow => i64::MAX,
            NegOverflow => i64::MIN,
            _ => 0,
        });
    number as u32
}

/// The file's text, empty where there is none; a directory in its place is an error, as it is for runc. At most 16 MiB: the image
/// is not to be trusted.
fn read(tree: &Tree, file: &'static str) -> Result<String, UserError> {
    let path = Path::new(file);
    let failed = |source| UserError::Rootfs { file, source };
    let resolved = tree.resolve(path, true).map_err(failed)?;
    match tree.stat(&resolved).map_err(failed)? {
        Some(found) if found.kind == rootfs::FileKind::File => {}
        Some(found) if found.kind == rootfs::FileKind::Directory => {
            let source = std::io::ErrorKind::IsADirectory.into();
            return Err(failed(RootfsError::Io { action: "could not read", path: path.to_owned(), source }));
        }
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
