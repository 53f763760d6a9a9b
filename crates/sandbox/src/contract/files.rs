//! What a step does to files, as a layer would have it.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use rootfs::FileKind;
use rootfs::commit::{CommitOptions, Snapshot, Written, commit, snapshot};

use super::Check;
use super::suite::{Place, Suite, same, secret, shell, text};
use crate::Exit;

pub const CHECKS: &[(&str, Check)] = &[
    ("devices", devices),
    ("changes are kept, and nothing else changes", changes),
    ("image files at the mount points of hosts and resolv.conf", image_files),
    ("a step that deletes all it can", self_destruction),
    ("special files and modes", special_files),
    ("set-group-id bits that come and go", set_group_ids),
    ("device nodes in layers", device_nodes),
    ("change times of what is not touched", change_times),
    ("where a step says that it wrote", written),
];

fn devices(suite: &Suite<'_>) -> Result<(), String> {
    let script = "for d in null zero full random urandom tty; do test -c /dev/$d && echo $d; done
        head -c 4 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c; echo x > /dev/null; echo x 2> /dev/null > /dev/full && echo bad
        for l in fd stdin stdout stderr; do readlink /dev/$l; done; test -d /dev/shm && test -d /dev/pts && echo dirs
        stat -c %a /dev/null /dev/shm; echo x > /dev/shm/x; echo hello > /dev/stderr";
    let wanted = "null\nzero\nfull\nrandom\nurandom\ntty\n4\n4\n/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\n\
                  dirs\n666\n1777\n";
    same("devices", suite.place()?.script(script, &[])?.as_str(), wanted)
}

fn changes(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let before = place.listing()?;
    place.script("true", &[])?;
    place.only_new(&before, &[])?;
    place
        .script("mkdir -p /app/data /usr/lib; echo x > /app/data/f; ln -s f /app/data/l; ln /app/data/f /hard", &[])?;
    place.only_new(&before, &["app", "app/data", "app/data/f", "app/data/l", "hard", "usr", "usr/lib"])?;
    place.script("rm -r /app /hard /usr", &[])?;
    place.only_new(&before, &[])
}

fn image_files(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let etc = place.path().join("etc");
    fs::create_dir(&etc).map_err(text)?;
    for name in ["hosts", "resolv.conf", "hostname", "own.conf"] {
        fs::write(etc.join(name), format!("the image's {name}\n")).map_err(text)?;
    }
    let before = place.listing()?;
    let layers = Layers::begin(&place)?;
    let seen = place.script("cat /etc/hosts", &[])?;
    same("localhost in hosts", seen.contains("localhost"), true)?;
    place.only_new(&before, &[])?;
    // Neither does a step that covers them again, nor one that covers another file.
    let secret = [secret("/etc/own.conf", "covered", 0o400, 0, 0)];
    for _ in 0..2 {
        same("covered", place.script("cat /etc/own.conf", &secret)?.as_str(), "covered")?;
    }
    // The directories that runtimes leave are the only entries.
    same("in a layer", layers.entries(&["proc", "sys", "dev"])?, 0)?;
    place.script("echo y > /etc/y", &[])?;
    let mut changed = before.clone();
    changed.extend(place.listing()?.remove_entry(Path::new("etc")));
    place.only_new(&changed, &["etc/y"])
}

/// What a step adds to an image.
struct Layers<'a> {
    place: &'a Place<'a>,
    before: Snapshot,
}

impl Layers<'_> {
    fn begin<'a>(place: &'a Place<'a>) -> Result<Layers<'a>, String> {
        let before = snapshot(&place.tree, &place.path().with_extension("record")).map_err(text)?;
        Ok(Layers { place, before })
    }

    /// The layer of all that happened since, looked for everywhere or where it is said to be.
    fn layer(&self, written: Option<Written>) -> Result<Vec<u8>, String> {
        let options = CommitOptions { written, ..CommitOptions::default() };
        let record = self.place.suite.fresh_directory("record")?.join("record");
        let mut layer = Vec::new();
        commit(&self.place.tree, Some(&self.before), &record, &options, &mut layer).map_err(text)?;
        Ok(layer)
    }

    /// Number of entries of a layer of all that happened since, but for these paths.
    fn entries(&self, but: &[&str]) -> Result<u64, String> {
        let options = CommitOptions { ignore: but.iter().map(PathBuf::from).collect(), ..CommitOptions::default() };
        let record = self.place.path().with_extension("record-after");
        let done = commit(&self.place.tree, Some(&self.before), &record, &options, &mut std::io::sink());
        done.map(|(_, committed)| committed.entries).map_err(text)
    }
}

fn self_destruction(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    fs::create_dir_all(place.path().join("opt/a/b")).map_err(text)?;
    // Never the directories of the machine: only what a rootfs has of its own.
    place.run(&shell("rm -rf /opt /tmp /etc/x /bin/cat /bin/ls"), &[])?;
    let left = place.listing()?;
    same("gone", left.contains_key(Path::new("opt")) || left.contains_key(Path::new("tmp")), false)?;
    same("left", left.contains_key(Path::new("bin/busybox")) && left.contains_key(Path::new("bin/sh")), true)
}

fn special_files(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let script = "mkdir /s; cd /s; touch f; chown 7:8 f; chmod 6755 f; mkdir d; chmod 3770 d; mkfifo p; ln -s nowhere l; chown -h 9:9 l";
    place.script(script, &[])?;
    let wanted = [
        ("s/f", (FileKind::File, 0o6755, 7, 8)),
        ("s/d", (FileKind::Directory, 0o3770, 0, 0)),
        ("s/p", (FileKind::Fifo, 0o644, 0, 0)),
        ("s/l", (FileKind::Symlink, 0o777, 9, 9)),
    ];
    for (path, wanted) in wanted {
        let found = place.stat(path)?;
        same(path, (found.kind, found.mode, found.uid, found.gid), wanted)?;
    }
    Ok(())
}

/// Where the kernel drops the bits they are in the tree's table: by every way to a file, and not longer than they should be.
fn set_group_ids(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let script = "mkdir /s /s/d; cd /s; for f in kept given cleared gone named link moved; do touch $f; chown 0:8 $f; chmod 2755 $f; done
                  chown 8:9 given; chmod 755 cleared; rm gone; touch gone; chmod 755 gone; mv moved d/moved
                  chown 0:8 d; chmod g+s d
                  ln -s ../link d/up; chmod 755 link; chmod 2711 d/up; chmod 755 named; exec 3< named; chmod 2750 /proc/self/fd/3
                  touch other; chmod 777 . other; chown 0:8 other";
    place.script(script, &[])?;
    let modes = [
        ("s/kept", 0o2755),
        ("s/given", 0o755),
        ("s/cleared", 0o755),
        ("s/gone", 0o755),
        ("s/d/moved", 0o2755),
        ("s/d", 0o2755),
        ("s/link", 0o2711),
        ("s/named", 0o2750),
        ("s/other", 0o777),
    ];
    for (path, wanted) in modes {
        same(path, place.stat(path)?.mode, wanted)?;
    }
    Ok(())
}

fn device_nodes(suite: &Suite<'_>) -> Result<(), String> {
    if !suite.abilities().devices {
        return Ok(());
    }
    let place = suite.place()?;
    let script = "mkdir /s; cd /s; umask 027; mknod c c 1 3; mknod -m 600 b b 259 70000; mknod /top c 1 5; chown 3:4 c; mknod c c 1 3 2> /dev/null || echo is there";
    same("output", place.script(script, &[])?.as_str(), "is there\n")?;
    // What lies right in `/` may be a copy.
    place.script("chmod 604 /top", &[])?;
    let wanted = [
        ("s/c", (FileKind::CharDevice, (1, 3), 0o640, 3, 4)),
        ("s/b", (FileKind::BlockDevice, (259, 70000), 0o600, 0, 0)),
        ("top", (FileKind::CharDevice, (1, 5), 0o604, 0, 0)),
    ];
    for (path, wanted) in wanted {
        let found = place.stat(path)?;
        same(path, (found.kind, found.device, found.mode, found.uid, found.gid), wanted)?;
    }
    Ok(())
}

/// What says that a file was changed: renaming one would do, too.
fn change_times(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let root = place.path().to_owned();
    fs::write(root.join("top"), "top\n").map_err(text)?;
    fs::write(root.join("other"), "other\n").map_err(text)?;
    symlink("top", root.join("link")).map_err(text)?;
    fs::create_dir(root.join("etc")).map_err(text)?;
    fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").map_err(text)?;
    let stamp = |name: &str| {
        let looks = fs::symlink_metadata(root.join(name)).map_err(text)?;
        Ok::<_, String>((looks.ino(), looks.ctime(), looks.ctime_nsec()))
    };
    let names = ["top", "link", "etc/passwd", "bin/busybox", "bin/sh"];
    let before = names.map(stamp);
    place.script("cat /top /link /etc/passwd; echo more >> /other", &[])?;
    same("inodes and change times", names.map(stamp), before)?;
    same("changed", fs::read_to_string(root.join("other")).map_err(text)?.as_str(), "other\nmore\n")?;
    place.script("rm /top; mv /other /bin/moved; ln -sf elsewhere /link", &[])?;
    same("removed and moved", root.join("top").exists() || root.join("other").exists(), false)?;
    same("moved", fs::read_to_string(root.join("bin/moved")).map_err(text)?.as_str(), "other\nmore\n")?;
    same("link", fs::read_link(root.join("link")).map_err(text)?, PathBuf::from("elsewhere"))
}

/// Where a back-end says what a step wrote, a look there finds all that a look everywhere does, and elsewhere nobody looks.
fn written(suite: &Suite<'_>) -> Result<(), String> {
    let place = suite.place()?;
    let before = "mkdir -p /a/b/c /d/e/f /g/h /i/j /k/l /m/n /o /quiet/below; for d in /a/b /a/b/c /d/e /d/e/f /g/h /i/j /k/l /m/n /o /quiet/below
        do echo $d > $d/one; echo $d > $d/two; ln -s one $d/link; done; ln /o/one /o/hard; ln /o/two /k/l/hard; mkfifo /m/n/pipe";
    place.script(before, &[])?;
    let steps = [
        "true",
        "exec 3<> /m/n/pipe; chmod 640 /proc/self/fd/3",
        "echo more >> /a/b/c/one; rm /d/e/f/two; mkdir /g/h/new; ln -sf two /i/j/link",
        "mv /d/e /a/e; echo x > /a/e/f/x; mv /a/e /d/e",
        "mv /a/b /a/away; mkdir -p /a/b/c; echo other > /a/b/c/one; mv /g/h /a/b/h; echo in > /a/b/h/one",
        "exec 3< /i/j/one; chmod 751 /proc/self/fd/3; exec 4<> /k/l/one; mv /k/l /k/ll; echo y >&4; touch -d @1 /proc/self/fd/4",
        "exec 3< /o/hard; chmod 700 /proc/self/fd/3; chown 5:6 /k/l/hard; echo z >> /o/two",
        "chmod 700 /m/n; chown 3:4 /m; chown -h 3:4 /i/j/link; cd /m/n; rm -r /m/n; mkdir /m/n; cd /; echo s > /m/n/s",
        "rmdir /quiet/nothing 2> /dev/null; rm -rf /g; mkdir -p /g/h; ln /a/b/one /g/h/one; mknod /g/h/null c 1 3",
        "mkdir -p /new/deep; cd /new/deep; for i in 1 2 3; do mkdir $i; cd $i; done; pwd > here; mv /new/deep /o/deep; echo t > there",
    ];
    for step in steps {
        let layers = Layers::begin(&place)?;
        let ran = place.run(&shell(step), &[])?;
        same(step, ran.exit, Exit::Code(0))?;
        let Some(written) = ran.written else { return Ok(()) };
        let (all, some) = (layers.layer(None)?, layers.layer(Some(written.clone()))?);
        same(step, some == all, true)?;
        fs::write(place.path().join("quiet/below/one"), step).map_err(text)?;
        same("unsaid", layers.layer(Some(written))? == all, true)?;
        same("unsaid, looked for everywhere", layers.layer(None)? == all, false)?;
    }
    Ok(())
}
