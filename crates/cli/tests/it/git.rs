//! ADD of git repositories, and contexts from them, on a server of 127.0.0.1.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use testkit::GitServer;
use testkit::git_server::{available, git, publish};

use crate::harness::{Place, everything_below};

/// A place with the repository `served/app.git`: a Dockerfile that copies all, an ignore file, `sub` with another Dockerfile,
/// branch `next`, tag `v1`. None where there is no git, which is said.
fn room(dockerfile: &str) -> Option<(Place, GitServer)> {
    if !available() {
        return None;
    }
    let place = Place::new(dockerfile);
    let source = place.path("source");
    std::fs::create_dir_all(source.join("sub")).unwrap();
    std::fs::create_dir(place.path("served")).unwrap();
    git(&source, &["init", "-q", "."]);
    for (path, content) in [
        ("Dockerfile", "FROM scratch\nCOPY . /\n"),
        (".dockerignore", "hidden\n"),
        ("file", "one\n"),
        ("hidden", "x\n"),
        ("sub/Dockerfile", "FROM scratch\nCOPY inner /got\n"),
        ("sub/inner", "inner\n"),
    ] {
        std::fs::write(source.join(path), content).unwrap();
    }
    commit(&source, "one");
    git(&source, &["tag", "v1"]);
    git(&source, &["checkout", "-q", "-b", "next"]);
    std::fs::write(source.join("file"), "two\n").unwrap();
    commit(&source, "two");
    git(&source, &["checkout", "-q", "main"]);
    publish(&source, &place.path("served"), "app.git");
    let server = GitServer::start(&place.path("served"));
    Some((place, server))
}

fn commit(at: &Path, message: &str) {
    git(at, &["add", "-A"]);
    git(at, &["commit", "-q", "-m", message]);
}

#[test]
fn a_repository_is_a_context() {
    let Some((place, server)) = room("") else { return };
    let url = server.url("smart", "app.git");
    place.run(&["build", "--output=all", &url]).digest();
    assert_eq!(place.read("all/file"), "one\n");
    assert!(!place.path("all/hidden").exists() && !place.path("all/.git").exists());
    for (context, output, content) in [
        (format!("{url}#next"), "next/file", "two\n"),
        (format!("{url}#:sub"), "sub/got", "inner\n"),
        (format!("{url}?tag=v1&subdir=sub"), "query/got", "inner\n"),
    ] {
        let directory = format!("--output={}", output.split('/').next().unwrap());
        place.run(&["build", &directory, &context]).digest();
        assert_eq!(place.read(output), content, "{context}");
    }
    place.run(&["build", "--output=kept", "--build-arg=BUILDKIT_CONTEXT_KEEP_GIT_DIR=1", &url]).digest();
    assert!(place.path("kept/.git/HEAD").exists());
    place.run(&[
        "build",
        "--output=given",
        "-f",
        "sub/Dockerfile",
        "--context",
        &format!("{url}#:"),
        "--context-sub-path=sub",
    ]);
    place.run(&["build", "--no-push", &format!("{url}#nothing")]).failed(3, &["does not contain ref `nothing`", &url]);
    place.assert_clean();
}

#[test]
fn times_of_a_context_are_the_commits_with_an_epoch() {
    let Some((place, server)) = room("") else { return };
    let url = server.url("smart", "app.git");
    let arguments =
        ["--oci-layout-path=out", "--compression=none", "--no-push", "--build-arg=SOURCE_DATE_EPOCH=1600000000"];
    place.run(&[&["build"], &arguments[..], &[&url]].concat()).digest();
    // In the header of the layer's entry; files that are written out have the epoch itself.
    let blobs = crate::harness::everything_below(&place.path("out/blobs"));
    let headers = blobs.iter().flat_map(|(_, blob)| blob.as_chunks::<512>().0);
    let header = headers.into_iter().find(|header| header.starts_with(b"file\0")).expect("the file in the layer");
    let modified = std::str::from_utf8(&header[136..147]).unwrap();
    assert_eq!(i64::from_str_radix(modified, 8).unwrap(), 1_577_836_800);
}

#[test]
fn kanikos_contexts_are_clones() {
    let Some((place, server)) = room("") else { return };
    let place = place.variable("GIT_PULL_METHOD", "http").variable("GIT_TOKEN", "hush");
    let context = format!("--context=git://{}/private/app.git", server.address);
    place.executor(&["--no-push", "--output=clone", &context]).digest();
    let clone = place.path("clone");
    assert_eq!(git(&clone, &["log", "--format=%s", "origin/next"]), "two\none");
    let basic = "Basic aHVzaDo=";
    assert_eq!(server.seen().pop().unwrap().authorization.as_deref(), Some(basic), "the token, no password");
    let first = git(&place.path("source"), &["rev-parse", "v1"]);
    let table = [
        (vec![format!("{context}#refs/heads/next")], "two\n"),
        (vec![format!("{context}#next")], "two\n"),
        (vec![format!("{context}#refs/heads/next#{first}")], "one\n"),
        (vec![context.clone(), "--git=branch=next".to_owned(), "--git=single-branch=true".to_owned()], "two\n"),
        (vec![context.clone(), "--git=branch=next,depth=1,recurse-submodules=true".to_owned()], "two\n"),
    ];
    for (number, (arguments, content)) in table.iter().enumerate() {
        let output = format!("--output=out{number}");
        let mut all = vec!["--no-push", output.as_str()];
        all.extend(arguments.iter().map(String::as_str));
        place.executor(&all).digest();
        assert_eq!(place.read(&format!("out{number}/file")), *content, "{arguments:?}");
    }
    assert_eq!(git(&place.path("out4"), &["rev-list", "--count", "HEAD"]), "1");
    let bad = |arguments: &[&str], part: &str| {
        let ran = place.run(&[&["build", "--no-push"], arguments].concat());
        assert!(ran.code() == 2 && ran.stderr.contains(part), "{arguments:?}\n{}", ran.stderr);
    };
    bad(&[&context, "--git=colour=red"], "unknown key `colour`");
    bad(&[&context, "--git=depth=x"], "a number of commits");
    bad(&["--git=branch=next", &place.text("context")], "git://");
    for (path, bytes) in everything_below(&clone) {
        assert!(!String::from_utf8_lossy(&bytes).contains("hush"), "{}", path.display());
    }
}

#[test]
fn a_repository_is_a_named_context() {
    let Some((place, server)) = room("FROM scratch\nCOPY --from=repo file /\nCOPY --from=sub / /sub/\n") else {
        return;
    };
    let repo = format!("--build-context=repo={}#next", server.url("smart", "app.git"));
    let sub = format!("--build-context=sub={}#:sub", server.url("dumb", "app.git"));
    place.build(&["--output=out", &repo, &sub]).digest();
    assert_eq!((place.read("out/file").as_str(), place.read("out/sub/inner").as_str()), ("two\n", "inner\n"));
}

#[test]
fn add_takes_repositories_with_its_flags() {
    let dockerfile = "FROM scratch\n\
        ARG URL\n\
        ADD --link ${URL}#v1 /tag\n\
        ADD --chmod=0600 --exclude=sub ${URL}#next:/ more /two/\n\
        ADD --keep-git-dir ${URL} /kept\n\
        ADD ${URL}?keep-git-dir=true&mtime=commit /old\n\
        ADD --checksum=COMMIT ${URL}#v1 /sum\n";
    let Some((place, server)) = room("") else { return };
    let first = git(&place.path("source"), &["rev-parse", "v1"]);
    let place = place.file("context/Dockerfile", dockerfile.replace("COMMIT", &first[..9])).file("context/more", "m");
    let url = server.url("smart", "app.git");
    place.build(&["--output=out", &format!("--build-arg=URL={url}")]).digest();
    assert_eq!(place.read("out/tag/hidden"), "x\n", "the ignore file of the context is not for it");
    assert_eq!(place.read("out/two/file"), "two\n");
    assert!(place.path("out/two/more").exists() && !place.path("out/two/sub").exists());
    let mode = std::fs::metadata(place.path("out/two/file")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    assert!(place.path("out/kept/.git/config").exists() && place.path("out/old/.git").exists());
    assert_eq!(place.read("out/sum/file"), "one\n");
}

#[test]
fn what_is_wrong_with_a_repository_names_its_line() {
    let Some((_room, server)) = room("") else { return };
    let url = server.url("smart", "app.git");
    let table = [
        (format!("ADD {url}#nothing /x"), "does not contain ref `nothing`"),
        (format!("COPY {url} /x"), "source can't be a git ref for COPY"),
        (format!("ADD {url}?colour=red /x"), "unexpected query `colour`"),
        (format!("ADD --checksum=sha256:0123 {url} /x"), "invalid checksum `sha256:0123`"),
        (format!("ADD --checksum=0123 {url} /x"), "expected checksum to match 0123"),
        (format!("ADD --checksum=0123 {url}?checksum=4567 /x"), "checksum mismatch"),
        (format!("ADD --keep-git-dir=false {url}?keep-git-dir=true /x"), "inconsistent keep-git-dir"),
        (format!("ADD {} /x", server.url("private", "app.git")), "--secret id=GIT_AUTH_TOKEN"),
        ("ADD https://u:${HUSH}@127.0.0.1:1/a.git /x".to_owned(), "`https://127.0.0.1:1/a.git`"),
    ];
    for (instruction, part) in table {
        let place = Place::new(&format!("FROM scratch\nARG HUSH\n{instruction}\n"));
        let ran = place.build(&["--no-push", "--build-arg=HUSH=hunter2"]);
        ran.failed(3, &[part, "Dockerfile:3"]);
        assert!(!ran.stderr.contains("hunter2"), "{}", ran.stderr);
    }
}

#[test]
fn tokens_stay_out_of_everything() {
    let Some((place, server)) = room("") else { return };
    let url = server.url("private", "app.git");
    let dockerfile =
        format!("FROM scratch\nADD --keep-git-dir {url} /a\nADD {} /b\n", url.replace("://", "://me:hunter2@"));
    let place = place.file("context/Dockerfile", dockerfile).variable("TOKEN", "hunter2");
    let flags = ["--oci-layout-path=layout", "--no-push", "--verbosity=trace", "--secret=id=GIT_AUTH_TOKEN,env=TOKEN"];
    let ran = place.build(&flags);
    ran.digest();
    assert!(!ran.stderr.contains("hunter2"), "{}", ran.stderr);
    let encoded = "eC1hY2Nlc3MtdG9rZW46aHVudGVyMg==";
    assert!(server.seen().iter().all(|seen| seen.authorization.as_deref().is_none_or(|it| it.contains(encoded))));
    for (path, bytes) in everything_below(&place.path("layout")) {
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("hunter2") && !text.contains(encoded), "{}", path.display());
    }
}

#[test]
fn ssh_is_spoken_by_a_program() {
    let Some((place, _server)) =
        room("FROM scratch\nADD git@host.example:served/app.git#next /a\nADD ssh://host.example/PATH /b\n")
    else {
        return;
    };
    let served = place.path("served/app.git");
    let dockerfile = place.read("context/Dockerfile").replace("/PATH", served.to_str().unwrap());
    // What the program at the other end would be told.
    let program = "#!/bin/sh\nfor last; do :; done\necho \"$@\" >>\"$SSH_LOG\"\nexec sh -c \"$last\"\n";
    let place = place.file("context/Dockerfile", dockerfile).file("bin/ssh", program);
    std::fs::set_permissions(place.path("bin/ssh"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let (bin, log) = (place.text("bin"), place.text("log"));
    let path = format!("{bin}:{}", std::env::var("PATH").unwrap());
    let place = place.variable("PATH", &path).variable("SSH_LOG", &log);
    place.build(&["--output=out"]).digest();
    assert_eq!((place.read("out/a/file").as_str(), place.read("out/b/file").as_str()), ("two\n", "one\n"));
    let told = place.read("log");
    assert!(told.contains("-- git@host.example git-upload-pack 'served/app.git'"), "{told}");
    assert!(told.contains("BatchMode=yes"), "{told}");
    let place = place.variable("PATH", "/nonexistent");
    place.build(&["--no-push"]).failed(3, &["no `ssh` program here", "use the https address"]);
}
