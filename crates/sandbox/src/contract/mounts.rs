//! What appears in a rootfs for the length of one step.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::suite::{Suite, bind, full, memory, process, same, secret, shell, socket, text};
use super::{Check, attack};
use crate::{Exit, SandboxError, Service};

pub const CHECKS: &[(&str, Check)] = &[
    ("bind mounts", binds),
    ("bind mount of one file", bind_file),
    ("bind mount through a link that was put there meanwhile", bind_link),
    ("bind mount over something that exists", bind_over),
    ("several mounts of one source", shared_source),
    ("mounts in mounts", nested_mounts),
    ("tmpfs mounts", tmpfs),
    ("secret files", secrets),
    ("a socket at which the builder answers", sockets),
    ("a crowd at a socket of the builder", crowd),
    ("mount points through symbolic links", linked_targets),
    ("a program mounted in /dev", scripts),
    ("impossible mounts", impossible_mounts),
    ("mounts where the container has its own", container_mounts),
];

fn binds(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let source = suite.fresh_directory("source")?;
    fs::create_dir(source.join("sub")).map_err(text)?;
    fs::write(source.join("sub/file"), "content\n").map_err(text)?;
    let owner = if suite.abilities().real_owners { (12, 34) } else { (0, 0) };
    if suite.abilities().real_owners {
        chown(source.join("sub/file"), Some(12), Some(34)).map_err(text)?;
    }
    let before = place.listing()?;
    let mounts = [bind(&source, "/new/mount/point", true), bind(&source, "/writable", false)];
    let script =
        "cat /new/mount/point/sub/file; stat -c %u:%g /new/mount/point/sub/file; echo y > /writable/made; cd /";
    let wanted = format!("content\n{}:{}\n", owner.0, owner.1);
    same("content and owner", place.script(script, &mounts)?, wanted)?;
    place.only_new(&before, &[])?;
    same("written to the source", fs::read_to_string(source.join("made")).map_err(text)?.as_str(), "y\n")?;
    same("source", fs::read_to_string(source.join("sub/file")).map_err(text)?.as_str(), "content\n")?;
    let ran = place.run(&shell("echo z > /ro/sub/file"), &[bind(&source, "/ro", true)])?;
    if suite.abilities().real_mounts {
        same("write to a read-only mount", ran.exit == Exit::Code(0), false)?;
    }
    same("read-only source", fs::read_to_string(source.join("sub/file")).map_err(text)?.as_str(), "content\n")?;
    place.only_new(&before, &[])
}

fn bind_file(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let source = suite.fresh_directory("source")?.join("file");
    fs::write(&source, "one\n").map_err(text)?;
    let before = place.listing()?;
    let mounts = [bind(&source, "/etc/injected.conf", true), bind(&source, "/new/a/file", false)];
    same("content", place.script("cat /etc/injected.conf /new/a/file", &mounts)?.as_str(), "one\none\n")?;
    place.only_new(&before, &[])?;
    // What the step puts beside the mount point is its own.
    place.script("echo kept > /new/kept", &[bind(&source, "/new/a/file", true)])?;
    place.only_new(&before, &["new", "new/kept"])
}

fn bind_link(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let source = suite.fresh_directory("source")?;
    symlink("/", source.join("link")).map_err(text)?;
    let sources = [source.join("link"), source.join("link/bin")];
    for mount in sources.iter().filter(|_| suite.abilities().real_mounts).map(|path| bind(path, "/m", true)) {
        match place.try_with(&shell("true"), std::slice::from_ref(&mount), &|| false) {
            Err(SandboxError::Mount { target, .. }) => same("target", target, mount.target)?,
            other => return Err(format!("{mount:?} gave {other:?}")),
        }
    }
    Ok(())
}

fn bind_over(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let source = suite.fresh_directory("source")?;
    fs::write(source.join("theirs"), "").map_err(text)?;
    fs::create_dir(place.path().join("data")).map_err(text)?;
    fs::write(place.path().join("data/ours"), "ours\n").map_err(text)?;
    fs::write(place.path().join("file"), "ours\n").map_err(text)?;
    let before = place.listing()?;
    let mounts = [bind(&source, "/data", false), bind(&source.join("theirs"), "/file", true)];
    same("covered", place.script("ls /data; cat /file", &mounts)?.as_str(), "theirs\n")?;
    place.only_new(&before, &[])
}

fn shared_source(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let source = suite.fresh_directory("source")?;
    fs::create_dir(source.join("sub")).map_err(text)?;
    let before = place.listing()?;
    let mounts =
        [bind(&source, "/one", false), bind(&source, "/two", false), bind(&source.join("sub"), "/three", false)];
    let script = "echo a > /one/a; cat /two/a; echo b > /two/sub/b; cat /three/b; echo c > /three/c; ls /one/sub";
    same("inside", place.script(script, &mounts)?.as_str(), "a\nb\nb\nc\n")?;
    place.only_new(&before, &[])?;
    same("kept", source.join("a").exists() && source.join("sub/b").exists() && source.join("sub/c").exists(), true)
}

fn nested_mounts(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let source = suite.fresh_directory("source")?;
    fs::create_dir(source.join("sub")).map_err(text)?;
    fs::write(source.join("file"), "").map_err(text)?;
    let before = place.listing()?;
    let mounts = [
        memory("/m", None),
        bind(&source, "/m/inner", true),
        memory("/m/inner/sub", None),
        secret("/m/key", "k", 0o400, 0, 0),
    ];
    same(
        "inside",
        place.script("ls /m /m/inner /m/inner/sub; cat /m/key", &mounts)?.as_str(),
        "/m:\ninner\nkey\n\n/m/inner:\nfile\nsub\n\n/m/inner/sub:\nk",
    )?;
    place.only_new(&before, &[])?;
    let same_target = [memory("/m", None), bind(&source, "/m/", true)];
    same("the later one covers", place.script("ls /m", &same_target)?.as_str(), "file\nsub\n")?;
    place.only_new(&before, &[])
}

fn tmpfs(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let before = place.listing()?;
    let mounts = [memory("/new/tmp", None), memory("/tmp", None), memory("/small", Some(1 << 20))];
    let script = "touch /new/tmp/x /tmp/y; ls /new/tmp /tmp; stat -c %a /tmp /new/tmp";
    same("inside", place.script(script, &mounts)?.as_str(), "/new/tmp:\nx\n\n/tmp:\ny\n1777\n1777\n")?;
    if suite.abilities().tmpfs_sizes {
        let ran = place.run(&shell("head -c 4000000 /dev/zero > /small/x"), &mounts)?;
        same("more than its size", ran.exit == Exit::Code(0), false)?;
    }
    place.only_new(&before, &[])?;
    // The mode is that of the directory below, and root's is the file system.
    place.script("mkdir /owned; chown 1000:1000 /owned; chmod 750 /owned", &[])?;
    let owned = place.script("stat -c '%a %u:%g' /owned", &[memory("/owned", None)])?;
    same("over the directory of another", owned.as_str(), "750 0:0\n")
}

fn secrets(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let before = place.listing()?;
    let mounts = [secret("/run/secrets/a", "s3cret\n", 0o400, 0, 0), secret("/b", "x", 0o640, 1000, 2000)];
    let script = "cat /run/secrets/a; stat -c '%u:%g %a' /run/secrets/a /b";
    same("inside", place.script(script, &mounts)?.as_str(), "s3cret\n0:0 400\n1000:2000 640\n")?;
    place.only_new(&before, &[])?;
    let mut user = shell("cat /run/secrets/a 2> /dev/null || echo unreadable; cat /b");
    (user.uid, user.gid) = (1000, 1000);
    same("as a user", place.success(&user, &mounts)?.as_str(), "unreadable\nx")?;
    fs::create_dir_all(place.path().join("run/secrets")).map_err(text)?;
    fs::write(place.path().join("run/secrets/a"), "the image's\n").map_err(text)?;
    let before = place.listing()?;
    same("covered", place.script("cat /run/secrets/a", &mounts)?.as_str(), "s3cret\n")?;
    place.only_new(&before, &[])
}

/// Answers with what it gets.
#[derive(Default)]
struct Echo {
    served: AtomicUsize,
    ended: AtomicUsize,
}

impl Service for Echo {
    fn serve(&self, mut connection: &UnixStream) {
        self.served.fetch_add(1, Ordering::Relaxed);
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = connection.read(&mut buffer) {
            if connection.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        self.ended.fetch_add(1, Ordering::Relaxed);
    }
}

fn sockets(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place_for_attacks()?;
    let before = place.listing()?;
    let echo = Arc::new(Echo::default());
    let server: Arc<dyn Service> = echo.clone();
    let name = format!("/run/agent/{}", "s".repeat(90));
    let mounts = [
        socket(&name, &server, 0o600, 0, 0),
        socket("/tmp/user", &server, 0o660, 1000, 2000),
        socket("/tmp/none", &server, 0o000, 1000, 2000),
    ];
    let script = format!("stat -c '%u:%g %a' {name} /tmp/user /tmp/none; test -S {name} && echo socket; ls /tmp");
    let wanted = "0:0 600\n1000:2000 660\n1000:2000 0\nsocket\nnone\nuser\n";
    same("inside", place.script(&script, &mounts)?.as_str(), wanted)?;
    place.only_new(&before, &[])?;
    for (path, uid, gid, reaches) in [
        (name.as_str(), 0, 0, true),
        (name.as_str(), 1000, 1000, false),
        ("/tmp/user", 0, 0, true),
        ("/tmp/user", 1000, 1000, true),
        ("/tmp/user", 1001, 2000, true),
        ("/tmp/user", 1001, 1001, false),
        ("/tmp/none", 1000, 1000, false),
    ] {
        let mut user = attack::process("talk", &[path]);
        (user.uid, user.gid) = (uid, gid);
        let ran = place.run(&user, &mounts)?;
        same(&format!("{path} as {uid}:{gid}, {}", ran.stderr), ran.exit == Exit::Code(0), reaches)?;
        same("who ended", echo.ended.load(Ordering::Relaxed), echo.served.load(Ordering::Relaxed))?;
    }
    same("served", echo.served.load(Ordering::Relaxed), 4)?;
    place.only_new(&before, &[])?;
    let gone = place.script(&format!("ls {name} /tmp/user 2> /dev/null; true"), &[])?;
    same("afterwards", gone.as_str(), "")?;
    let covered = place.path().join("tmp/user");
    fs::write(&covered, "the image's\n").map_err(text)?;
    let before = place.listing()?;
    same("covered", place.script("test -S /tmp/user && echo socket", &mounts)?.as_str(), "socket\n")?;
    place.only_new(&before, &[])
}

fn crowd(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place_for_attacks()?;
    let before = place.listing()?;
    let echo = Arc::new(Echo::default());
    let server: Arc<dyn Service> = echo.clone();
    let mounts = [socket("/tmp/agent", &server, 0o600, 0, 0)];
    place.success(&attack::process("crowd", &["/tmp/agent"]), &mounts)?;
    same("who ended", echo.ended.load(Ordering::Relaxed), echo.served.load(Ordering::Relaxed))?;
    place.only_new(&before, &[])
}

fn linked_targets(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let source = suite.fresh_directory("source")?;
    fs::write(source.join("file"), "here\n").map_err(text)?;
    fs::create_dir_all(place.path().join("real")).map_err(text)?;
    fs::create_dir(place.path().join("etc")).map_err(text)?;
    symlink("/real", place.path().join("absolute")).map_err(text)?;
    symlink("../../../../dangling/target", place.path().join("escaping")).map_err(text)?;
    symlink("../run/stub-resolv.conf", place.path().join("etc/resolv.conf")).map_err(text)?;
    let before = place.listing()?;
    let mounts = [bind(&source, "/absolute/sub", true), bind(&source, "/escaping", true)];
    let script = "cat /real/sub/file /dangling/target/file /absolute/sub/file";
    same("inside", place.script(script, &mounts)?.as_str(), "here\nhere\nhere\n")?;
    place.only_new(&before, &[])
}

/// Where here-documents that are programs come from.
fn scripts(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let source = suite.fresh_directory("source")?.join("script");
    fs::write(&source, "#!/bin/sh\necho I am $0\n").map_err(text)?;
    fs::set_permissions(&source, fs::Permissions::from_mode(0o755)).map_err(text)?;
    let before = place.listing()?;
    let mounts = [bind(&source, "/dev/pipes/EOF", true)];
    same("output", place.success(&process(&["/dev/pipes/EOF"]), &mounts)?.as_str(), "I am /dev/pipes/EOF\n")?;
    same("afterwards", place.script("ls /dev/pipes 2> /dev/null; true", &[])?.as_str(), "")?;
    place.only_new(&before, &[])
}

fn impossible_mounts(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let source = suite.fresh_directory("source")?;
    fs::write(place.path().join("file"), "").map_err(text)?;
    let before = place.listing()?;
    let missing = bind(&source.join("missing"), "/m", true);
    match place.try_with(&shell("true"), std::slice::from_ref(&missing), &|| false) {
        Err(SandboxError::Mount { target, .. }) => same("target", target, missing.target)?,
        other => return Err(format!("{missing:?} gave {other:?}")),
    }
    let read_only = || bind(&source, "/ro", true);
    let cases = [
        vec![bind(&source, "/file", true)],
        vec![bind(&source, "/file/below", true)],
        vec![secret("/bin", "x", 0o400, 0, 0)],
        vec![memory("/file", None)],
        vec![read_only(), memory("/ro/none", None)],
        vec![read_only(), secret("/ro/none/key", "x", 0o400, 0, 0)],
        vec![memory("/m", None), bind(&source, "/m/ro", true), bind(&source, "/m/ro/none", true)],
    ];
    for mounts in cases {
        let Some(last) = mounts.last() else { continue };
        match place.try_with(&shell("true"), &mounts, &|| false) {
            Err(SandboxError::MountPoint { target, .. }) => same("target", &target, &last.target)?,
            other => return Err(format!("{mounts:?} gave {other:?}")),
        }
    }
    let root = bind(&source, "/", true);
    match place.try_with(&shell("true"), std::slice::from_ref(&root), &|| false) {
        Err(SandboxError::Mount { .. } | SandboxError::MountPoint { .. }) => {}
        other => return Err(format!("{root:?} gave {other:?}")),
    }
    same("the read-only source", fs::read_dir(&source).map_err(text)?.count(), 0)?;
    place.only_new(&before, &[])
}

/// What was asked for is there, or it is an error; never the container's file instead.
fn container_mounts(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let before = place.listing()?;
    let wanted = secret("/etc/hosts", "asked for\n", 0o644, 0, 0);
    match place.try_with(&shell("cat /etc/hosts"), std::slice::from_ref(&wanted), &|| false) {
        Ok(ran) => same("content", ran.stdout.as_str(), "asked for\n")?,
        Err(SandboxError::Mount { target, .. }) => same("target", target, wanted.target)?,
        Err(error) => return Err(full(error)),
    }
    place.only_new(&before, &[])
}
