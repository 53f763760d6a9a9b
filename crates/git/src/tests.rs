//! Against real servers: `git http-backend`, plain files and `git daemon` on this machine.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use auth::Secret;
use testkit::GitServer;
use testkit::git_server::{available, git, publish};

use super::address::GitRef;
use super::checkout::{Budget, Writer};
use super::objects::Objects;
use super::oid::Oid;
use super::protocol::{Opened, Wanted};
use super::*;

/// Repositories, and a directory to work in.
struct Room {
    directory: tempfile::TempDir,
}

impl Room {
    fn new() -> Room {
        let directory = tempfile::tempdir().unwrap();
        for name in ["src", "served", "work"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        Room { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A repository `src/NAME` with `main` (two commits, tag `v1` on the first, annotated `v2` on the second) and `other`.
    fn source(&self, name: &str) -> PathBuf {
        let at = self.path("src").join(name);
        fs::create_dir(&at).unwrap();
        git(&at, &["init", "-q", "."]);
        fs::create_dir_all(at.join("docs/deep")).unwrap();
        fs::write(at.join("file"), "one\n").unwrap();
        fs::write(at.join("docs/deep/x"), "deep\n").unwrap();
        fs::write(at.join("run.sh"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(at.join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("../outside", at.join("link")).unwrap();
        commit(&at, "one");
        git(&at, &["tag", "v1"]);
        fs::write(at.join("file"), "two\n").unwrap();
        // Enough of the same for deltas.
        let mut text: String = (0..2000).map(|line| format!("line {line}\n")).collect();
        fs::write(at.join("long"), &text).unwrap();
        text += "more\n";
        fs::write(at.join("longer"), &text).unwrap();
        commit(&at, "two");
        git(&at, &["tag", "-a", "-m", "two", "v2"]);
        git(&at, &["checkout", "-q", "-b", "other"]);
        fs::write(at.join("file"), "other\n").unwrap();
        commit(&at, "three");
        git(&at, &["checkout", "-q", "main"]);
        at
    }

    fn publish(&self, name: &str) -> PathBuf {
        let to = publish(&self.path("src").join(name), &self.path("served"), &format!("{name}.git"));
        git(&to, &["repack", "-q", "-a", "-d", "-f"]);
        git(&to, &["update-server-info"]);
        to
    }

    fn serve(&self) -> GitServer {
        GitServer::start(&self.path("served"))
    }

    fn check_out(
        &self,
        text: &str,
        auth: &Auth,
        change: impl FnOnce(&mut Checkout),
    ) -> std::result::Result<CheckedOut, GitError> {
        let found = GitRef::parse(text).unwrap().unwrap();
        let git_dir = if found.keep_git_dir == Some(true) { GitDir::Shallow } else { GitDir::No };
        let mut wanted = Checkout { git_dir, ..Checkout::of(&found) };
        change(&mut wanted);
        super::check_out(&client(), auth, &wanted, &self.path("work"))
    }

    fn files(&self, text: &str) -> BTreeMap<String, String> {
        listed(
            self.check_out(text, &Auth::default(), |_| {})
                .unwrap_or_else(|error| panic!("{text}: {error}"))
                .tree
                .path(),
        )
    }

    fn error(&self, text: &str) -> String {
        self.check_out(text, &Auth::default(), |_| {}).unwrap_err().to_string()
    }
}

fn commit(at: &Path, message: &str) {
    git(at, &["add", "-A"]);
    git(at, &["commit", "-q", "-m", message]);
}

fn client() -> Net {
    let mut settings = net::Settings::new("test");
    settings.retries = 0;
    settings.backoff = std::time::Duration::from_millis(1);
    Net::new(settings).unwrap()
}

/// `PATH` to `MODE CONTENT`; contents are cut to a line.
fn listed(root: &Path) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let mode = metadata.permissions().mode() & 0o7777;
            let name = path.strip_prefix(root).unwrap().display().to_string();
            let shown = if metadata.is_dir() {
                directories.push(path.clone());
                format!("{mode:o}/")
            } else if metadata.is_symlink() {
                format!("-> {}", fs::read_link(&path).unwrap().display())
            } else {
                let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).lines().next().unwrap_or("").to_owned();
                format!("{mode:o} {text}")
            };
            files.insert(name, shown);
        }
    }
    files
}

fn expected(file: &str, long: bool) -> BTreeMap<String, String> {
    let content = format!("644 {file}");
    let mut all = vec![
        ("docs", "755/"),
        ("docs/deep", "755/"),
        ("docs/deep/x", "644 deep"),
        ("file", &content),
        ("link", "-> ../outside"),
        ("run.sh", "755 #!/bin/sh"),
    ];
    if long {
        all.extend([("long", "644 line 0"), ("longer", "644 line 0")]);
    }
    all.into_iter().map(|(path, shown)| (path.to_owned(), shown.to_owned())).collect()
}

#[test]
fn every_kind_of_server_gives_the_same_files() {
    if !available() {
        return;
    }
    let room = Room::new();
    let source = room.source("a");
    room.publish("a");
    let server = room.serve();
    let commit = git(&source, &["rev-parse", "v1"]);
    for kind in ["smart", "old", "dumb", "moved"] {
        let url = server.url(kind, "a.git");
        assert_eq!(room.files(&url), expected("two", true), "{kind}");
        for reference in ["#v1", "?tag=v1", "#refs/tags/v1", "#tags/v1", &format!("#{commit}")] {
            if kind == "old" && reference.contains(&commit) {
                continue;
            }
            assert_eq!(room.files(&format!("{url}{reference}")), expected("one", false), "{kind} {reference}");
        }
        for reference in ["#v2", "#main", "#heads/main", "?branch=main", "?ref=refs/heads/main"] {
            assert_eq!(room.files(&format!("{url}{reference}")), expected("two", true), "{kind} {reference}");
        }
        assert_eq!(room.files(&format!("{url}#other")), expected("other", true), "{kind}");
        let deep: BTreeMap<_, _> = [("x".to_owned(), "644 deep".to_owned())].into();
        assert_eq!(room.files(&format!("{url}#:docs/deep")), deep, "{kind}");
    }
    let left: Vec<_> = fs::read_dir(room.path("work")).unwrap().filter_map(|it| it.ok()).collect();
    let packs = left.iter().filter(|it| it.file_name().to_string_lossy().starts_with("git-objects-"));
    assert_eq!(packs.count(), 0, "packs are removed");
}

#[test]
fn a_commit_that_no_reference_names() {
    if !available() {
        return;
    }
    let room = Room::new();
    let source = room.source("a");
    room.publish("a");
    let server = room.serve();
    // The first commit is named by a tag, but an old server only gives what a branch or tag names exactly; of the tagless one
    // everything is fetched.
    git(&room.path("served/a.git"), &["tag", "-d", "v1"]);
    git(&room.path("served/a.git"), &["update-server-info"]);
    let commit = git(&source, &["rev-parse", "v1"]);
    for kind in ["smart", "old", "dumb"] {
        let files = room.files(&format!("{}#{commit}", server.url(kind, "a.git")));
        assert_eq!(files, expected("one", false), "{kind}");
    }
    let missing = "0123456789012345678901234567890123456789";
    for kind in ["smart", "old", "dumb"] {
        let error = room.error(&format!("{}#{missing}", server.url(kind, "a.git")));
        assert!(error.contains(missing), "{kind}: {error}");
    }
}

#[test]
fn what_is_wrong_is_said() {
    if !available() {
        return;
    }
    let room = Room::new();
    let source = room.source("a");
    room.publish("a");
    let server = room.serve();
    let url = server.url("smart", "a.git");
    let tag = git(&source, &["rev-parse", "v2"]);
    let head = git(&source, &["rev-parse", "main"]);
    let table = [
        ("#nothing", "repository does not contain ref `nothing`"),
        ("#:nothing", "the subdirectory `nothing`: `nothing` does not exist"),
        ("#:file/x", "`file` is not a directory"),
        ("#:link", "`link` is not a directory"),
        ("?checksum=abc", "expected checksum to match abc, got "),
        ("?checksum=xyz", "invalid checksum `xyz`"),
        ("?fetch-by-commit=1", "fetch-by-commit needs the full hash"),
    ];
    for (rest, reason) in table {
        let error = room.error(&format!("{url}{rest}"));
        assert!(error.contains(reason), "{rest}: {error}");
    }
    for checksum in [&tag[..7], &head, &tag] {
        assert_eq!(room.files(&format!("{url}?tag=v2&checksum={checksum}")), expected("two", true));
    }
    let moved = format!("{url}?ref=other&fetch-by-commit=1&checksum={head}");
    assert_eq!(room.files(&moved), expected("two", true), "the commit counts, not the branch");
    let error = room.error(&server.url("smart", "none.git"));
    assert!(error.contains("404"), "{error}");
    let error = room.error("http://127.0.0.1:1/a.git");
    assert!(error.contains("127.0.0.1:1"), "{error}");
}

#[test]
fn logins_reach_only_their_host_and_are_written_nowhere() {
    if !available() {
        return;
    }
    let room = Room::new();
    room.source("a");
    room.publish("a");
    let server = room.serve();
    let url = server.url("private", "a.git");
    let error = room.check_out(&url, &Auth::default(), |_| {}).unwrap_err();
    let hint = error.hint().unwrap_or_default();
    assert!(error.to_string().contains("401") && hint.contains("GIT_AUTH_TOKEN"), "{error} {hint}");

    let secret = |name: &str, value: &str| Auth { secrets: vec![(name.to_owned(), Secret::new(value))], user: None };
    let host = &server.address;
    let basic = |text: &str| transport::basic(&Secret::new("x-access-token"), &Secret::new(text));
    let user = Auth { secrets: Vec::new(), user: Some((Secret::new("hush"), Secret::new(""))) };
    let table = [
        (secret("GIT_AUTH_TOKEN", "hush\n"), basic("hush")),
        (secret(&format!("GIT_AUTH_TOKEN.{host}"), "hush"), basic("hush")),
        (secret("GIT_AUTH_HEADER", "Bearer hush"), Secret::new("Bearer hush")),
        (user, transport::basic(&Secret::new("hush"), &Secret::new(""))),
    ];
    for (auth, value) in table {
        let done = room.check_out(&url, &auth, |wanted| wanted.git_dir = GitDir::Shallow).unwrap();
        assert_eq!(server.seen().pop().unwrap().authorization.as_deref(), Some(value.reveal().as_str()));
        let config = fs::read_to_string(done.tree.path().join(".git/config")).unwrap();
        assert!(config.contains(&format!("url = \"{url}\"")) && !config.contains("hush"), "{config}");
    }
    let other = secret("GIT_AUTH_TOKEN.example.com", "hush");
    assert!(room.check_out(&url, &other, |_| {}).is_err());
    let in_address = url.replace("http://", "http://me:hush@");
    let done = room.check_out(&in_address, &Auth::default(), |wanted| wanted.git_dir = GitDir::Shallow).unwrap();
    for entry in walk(&done.tree.path().join(".git")) {
        assert!(!String::from_utf8_lossy(&fs::read(&entry).unwrap()).contains("hush"), "{}", entry.display());
    }
}

fn walk(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files
}

#[test]
fn a_kept_git_dir_is_one_git_works_with() {
    if !available() {
        return;
    }
    let room = Room::new();
    let source = room.source("a");
    room.publish("a");
    let server = room.serve();
    for kind in ["smart", "old", "dumb"] {
        let url = server.url(kind, "a.git");
        let done = room.check_out(&format!("{url}#v2"), &Auth::default(), |it| it.git_dir = GitDir::Shallow).unwrap();
        let at = done.tree.path();
        git(at, &["fsck", "--strict"]);
        assert_eq!(git(at, &["status", "--porcelain"]), "", "{kind}");
        assert_eq!(git(at, &["log", "--format=%s"]), "two", "{kind}");
        assert_eq!(git(at, &["describe"]), "v2", "{kind}");
        assert_eq!(done.commit, git(&source, &["rev-parse", "main"]));
        assert_eq!(fs::read(at.join(".git/HEAD")).unwrap().len(), 41);
    }
    for (depth, single_branch) in [(None, false), (Some(1), false), (None, true)] {
        let change = |it: &mut Checkout| it.git_dir = GitDir::Clone { depth, single_branch };
        let done = room.check_out(&server.url("smart", "a.git"), &Auth::default(), change).unwrap();
        let at = done.tree.path();
        git(at, &["fsck", "--strict"]);
        assert_eq!(git(at, &["status", "--porcelain", "--branch"]), "## main...origin/main");
        assert_eq!(git(at, &["log", "--format=%s"]), if depth.is_some() { "two" } else { "two\none" });
        let branches = git(at, &["branch", "-r", "--format=%(refname)"]);
        assert_eq!(branches.contains("origin/other"), !single_branch, "{branches}");
        assert_eq!(git(at, &["tag"]), "v1\nv2");
    }
}

#[test]
fn submodules_come_along() {
    if !available() {
        return;
    }
    let room = Room::new();
    let inner = room.source("inner");
    room.publish("inner");
    let server = room.serve();
    let middle = room.source("middle");
    git(&middle, &["submodule", "-q", "add", "-b", "other", inner.to_str().unwrap(), "deps/inner"]);
    git(&middle, &["config", "-f", ".gitmodules", "submodule.deps/inner.url", "../inner.git"]);
    commit(&middle, "inner");
    room.publish("middle");
    let outer = room.source("outer");
    git(&outer, &["submodule", "-q", "add", middle.to_str().unwrap(), "mid"]);
    git(&outer, &["config", "-f", ".gitmodules", "submodule.mid.url", &server.url("old", "middle.git")]);
    commit(&outer, "middle");
    room.publish("outer");

    let url = server.url("smart", "outer.git");
    let files = room.files(&url);
    assert_eq!(files["mid/deps/inner/file"], "644 other", "{files:?}");
    assert!(!files.keys().any(|path| path.ends_with(".git")), "{files:?}");
    assert_eq!(room.files(&format!("{url}#:mid/deps/inner")), expected("other", true), "a subdirectory in a submodule");
    let without = room.files(&format!("{url}?submodules=false"));
    assert_eq!((without["mid"].as_str(), without.contains_key("mid/file")), ("755/", false));

    let kept = room.check_out(&url, &Auth::default(), |it| it.git_dir = GitDir::Shallow).unwrap();
    let at = kept.tree.path();
    assert_eq!(git(at, &["status", "--porcelain"]), "");
    assert_eq!(git(&at.join("mid/deps/inner"), &["log", "--format=%s"]), "three");
    let status = git(at, &["submodule", "status", "--recursive"]);
    assert!(status.lines().all(|line| !line.starts_with(['-', '+'])), "{status}");
}

#[test]
fn submodules_lead_nowhere_else() {
    if !available() {
        return;
    }
    let room = Room::new();
    let inner = room.source("inner");
    room.publish("inner");
    let server = room.serve();
    let outer = room.source("outer");
    git(&outer, &["submodule", "-q", "add", inner.to_str().unwrap(), "sub"]);
    let addresses = [
        (inner.to_str().unwrap().to_owned(), "no address to fetch from"),
        (format!("file://{}", inner.display()), "no address to fetch from"),
        ("ext::sh -c touch% /tmp/x".to_owned(), "no address to fetch from"),
        ("../../../../x".to_owned(), "no address to fetch from"),
        ("../outer.git".to_owned(), "the server"),
    ];
    for (number, (address, reason)) in addresses.iter().enumerate() {
        git(&outer, &["config", "-f", ".gitmodules", "submodule.sub.url", address]);
        commit(&outer, "address");
        room.publish_as(&outer, &format!("outer{number}"));
        let error = room.error(&server.url("smart", &format!("outer{number}.git")));
        assert!(error.contains("submodule `sub`") && error.contains(reason), "{address}: {error}");
    }
    // The token of one repository is not for another one, unless the host is trusted as a whole.
    git(&outer, &["config", "-f", ".gitmodules", "submodule.sub.url", &server.url("private", "inner.git")]);
    commit(&outer, "address");
    room.publish_as(&outer, "last");
    let url = server.url("smart", "last.git");
    let token = Auth { secrets: vec![("GIT_AUTH_TOKEN".to_owned(), Secret::new("t"))], user: None };
    let error = room.check_out(&url, &token, |_| {}).unwrap_err().to_string();
    assert!(error.contains("401"), "{error}");
    let user = Auth { secrets: Vec::new(), user: Some((Secret::new("t"), Secret::new(""))) };
    room.check_out(&url, &user, |_| {}).unwrap();
}

impl Room {
    fn publish_as(&self, source: &Path, name: &str) {
        publish(source, &self.path("served"), &format!("{name}.git"));
    }
}

#[test]
fn times_are_the_commits_where_asked_for() {
    if !available() {
        return;
    }
    let room = Room::new();
    room.source("a");
    room.publish("a");
    let server = room.serve();
    let done =
        room.check_out(&format!("{}?mtime=commit", server.url("smart", "a.git")), &Auth::default(), |_| {}).unwrap();
    assert_eq!(done.committed, 1_577_836_800);
    for path in ["", "file", "docs", "docs/deep/x", "link"] {
        let modified = done.tree.stat(Path::new(path)).unwrap().unwrap().modified;
        assert_eq!(modified.0, 1_577_836_800, "{path}");
    }
}

#[test]
fn names_that_are_no_text() {
    use std::os::unix::ffi::OsStrExt as _;
    if !available() {
        return;
    }
    let room = Room::new();
    let source = room.source("a");
    let name = std::ffi::OsStr::from_bytes(b"na\xffme\n\\ x");
    fs::create_dir(source.join(name)).unwrap();
    fs::write(source.join(name).join(name), "here").unwrap();
    commit(&source, "names");
    room.publish("a");
    let server = room.serve();
    let done = room.check_out(&server.url("smart", "a.git"), &Auth::default(), |_| {}).unwrap();
    assert_eq!(fs::read(done.tree.path().join(name).join(name)).unwrap(), b"here");
}

/// A checkout of git's own is the judge.
#[test]
fn line_ends_are_gits() {
    if !available() {
        return;
    }
    let room = Room::new();
    let source = room.source("a");
    fs::write(source.join(".gitattributes"), "*.bat eol=crlf\n*.auto text=auto eol=crlf\n*.bin binary\n").unwrap();
    fs::write(source.join("docs/.gitattributes"), "x.* eol=crlf\ny.bat -text\n").unwrap();
    for name in ["a.bat", "a.auto", "a.bin", "a.sh", "docs/x.sh", "docs/y.bat", "docs/deep/x.y"] {
        fs::write(source.join(name), "one\ntwo\n").unwrap();
    }
    fs::write(source.join("b.auto"), b"one\n\0").unwrap();
    commit(&source, "ends");
    room.publish("a");
    let server = room.serve();
    let by_git = room.path("by-git");
    git(&room.path("src"), &["clone", "-q", "a", by_git.to_str().unwrap()]);
    let url = server.url("smart", "a.git");
    let done = room.check_out(&url, &Auth::default(), |it| it.git_dir = GitDir::Shallow).unwrap();
    assert_eq!(git(done.tree.path(), &["status", "--porcelain"]), "");
    fs::remove_dir_all(by_git.join(".git")).unwrap();
    fs::remove_dir_all(done.tree.path().join(".git")).unwrap();
    let contents = |root: &Path| -> BTreeMap<PathBuf, Vec<u8>> {
        let content = |path: &PathBuf| fs::read(path).unwrap_or_default();
        walk(root).into_iter().map(|it| (it.strip_prefix(root).unwrap().to_owned(), content(&it))).collect()
    };
    let (ours, theirs) = (contents(done.tree.path()), contents(&by_git));
    assert_eq!(ours[Path::new("a.bat")], b"one\r\ntwo\r\n");
    assert_eq!(ours, theirs);
    let below = room.check_out(&format!("{url}#:docs/deep"), &Auth::default(), |_| {}).unwrap();
    assert_eq!(contents(below.tree.path())[Path::new("x.y")], theirs[Path::new("docs/deep/x.y")]);
}

/// Mode, name and object of an entry; an empty one is the tree before.
type Entry<'a> = (&'a str, &'a [u8], &'a str);

/// Makes a commit of trees that git itself would not write.
fn forged(at: &Path, trees: &[&[Entry<'_>]]) -> String {
    let mut last = String::new();
    for entries in trees {
        let mut bytes = Vec::new();
        for (mode, name, oid) in *entries {
            let oid = if oid.is_empty() { last.as_str() } else { oid };
            bytes.extend_from_slice(format!("{mode} ").as_bytes());
            bytes.extend_from_slice(name);
            bytes.push(0);
            bytes.extend_from_slice(Oid::parse(oid.as_bytes()).unwrap().as_bytes());
        }
        fs::write(at.join("../forged"), bytes).unwrap();
        last = git(at, &["hash-object", "-t", "tree", "-w", "--literally", "../forged"]);
    }
    let commit = git(at, &["commit-tree", "-m", "forged", &last]);
    git(at, &["update-ref", "refs/heads/main", &commit]);
    commit
}

#[test]
fn hostile_trees_write_nothing_outside() {
    if !available() {
        return;
    }
    let room = Room::new();
    let source = room.source("a");
    room.publish("a");
    let server = room.serve();
    let served = room.path("served/a.git");
    let blob = git(&source, &["rev-parse", "v1:file"]);
    let outside = room.path("outside");
    fs::write(source.join("../target"), outside.to_str().unwrap()).unwrap();
    let link = git(&served, &["hash-object", "-w", "../../src/target"]);
    let file = |name: &'static [u8]| ("100644", name, blob.as_str());
    let inner: &[Entry<'_>] = &[file(b"x")];
    let table: Vec<(Vec<Vec<Entry<'_>>>, &str)> = vec![
        (vec![vec![file(b"..")]], "a tree with the name `..`"),
        (vec![inner.to_vec(), vec![("40000", b"..", "")]], "a tree with the name `..`"),
        (vec![inner.to_vec(), vec![("40000", b".git", "")]], "a tree with the name `.git`"),
        (vec![inner.to_vec(), vec![("40000", b".GIT", "")]], "a tree with the name `.GIT`"),
        (vec![vec![file(b"../../x")]], "a tree with the name `../../x`"),
        (vec![vec![file(b"/x")]], "a tree with the name `/x`"),
        (vec![vec![file(b"x"), file(b"x")]], "file exists"),
        // A link, and something that would go through it.
        (vec![inner.to_vec(), vec![("120000", b"a", &link), ("40000", b"a", "")]], "file exists"),
        (vec![vec![("120000", b".gitmodules", &link)]], "that is a link"),
        (vec![vec![("100644", b"x", "0123456789012345678901234567890123456789")]], "0123456789"),
    ];
    for (trees, reason) in table {
        let trees: Vec<&[_]> = trees.iter().map(Vec::as_slice).collect();
        forged(&served, &trees);
        // Over plain files, since git's own server refuses to send some of it.
        git(&served, &["update-server-info"]);
        let error = room.error(&format!("{}#main", server.url("dumb", "a.git"))).to_lowercase();
        assert!(error.contains(&reason.to_lowercase()), "{reason}: {error}");
        assert!(!outside.exists() && !room.path("work/x").exists());
    }
    // Links out of the tree are only links.
    forged(&served, &[&[("120000", b"a", &link)]]);
    git(&served, &["update-server-info"]);
    let files = room.files(&format!("{}#main", server.url("dumb", "a.git")));
    assert_eq!(files["a"], format!("-> {}", outside.display()));
}

#[test]
fn trees_that_never_end_are_given_up() {
    if !available() {
        return;
    }
    let room = Room::new();
    let source = room.source("a");
    room.publish("a");
    let served = room.path("served/a.git");
    let blob = git(&source, &["rev-parse", "v1:file"]);
    // Ten levels of ten directories, all the same ones: ten thousand million files in a kilobyte.
    let names: Vec<Vec<u8>> = (0..10).map(|number| format!("d{number}").into_bytes()).collect();
    let leaf: Vec<Entry<'_>> = names.iter().map(|name| ("100644", name.as_slice(), blob.as_str())).collect();
    let node: Vec<Entry<'_>> = names.iter().map(|name| ("40000", name.as_slice(), "")).collect();
    let mut trees: Vec<&[_]> = vec![&leaf];
    trees.extend(std::iter::repeat_n(node.as_slice(), 9));
    forged(&served, &trees);
    let server = room.serve();
    let remote = Remote::parse(&server.url("smart", "a.git")).unwrap();
    let stop = || Ok(());
    let net = client();
    let work = room.path("work");
    let limits = Limits { entries: 500, ..Limits::DEFAULT };
    let Opened::Smart(mut session) = protocol::open(&net, &remote, None).unwrap() else { panic!() };
    let main = session.references(&["refs/heads/main"]).unwrap()[0].oid;
    let sent = session.fetch(&Wanted { oids: &[main], depth: Some(1) }, &work, &limits, &stop).unwrap();
    let mut objects = Objects::new(Format::Sha1, vec![sent.pack], None, &work, &limits, &stop);
    let (_, commit) = objects.commit(main).unwrap();
    let tree = Tree::create(&work.join("tree"), None).unwrap();
    let mut budget = Budget::new(&limits);
    let mut writer =
        Writer { into: &tree, budget: &mut budget, index: None, attributes: Default::default(), work: &work };
    let fault = writer.write(&mut objects, &commit.tree, Path::new(""), Path::new("")).unwrap_err();
    assert!(fault.to_string().contains("too many files"), "{fault}");
}

/// A pack of whole objects and deltas, with a right checksum.
fn pack(objects: &[(u8, Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    use std::io::Write as _;
    let mut bytes = b"PACK\x00\x00\x00\x02".to_vec();
    bytes.extend_from_slice(&(objects.len() as u32).to_be_bytes());
    for (kind, base, content) in objects {
        let mut size = content.len();
        let mut head = kind << 4 | (size & 0x0f) as u8;
        size >>= 4;
        while size > 0 {
            bytes.push(head | 0x80);
            head = (size & 0x7f) as u8;
            size >>= 7;
        }
        bytes.push(head);
        bytes.extend_from_slice(base);
        let mut out = flate2::write::ZlibEncoder::new(&mut bytes, flate2::Compression::default());
        out.write_all(content).unwrap();
        out.finish().unwrap();
    }
    let mut hasher = oid::Hasher::new(Format::Sha1);
    hasher.update(&bytes);
    bytes.extend_from_slice(hasher.finish().unwrap().as_bytes());
    bytes
}

fn received(bytes: &[u8], limits: &Limits) -> Result<pack::Pack> {
    pack::Pack::receive(&mut &bytes[..], Format::Sha1, &std::env::temp_dir(), limits, &|| Ok(()))
}

#[test]
fn packs() {
    let base = (3, vec![], b"abcdef".to_vec());
    // `bcxyabc` of `abcdef`.
    let delta = b"\x06\x07\x91\x01\x02\x02xy\x90\x03".to_vec();
    let of = |content: &[u8]| {
        let mut hasher = oid::Hasher::object(Format::Sha1, "blob", content.len() as u64);
        hasher.update(content);
        hasher.finish().unwrap()
    };
    let name = of(b"abcdef").as_bytes().to_vec();
    // The base is at 12 and takes 15 bytes or so; a delta that names it may stand before it.
    for objects in
        [vec![base.clone(), (7, name.clone(), delta.clone())], vec![(7, name.clone(), delta.clone()), base.clone()]]
    {
        let mut pack = received(&pack(&objects), &Limits::DEFAULT).unwrap();
        assert_eq!(pack.index().names().unwrap().len(), 2);
        let offset = pack.find(&of(b"bcxyabc")).unwrap().unwrap();
        let (kind, content) = pack.read(offset).unwrap();
        assert_eq!((kind, content.bytes(10, "x").unwrap().as_slice()), (pack::Kind::Blob, &b"bcxyabc"[..]));
        assert_eq!(pack.find(&of(b"x")).unwrap(), None);
    }
}

#[test]
fn hostile_packs_are_refused() {
    let limits = Limits { pack_bytes: 1 << 20, unpacked_bytes: 1 << 20, files_bytes: 1 << 20, entries: 100 };
    let whole = |content: &[u8]| (3, vec![], content.to_vec());
    let good = pack(&[whole(b"abc")]);
    assert!(received(&good, &limits).is_ok());
    let mut damaged = good.clone();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    let longer = [good.as_slice(), b"x"].concat();
    // A base of 16 bytes, and a delta that makes 16 MiB of it; a thousand million bytes announced.
    let copies: Vec<u8> = [&b"\x10"[..], b"\x80\x80\x80\x08"].concat();
    let bomb: Vec<u8> = copies.iter().copied().chain(std::iter::repeat_n([0x90u8, 0x10], 1 << 20).flatten()).collect();
    let mut hasher = oid::Hasher::object(Format::Sha1, "blob", 16);
    hasher.update(&[7; 16]);
    let name = hasher.finish().unwrap().as_bytes().to_vec();
    let bomb = pack(&[whole(&[7; 16]), (7, name, bomb)]);
    let zeros = pack(&[whole(&vec![0; 2 << 20])]);
    let missing = pack(&[(7, vec![9; 20], b"\x01\x01\x01x".to_vec())]);
    let before_all = pack(&[(6, vec![0x7f], b"\x01\x01\x01x".to_vec())]);
    let itself = pack(&[(6, vec![0], b"\x01\x01\x01x".to_vec())]);
    let unknown = pack(&[(5, vec![], b"x".to_vec())]);
    let table: [(&[u8], &str); 10] = [
        (&damaged, "checksum"),
        (&longer, "after the end"),
        (&good[..good.len() - 5], "too early"),
        (b"PACK\x00\x00\x00\x09\x00\x00\x00\x00", "no pack"),
        (b"not a pack at all", "no pack"),
        (&bomb, "beyond all measure"),
        (&zeros, "beyond all measure"),
        (&missing, "not in the pack"),
        (&before_all, "against nothing"),
        (&unknown, "unknown kind"),
    ];
    for (bytes, reason) in table {
        let Err(fault) = received(bytes, &limits) else { panic!("{reason}") };
        assert!(fault.to_string().contains(reason), "{reason}: {fault}");
    }
    assert!(received(&itself, &limits).is_err());
}

#[test]
fn sha256_repositories() {
    if !available() {
        return;
    }
    let room = Room::new();
    let at = room.path("src/new");
    fs::create_dir(&at).unwrap();
    git(&at, &["init", "-q", "--object-format=sha256", "."]);
    fs::write(at.join("file"), "one\n").unwrap();
    commit(&at, "one");
    room.publish("new");
    let server = room.serve();
    for kind in ["smart", "old"] {
        let done =
            room.check_out(&server.url(kind, "new.git"), &Auth::default(), |it| it.git_dir = GitDir::Shallow).unwrap();
        assert_eq!(done.commit.len(), 64);
        git(done.tree.path(), &["fsck", "--strict"]);
        assert_eq!(git(done.tree.path(), &["status", "--porcelain"]), "");
    }
}

/// `git daemon` on a port of its own; stopped when dropped.
struct Daemon(std::process::Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_git_protocol() {
    if !available() {
        return;
    }
    let room = Room::new();
    room.source("a");
    room.publish("a");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let served = room.path("served");
    // Not through `git`, which would be between us and what is to be stopped.
    let daemon = std::process::Command::new(Path::new(&git(&served, &["--exec-path"])).join("git-daemon"))
        .args(["--export-all", "--listen=127.0.0.1", "--reuseaddr"])
        .arg(format!("--port={port}"))
        .arg(format!("--base-path={}", served.display()))
        .envs([("GIT_CONFIG_COUNT", "1"), ("GIT_CONFIG_KEY_0", "safe.directory"), ("GIT_CONFIG_VALUE_0", "*")])
        .stderr(std::process::Stdio::null())
        .spawn();
    let Ok(daemon) = daemon else {
        eprintln!("skipped: no `git daemon` here");
        return;
    };
    let _daemon = Daemon(daemon);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        if std::time::Instant::now() > until {
            eprintln!("skipped: `git daemon` does not listen");
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(room.files(&format!("git://127.0.0.1:{port}/a.git#v1")), expected("one", false));
    let error = room.error(&format!("git://127.0.0.1:{port}/none.git"));
    assert!(error.contains("the server says: ") || error.contains("too early"), "{error}");
}
