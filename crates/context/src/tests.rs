//! Contexts and Dockerfiles from temporary directories.

use std::fs;
use std::os::unix::fs::symlink;

use rootfs::copy::Filter as _;

use super::*;

/// Files as `PATH CONTENT`; a content that begins with `->` makes a link.
fn fill(directory: &Path, files: &[(&str, &str)]) {
    for (path, content) in files {
        let path = directory.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match content.strip_prefix("-> ") {
            Some(target) => symlink(target, path).unwrap(),
            None => fs::write(path, content).unwrap(),
        }
    }
}

fn room(files: &[(&str, &str)]) -> tempfile::TempDir {
    let room = tempfile::tempdir().unwrap();
    fs::create_dir(room.path().join("work")).unwrap();
    fs::create_dir(room.path().join("c")).unwrap();
    fill(room.path(), files);
    room
}

fn net() -> Net {
    Net::new(net::Settings::new("test")).unwrap()
}

/// Runs the whole road: open, Dockerfile, ignore file.
fn load(
    room: &Path,
    place: &Place,
    given: Option<&str>,
    stdin: Option<&[u8]>,
) -> Result<(Context, Dockerfile), ContextError> {
    let (net, work) = (net(), room.join("work"));
    let stdin = stdin.map(|bytes| Box::new(bytes) as Box<dyn Read + Send>);
    let mut sources = Sources { stdin, net: &net, git: &git::Settings::default(), work: &work };
    let opened = open(place, &mut sources)?;
    let dockerfile = read_dockerfile(given, &opened, &mut sources)?;
    Ok((opened.with_ignore_file(&dockerfile)?, dockerfile))
}

fn local(room: &tempfile::TempDir) -> Place {
    Place::Directory(room.path().join("c"))
}

#[test]
fn the_dockerfile_is_found() {
    let room = room(&[
        ("c/Dockerfile", "default"),
        ("c/sub/other.df", "other"),
        ("c/linked", "-> sub/other.df"),
        ("outside/Dockerfile", "outside"),
        ("lower/dockerfile", "lower"),
    ]);
    let at = |path: &str| room.path().join(path).display().to_string();
    let table = [
        (None, "default"),
        (Some("sub/other.df".to_owned()), "other"),
        (Some("sub/../Dockerfile".to_owned()), "default"),
        (Some("linked".to_owned()), "other"),
        (Some(at("c/linked")), "other"),
        (Some(at("c/Dockerfile")), "default"),
        (Some(at("outside/Dockerfile")), "outside"),
        (Some(at("lower/Dockerfile")), "lower"),
        (Some("-".to_owned()), "from stdin"),
    ];
    for (given, text) in table {
        let (_, dockerfile) = load(room.path(), &local(&room), given.as_deref(), Some(b"from stdin")).unwrap();
        assert_eq!(String::from_utf8(dockerfile.bytes).unwrap(), text, "{given:?}");
    }
    let lower = Place::Directory(room.path().join("lower"));
    assert_eq!(load(room.path(), &lower, None, None).unwrap().1.name, "dockerfile");
}

#[test]
fn a_link_in_the_context_does_not_lead_to_the_host() {
    let room = room(&[("c/Dockerfile", "-> ../secret"), ("c/up", "-> /etc/passwd"), ("secret", "secret")]);
    let absolute = room.path().join("c/up").display().to_string();
    for given in [None, Some("up"), Some(absolute.as_str())] {
        let error = load(room.path(), &local(&room), given, None).unwrap_err();
        assert!(matches!(error, ContextError::NoDockerfile { .. }), "{given:?}: {error}");
    }
}

#[test]
fn a_missing_dockerfile_says_where_it_was_looked_for_and_what_is_like_it() {
    let room = room(&[("c/Containerfile", "x"), ("c/Dockerfile.dockerignore", "x")]);
    let error = load(room.path(), &local(&room), None, None).unwrap_err();
    assert_eq!(error.to_string(), "Dockerfile `Dockerfile` not found in the build context");
    let ContextError::NoDockerfile { suggestion, .. } = error else { panic!("{error}") };
    assert_eq!(suggestion, Some(PathBuf::from("Containerfile")));
    let error = load(room.path(), &local(&room), Some("no/such"), None).unwrap_err().to_string();
    assert_eq!(error, "Dockerfile `no/such` not found in the current directory or the build context");
}

#[test]
fn the_ignore_file_beside_the_dockerfile_wins_wholly() {
    let room = room(&[
        ("c/.dockerignore", "b.md\n"),
        ("c/Dockerfile", "x"),
        ("c/build/df", "x"),
        ("c/build/df.dockerignore", "a.txt\nbuild/x\n"),
        ("out/Dockerfile", "x"),
        ("out/Dockerfile.dockerignore", "a.txt\n"),
        ("plain/Dockerfile", "x"),
    ]);
    let at = |path: &str| room.path().join(path).display().to_string();
    // Dockerfile, ignore file, what is hidden of a.txt b.md build/x
    let table = [
        (None, Some(".dockerignore".to_owned()), [false, true, false]),
        (Some("build/df".to_owned()), Some("build/df.dockerignore".to_owned()), [true, false, true]),
        (Some(at("c/build/df")), Some("build/df.dockerignore".to_owned()), [true, false, true]),
        (Some(at("out/Dockerfile")), Some(at("out/Dockerfile.dockerignore")), [true, false, false]),
        (Some(at("plain/Dockerfile")), Some(".dockerignore".to_owned()), [false, true, false]),
        (Some("-".to_owned()), Some(".dockerignore".to_owned()), [false, true, false]),
    ];
    for (given, file, hidden) in table {
        let (context, _) = load(room.path(), &local(&room), given.as_deref(), Some(b"x")).unwrap();
        let seen = ["a.txt", "b.md", "build/x"].map(|path| context.ignore.excludes(Path::new(path)));
        assert_eq!((context.ignore.file, seen), (file.map(PathBuf::from), hidden), "{given:?}");
        if given.as_deref() != Some("-") {
            let opened = open_dir(&room.path().join("c"), given.as_deref().map(Path::new)).unwrap();
            let seen = ["a.txt", "b.md", "build/x"].map(|path| opened.ignore.excludes(Path::new(path)));
            assert_eq!(seen, hidden, "{given:?}");
        }
    }
}

#[test]
fn a_broken_ignore_file_is_named_with_its_line() {
    let room = room(&[("c/Dockerfile", "x"), ("c/.dockerignore", "ok\n[a\n")]);
    let error = load(room.path(), &local(&room), None, None).unwrap_err().to_string();
    assert!(error.contains("`.dockerignore`") && error.contains("line 2"), "{error}");
}

#[test]
fn contexts_that_are_none() {
    let room = room(&[("c/f", "x")]);
    let missing = Place::Directory(room.path().join("none"));
    assert!(matches!(load(room.path(), &missing, None, None), Err(ContextError::Io { .. })));
    let error = load(room.path(), &Place::Directory(room.path().join("c/f")), None, None).unwrap_err().to_string();
    assert!(error.contains("not a directory") && error.contains("tar://"), "{error}");
    let error = load(room.path(), &Place::Stdin, Some("-"), Some(b"FROM scratch")).unwrap_err().to_string();
    assert!(error.contains("standard input is already taken"), "{error}");
}

#[test]
fn a_dockerfile_of_any_length_is_not_read() {
    let room = room(&[("c/f", "x")]);
    fs::File::create(room.path().join("c/Dockerfile")).unwrap().set_len(DOCKERFILE_MAX_BYTES + 1).unwrap();
    let error = load(room.path(), &local(&room), None, None).unwrap_err().to_string();
    assert!(error.contains("larger than 16 MiB"), "{error}");
}

fn tar_of(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = ::tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_uid(5);
        builder.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn a_tar_is_unpacked_and_has_its_own_dockerfile() {
    let room = room(&[("c/f", "x")]);
    let tar = tar_of(&[("Dockerfile", "in tar"), ("sub/d", "other"), (".dockerignore", "secret\n"), ("secret", "x")]);
    let path = room.path().join("c.tar");
    fs::write(&path, &tar).unwrap();
    for (place, stdin) in [(Place::Tar(path), None), (Place::Stdin, Some(tar.as_slice()))] {
        for (given, text) in [(None, "in tar"), (Some("sub/d"), "other")] {
            let (context, dockerfile) = load(room.path(), &place, given, stdin).unwrap();
            assert_eq!(dockerfile.bytes, text.as_bytes(), "{place:?}");
            assert!(context.ignore.excludes(Path::new("secret")));
        }
    }
    let opened = open_tar(&mut tar.as_slice(), "a tar", &room.path().join("work")).unwrap();
    assert!(opened.ignore.excludes(Path::new("secret")));
    let error = open_tar(&mut "no tar".as_bytes(), "a text", &room.path().join("work")).unwrap_err().to_string();
    assert!(error.contains("`a text`") && error.contains("not a tar"), "{error}");
}

#[test]
fn a_single_file_on_standard_input_is_the_dockerfile() {
    let room = room(&[("c/f", "x")]);
    let (context, dockerfile) = load(room.path(), &Place::Stdin, None, Some(b"FROM scratch\n")).unwrap();
    assert_eq!((dockerfile.bytes.as_slice(), dockerfile.name.as_str()), (&b"FROM scratch\n"[..], "standard input"));
    assert!(context.tree.read_dir(Path::new("")).unwrap().is_empty());
}

fn fifo(path: &Path) {
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// Writes into a fifo as soon as somebody reads it, and later than that.
fn write_later(path: &Path, content: &[u8]) -> std::thread::JoinHandle<()> {
    let (path, content) = (path.to_owned(), content.to_vec());
    std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(150));
        fs::write(path, content).unwrap();
    })
}

#[test]
fn a_dockerfile_may_be_a_pipe() {
    let room = room(&[
        ("c/.dockerignore", "general"),
        ("c/f", "x"),
        ("beside.dockerignore", "special"),
        ("c/link", "-> ../outside"),
    ]);
    for name in ["c/inside", "outside", "beside"] {
        fifo(&room.path().join(name));
    }
    for (name, hidden) in [("c/inside", "general"), ("outside", "general"), ("beside", "special")] {
        let path = room.path().join(name);
        let writing = write_later(&path, b"FROM piped");
        let (context, dockerfile) = load(room.path(), &local(&room), path.to_str(), None).unwrap();
        writing.join().unwrap();
        assert_eq!(dockerfile.bytes, b"FROM piped", "{name}");
        // As for any other: the ignore file that is beside it, or that of the context.
        assert!(context.ignore.excludes(Path::new(hidden)), "{name}");
    }
    // A link that somebody committed leads nowhere else.
    let link = room.path().join("c/link");
    let error = load(room.path(), &local(&room), link.to_str(), None).unwrap_err();
    assert!(matches!(error, ContextError::NoDockerfile { .. }), "{error:?}");
    let (_, dockerfile) = load(room.path(), &local(&room), Some("/dev/stdin"), Some(b"FROM stdin")).unwrap();
    assert_eq!(dockerfile.bytes, b"FROM stdin");
}

#[test]
fn a_context_may_be_a_pipe() {
    let room = room(&[("c/f", "x")]);
    let tar = tar_of(&[("Dockerfile", "in tar"), ("a", "b")]);
    let path = room.path().join("piped");
    fifo(&path);
    let writing = write_later(&path, &tar);
    let (context, dockerfile) = load(room.path(), &Place::Tar(path), None, None).unwrap();
    writing.join().unwrap();
    assert_eq!(dockerfile.bytes, b"in tar");
    assert!(context.tree.stat(Path::new("a")).unwrap().is_some());
    let (_, dockerfile) = load(room.path(), &Place::Tar("/dev/stdin".into()), None, Some(&tar)).unwrap();
    assert_eq!(dockerfile.bytes, b"in tar");
}

/// A pipe that nobody writes into does not hold up the end.
#[test]
fn waiting_for_a_pipe_can_be_cancelled() {
    let room = room(&[("c/f", "x")]);
    let path = room.path().join("silent");
    fifo(&path);
    for place in [local(&room), Place::Tar(path.clone())] {
        let net = net();
        let cancel = net.settings().cancel.clone();
        std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(200));
            cancel.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        let work = room.path().join("work");
        let mut sources = Sources { stdin: None, net: &net, git: &git::Settings::default(), work: &work };
        let begun = std::time::Instant::now();
        let read = open(&place, &mut sources)
            .and_then(|opened| read_dockerfile(path.to_str(), &opened, &mut sources).map(drop));
        assert!(read.is_err(), "{place:?}");
        assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{place:?}");
    }
}
