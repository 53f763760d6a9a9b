//! RUN as the sandbox gets it, and what becomes of how it ends.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sandbox::{Exit, MountSource, Network};
use zuwai_build::BuildError;

use crate::harness::{Base, Bench, all_files, lock};

const PASSWD: &str = "root:x:0:0::/root:/bin/sh\nu:x:10:20::/home/u:/bin/sh\n\
    12:x:13:14::/thirteen:/bin/sh\nhomeless:x:50:60:::\nagain:x:10:21::/again:/bin/sh\n\n  spaced:x:15:16::/s:/bin/sh\n\
    zero:x:zz:17::/z:/bin/sh\n#c:x:18:19::/c:/bin/sh\nbare\n";
const GROUP: &str = "own:x:20:\nmore:x:30:root,u\nodd line\nother:x:40:\n#none:x:41:u\n  #none:x:42:u\n\
    blank:x: 43: u\n  lead:x:44:spaced  \nnought:x:zz:spaced\n";

#[test]
fn command_lines() {
    let table: &[(&str, &[&str])] = &[
        ("RUN nothing", &["/bin/sh", "-c", "nothing"]),
        ("RUN [\"x\", \"nothing\"]", &["x", "nothing"]),
        ("SHELL [\"/s\", \"-e\"]\nRUN nothing", &["/s", "-e", "nothing"]),
        ("SHELL [\"/s\"]\nRUN [\"x\", \"nothing\"]", &["x", "nothing"]),
        ("RUN <<E\nnothing\nE", &["/bin/sh", "-c", "nothing\n"]),
        ("RUN nothing; \\\n  nothing", &["/bin/sh", "-c", "nothing;   nothing"]),
        // Variables are the shell's.
        ("ENV A=1\nRUN print ${A%x} $B", &["/bin/sh", "-c", "print ${A%x} $B"]),
    ];
    for (instructions, want) in table {
        let bench = Bench::new(&format!("FROM scratch\n{instructions}\n"));
        bench.build();
        let (process, _) = bench.sandbox.only();
        assert_eq!(process.args, *want, "{instructions}");
    }
}

#[test]
fn a_here_document_with_an_interpreter_is_a_program() {
    let bench = Bench::new("FROM scratch\nRUN <<E\n#!/usr/bin/thing\nbody\nE\n").on("/dev/pipes/E", |call| {
        let MountSource::Bind { path, read_only: true } = &call.mounts[0].source else { panic!("a read-only file") };
        assert_eq!(call.mounts[0].target, Path::new("/dev/pipes/E"));
        assert_eq!(std::fs::read_to_string(path).unwrap(), "#!/usr/bin/thing\nbody\n");
        Exit::Code(0)
    });
    bench.build();
}

/// USER, then uid, gid, groups and HOME.
#[test]
fn users() {
    let table: &[(&str, u32, u32, &[u32], &str)] = &[
        ("root", 0, 0, &[0, 30], "/root"),
        ("0", 0, 0, &[0, 30], "/root"),
        ("u", 10, 20, &[20, 30], "/home/u"),
        ("10", 10, 20, &[20, 30], "/home/u"),
        ("u:other", 10, 40, &[40], "/home/u"),
        ("u:77", 10, 77, &[77], "/home/u"),
        ("99", 99, 0, &[0], "/"),
        ("99:98", 99, 98, &[98], "/"),
        // There is a user called 12 who is 13.
        ("12", 12, 0, &[0], "/"),
        ("13", 13, 14, &[14], "/thirteen"),
        // HOME is that of the first entry with the uid, and taken as it is.
        ("homeless", 50, 60, &[60], ""),
        ("50:71", 50, 71, &[71], ""),
        ("again", 10, 21, &[21], "/home/u"),
        // Lines are trimmed, `#` is a comment in /etc/group alone, and a number that is none is 0.
        ("spaced", 15, 16, &[16, 44, 0], "/s"),
        ("zero", 0, 17, &[17], "/root"),
        ("\"#c\"", 18, 19, &[19], "/c"),
        ("bare", 0, 0, &[0], "/root"),
        ("u:blank", 10, 0, &[0], "/home/u"),
        // Where nothing is looked up there is more room.
        ("root:root", 0, 0, &[0], "/root"),
        ("4000000000:4000000001", 4_000_000_000, 4_000_000_001, &[4_000_000_001], "/"),
        ("2147483647", 2_147_483_647, 0, &[0], "/"),
    ];
    for (user, uid, gid, groups, home) in table {
        let bench = Bench::new(&format!("FROM base\nUSER {user}\nRUN nothing\n"))
            .image("base", Base::new().layer(&[("etc/passwd", PASSWD), ("etc/group", GROUP)]));
        bench.build();
        let (process, _) = bench.sandbox.only();
        assert_eq!((process.uid, process.gid, process.groups.as_slice()), (*uid, *gid, *groups), "{user}");
        assert!(process.env.contains(&format!("HOME={home}").into()), "{user}: {:?}", process.env);
    }
    for (user, part) in [
        ("nobody-there", "unable to find user `nobody-there`"),
        ("u:none", "unable to find group `none`"),
        ("2147483648", "user `2147483648` is out of range: there are numbers from 0 to 2147483647"),
        ("u:4294967295", "group `4294967295` is out of range"),
        ("-1", "user `-1` is out of range"),
        ("99999999999999999999:0", "user `99999999999999999999` is out of range"),
    ] {
        let bench = Bench::new(&format!("FROM base\nUSER {user}\nRUN nothing\n"))
            .image("base", Base::new().layer(&[("etc/passwd", PASSWD), ("etc/group", GROUP)]));
        let error = bench.error();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_user_that_an_earlier_step_made() {
    let bench = Bench::new("FROM base\nRUN write /etc/passwd v:x:5:6::/v:\nUSER v\nRUN nothing\n")
        .image("base", Base::new().layer(&[("etc/passwd", PASSWD)]));
    bench.build();
    assert_eq!(lock(&bench.sandbox.ran)[1].0.uid, 5);
}

#[test]
fn directories_networks_and_hosts() {
    let mut bench = Bench::new("FROM base\nRUN --network=none nothing\nWORKDIR sub\nRUN nothing\n")
        .image("base", Base::new().config(|c| c.config.working_dir = Some("relative".to_owned())));
    bench.request.spec.extra_hosts = vec![("h".to_owned(), "1.2.3.4".to_owned())];
    bench.build();
    let ran = lock(&bench.sandbox.ran);
    assert_eq!((ran[0].0.cwd.as_path(), ran[0].0.network), (Path::new("/relative"), Network::None));
    assert_eq!((ran[1].0.cwd.as_path(), ran[1].0.network), (Path::new("/relative/sub"), Network::Host));
    assert_eq!(ran[1].0.extra_hosts, [("h".to_owned(), "1.2.3.4".to_owned())]);
}

#[test]
fn bind_mounts() {
    let see = |name: &'static str, want: &'static str| {
        move |call: &mut crate::harness::Call<'_>| {
            let MountSource::Bind { path, .. } = &call.mounts[0].source else { panic!("a bind mount") };
            assert_eq!(std::fs::read_to_string(path.join(name)).unwrap(), want);
            Exit::Code(0)
        }
    };
    let dockerfile = "FROM scratch AS a\nRUN write /f stage\nFROM scratch\n\
                      RUN --mount=target=/m see-context\nRUN --mount=from=a,target=/m see-stage\n\
                      RUN --mount=source=dir,target=/m,rw see-below\nWORKDIR /w\nRUN --mount=target=m nothing\n";
    let bench = Bench::new(dockerfile)
        .file("f", "context")
        .file("dir/inner", "below")
        .on("see-context", see("f", "context"))
        .on("see-stage", see("f", "stage"))
        .on("see-below", see("inner", "below"));
    let outcome = bench.build();
    let targets: Vec<_> =
        lock(&bench.sandbox.ran).iter().flat_map(|(_, mounts)| mounts).map(|m| m.target.clone()).collect();
    assert_eq!(targets, ["/m", "/m", "/m", "/w/m"].map(std::path::PathBuf::from));
    assert!(outcome.layers[0].is_empty(), "a mount is no change");
}

/// As BuildKit sorts them (`PrepareMounts`).
#[test]
fn mounts_come_after_those_they_lie_in_and_the_last_of_a_target_stays() {
    let dockerfile = "FROM scratch\nRUN --mount=type=secret,id=s,target=/m/key --mount=source=f,target=/m/n/f \\\n \
                      --mount=target=/m/n --mount=type=tmpfs,target=/m --mount=source=f,target=/k \\\n \
                      --mount=type=tmpfs,target=/k/ nothing\n";
    let bench = Bench::new(dockerfile).file("f", "").secret("s", "hush");
    bench.build();
    let (_, mounts) = bench.sandbox.only();
    let targets: Vec<_> = mounts.iter().map(|mount| mount.target.to_str().unwrap()).collect();
    assert_eq!(targets, ["/k", "/m", "/m/key", "/m/n", "/m/n/f"]);
    assert!(matches!(mounts[0].source, MountSource::Tmpfs { .. }), "{mounts:?}");
}

/// The cache without id and target is that of `.`, in whatever directory.
#[test]
fn mounts_without_a_target_are_at_the_working_directory() {
    let all =
        "RUN --mount=type=tmpfs nothing\nRUN --mount=target=$NONE nothing\nRUN --mount=type=bind,target=. nothing\n";
    let bench = Bench::new(&format!("FROM scratch\nWORKDIR /w/z\n{all}"));
    bench.build();
    for (_, mounts) in lock(&bench.sandbox.ran).iter() {
        assert_eq!(mounts[0].target, Path::new("/w/z"));
    }
    for mount in ["type=tmpfs", "target=", "target=../..", "type=cache"] {
        let error = Bench::new(&format!("FROM scratch\nRUN --mount={mount} nothing\n")).error();
        assert_eq!(error, "invalid mount target `/`", "{mount}");
    }
    let dry = Bench::new("FROM scratch\nWORKDIR /w\nRUN --mount=type=cache nothing\n");
    let text = zuwai_build::plan::to_text(&dry.plan(), &dry.request.spec.dockerfile.source);
    assert!(text.contains("cache `.` at /w"), "{text}");
}

#[test]
fn faults_of_mounts_matter_where_their_stage_is_built() {
    let stage = |mount: &str| format!("FROM scratch AS a\nRUN --mount={mount} nothing\n");
    for mount in ["type=foo,target=/m", "target=/m,nosuch", "target=/m,ro=maybe", "target=/", "type=secret"] {
        Bench::new(&(stage(mount) + "FROM scratch\nRUN nothing\n")).build();
        match Bench::new(&stage(mount)).try_build().err() {
            Some(BuildError::Dockerfile { .. }) => {}
            other => panic!("{mount}: {other:?}"),
        }
    }
}

/// One file deep in it decides.
#[test]
fn files_of_others_in_a_context_are_roots_for_a_step() {
    use std::os::unix::fs::{MetadataExt as _, chown, lchown};
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: files of another user take root");
    }
    for foreign in ["context/d/e/f", "context/d/e", "context/d/l"] {
        let bench =
            Bench::new("FROM scratch\nRUN --mount=source=d,target=/src look\n").file("d/e/f", "").on("look", |call| {
                let MountSource::Bind { path, .. } = &call.mounts[0].source else { panic!("a bind mount") };
                for name in ["", "e", "e/f", "l"] {
                    let found = std::fs::symlink_metadata(path.join(name)).unwrap();
                    assert_eq!((found.uid(), found.gid()), (0, 0), "{name}");
                }
                Exit::Code(0)
            });
        std::os::unix::fs::symlink("nowhere", bench.path("context/d/l")).unwrap();
        chown(bench.path("context/d"), Some(0), Some(0)).unwrap();
        lchown(bench.path(foreign), Some(1234), Some(5678)).unwrap();
        bench.build();
    }
}

/// The context itself is mounted where nothing has to be hidden: it may be large.
#[test]
fn a_context_that_is_roots_is_not_copied() {
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: the builder's other groups may be other users' as well");
    }
    let bench = Bench::new("FROM scratch\nRUN --mount=target=/src nothing\n").file("d/f", "");
    bench.build();
    let MountSource::Bind { path, .. } = &bench.sandbox.only().1[0].source else { panic!("a bind mount") };
    assert_eq!(*path, bench.path("context").canonicalize().unwrap());
}

#[test]
fn a_write_into_a_bind_mount_changes_one_of_several_names() {
    let dockerfile = "FROM scratch\nRUN --mount=target=/m,rw spoil\n";
    let bench = Bench::new(dockerfile).file("a", "x").on("spoil", |call| {
        let MountSource::Bind { path, .. } = &call.mounts[0].source else { panic!("a bind mount") };
        std::fs::write(path.join("a"), "z").unwrap();
        assert_eq!(std::fs::read_to_string(path.join("h")).unwrap(), "x");
        Exit::Code(0)
    });
    std::fs::hard_link(bench.path("context/a"), bench.path("context/h")).unwrap();
    bench.build();
}

#[test]
fn a_context_of_another_user_is_roots_for_a_step() {
    use std::os::unix::fs::{MetadataExt as _, chown};
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: a context of another user takes root");
    }
    let bench = Bench::new("FROM scratch\nRUN --mount=target=/src look\n").file("main.c", "").on("look", |call| {
        let MountSource::Bind { path, .. } = &call.mounts[0].source else { panic!("a bind mount") };
        for path in [path.clone(), path.join("main.c")] {
            let found = std::fs::symlink_metadata(path).unwrap();
            assert_eq!((found.uid(), found.gid()), (0, 0));
        }
        Exit::Code(0)
    });
    for path in ["context", "context/main.c"] {
        chown(bench.path(path), Some(1234), Some(5678)).unwrap();
    }
    bench.build();
}

#[test]
fn writes_into_a_bind_mount_are_lost() {
    let dockerfile = "FROM scratch\nRUN --mount=target=/m,rw spoil\nCOPY f /\n";
    let bench = Bench::new(dockerfile).file("f", "original").on("spoil", |call| {
        let MountSource::Bind { path, read_only: false } = &call.mounts[0].source else { panic!("a writable mount") };
        std::fs::write(path.join("f"), "spoilt").unwrap();
        Exit::Code(0)
    });
    assert_eq!(bench.build().content("f").as_deref(), Some("original"));
}

#[test]
fn bind_mounts_show_what_the_ignore_file_leaves() {
    let bench = Bench::new("FROM scratch\nRUN --mount=target=/m look\n")
        .file("a", "")
        .file("b.log", "")
        .ignore("*.log\n")
        .on("look", |call| {
            let MountSource::Bind { path, .. } = &call.mounts[0].source else { panic!("a bind mount") };
            assert!(path.join("a").exists() && !path.join("b.log").exists());
            Exit::Code(0)
        });
    bench.build();
}

#[test]
fn cache_mounts_last_by_their_id() {
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: a cache directory is given to the user it is for, which takes root");
    }
    let dockerfile = "FROM scratch\nRUN --mount=type=cache,target=/c,id=one fill\nRUN --mount=type=cache,target=/d,id=one look\n\
                      RUN --mount=type=cache,target=/c empty\n";
    let path = |call: &crate::harness::Call<'_>| match &call.mounts[0].source {
        MountSource::Bind { path, read_only: false } => path.clone(),
        other => panic!("{other:?}"),
    };
    let bench = Bench::new(dockerfile)
        .on("fill", move |call| {
            std::fs::write(path(call).join("f"), "kept").unwrap();
            Exit::Code(0)
        })
        .on("look", move |call| Exit::Code(i32::from(std::fs::read_to_string(path(call).join("f")).unwrap() != "kept")))
        .on("empty", move |call| Exit::Code(i32::from(path(call).join("f").exists())));
    let outcome = bench.build();
    assert!(outcome.layers.concat().is_empty());
    assert!(all_files(&bench.path("caches")).iter().any(|(_, content)| content == b"kept"), "and beyond the build");
}

/// Issue 9: each had a table of the owners, and they took each other's records away.
#[test]
fn steps_that_share_a_cache_share_its_owners() {
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: a cache directory is given to the user it is for, which takes root");
    }
    let cache = |target: &str| format!("--mount=type=cache,target={target},id=one");
    let dockerfile = format!(
        "FROM scratch AS a\nRUN {} {} write x 1\nFROM scratch\nRUN {} write y 1\nCOPY --from=a /x /x\n",
        cache("/c"),
        cache("/d"),
        cache("/c")
    );
    let bench = Bench::new(&dockerfile);
    bench.build();
    let ran = lock(&bench.sandbox.ran);
    let trees: Vec<_> = ran.iter().flat_map(|(_, mounts)| mounts).map(|mount| mount.tree.as_ref().unwrap()).collect();
    assert_eq!(trees.len(), 3);
    assert!(trees.iter().all(|tree| Arc::ptr_eq(tree, trees[0])));
}

/// The same id for another owner or mode is another cache.
#[test]
fn caches_by_owner() {
    use std::os::unix::fs::MetadataExt as _;
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: a cache directory is given to the user it is for, which takes root");
    }
    let cache = |rest: &str| format!("RUN --mount=type=cache,target=/c,id=one{rest} nothing\n");
    let dockerfile = format!("FROM scratch\n{}{}{}", cache(""), cache(",uid=7,gid=8"), cache(",mode=0700"));
    let bench = Bench::new(&dockerfile);
    bench.build();
    let owners: Vec<(u32, u32, u32)> = lock(&bench.sandbox.ran)
        .iter()
        .map(|(_, mounts)| match &mounts[0].source {
            MountSource::Bind { path, .. } => std::fs::metadata(path).unwrap(),
            other => panic!("{other:?}"),
        })
        .map(|m| (m.uid(), m.gid(), m.mode() & 0o7777))
        .collect();
    assert_eq!(owners, [(0, 0, 0o755), (7, 8, 0o755), (0, 0, 0o700)]);
}

/// `BUILDKIT_CACHE_MOUNT_NS`
#[test]
fn caches_of_a_namespace() {
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: a cache directory is given to the user it is for, which takes root");
    }
    let directory = |namespace: &str| {
        let mut bench = Bench::new("FROM scratch\nRUN --mount=type=cache,target=/c,id=one nothing\n");
        bench.request.backends.cache_mounts.namespace = namespace.to_owned();
        bench.build();
        match &bench.sandbox.only().1[0].source {
            MountSource::Bind { path, .. } => path.parent().unwrap().file_name().unwrap().to_owned(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(directory("a"), directory("a"));
    assert_ne!(directory("a"), directory("b"));
    assert_ne!(directory("a"), directory(""));
}

/// One cache twice in a step, and two caches in two orders in stages that run at a time: nobody waits for ever.
#[test]
fn locked_caches() {
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: a cache directory is given to the user it is for, which takes root");
    }
    let cache = |id: &str, target: &str| format!("--mount=type=cache,id={id},target={target},sharing=locked");
    let (one, two, again) = (cache("1", "/1"), cache("2", "/2"), cache("1", "/again"));
    let bench = Bench::new(&format!("FROM scratch\nRUN {one} {again} nothing\n"));
    bench.build();
    let (_, mounts) = bench.sandbox.only();
    assert_eq!(mounts.len(), 2);
    let dockerfile = format!(
        "FROM scratch AS a\n{}FROM scratch AS b\n{}FROM scratch\nCOPY --from=a / /a\nCOPY --from=b / /b\n",
        format!("RUN {one} {two} nothing\n").repeat(20),
        format!("RUN {two} {one} nothing\n").repeat(20),
    );
    Bench::new(&dockerfile).build();
}

/// A lock that another builder holds does not keep a build from being ended.
#[test]
fn waiting_for_a_locked_cache_can_be_cancelled() {
    let mut bench = Bench::new("FROM scratch\nRUN --mount=type=cache,target=/c,sharing=locked nothing\n");
    if rustix::process::geteuid().is_root() {
        bench.build();
        bench.request.control.work = bench.path("second");
        std::fs::create_dir(&bench.request.control.work).unwrap();
    }
    let locks = std::fs::read_dir(bench.path("caches")).into_iter().flatten().map(|e| e.unwrap().path());
    let held: Vec<_> = locks
        .filter(|path| path.extension().is_some_and(|e| e == "lock"))
        .map(|path| {
            let file = std::fs::File::open(path).unwrap();
            rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
            file
        })
        .collect();
    if held.is_empty() {
        return println!("skipped: a cache directory is given to the user it is for, which takes root");
    }
    let flag = bench.request.control.cancelled.clone();
    let canceller = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        flag.store(true, Ordering::Relaxed);
    });
    let error = bench.try_build().err();
    assert!(matches!(error, Some(BuildError::Cancelled)), "{error:?}");
    canceller.join().unwrap();
}

#[test]
fn tmpfs_mounts() {
    let bench = Bench::new("FROM scratch\nRUN --mount=type=tmpfs,target=/t,size=1m nothing\n");
    bench.build();
    let (_, mounts) = bench.sandbox.only();
    assert!(matches!(mounts[0].source, MountSource::Tmpfs { size_bytes: Some(1_048_576) }), "{mounts:?}");
}

const SECRET: &str = "hunter2-correct-horse";

#[test]
fn secrets_reach_the_run_and_nothing_else() {
    let dockerfile = "FROM scratch\nARG A=1\n\
                      RUN --mount=type=secret,id=s --mount=type=secret,id=s,env=TOKEN,target=/t,mode=0440,uid=5 check\n\
                      RUN nothing\n";
    let bench = Bench::new(dockerfile).secret("s", SECRET).on("check", |call| {
        let found: Vec<_> = call.mounts.iter().map(|m| (m.target.to_str().unwrap(), &m.source)).collect();
        let is = |source: &MountSource, wanted_mode, wanted_uid| {
            matches!(source, MountSource::File { content, mode, uid, gid: 0 }
                if content.reveal() == SECRET.as_bytes() && *mode == wanted_mode && *uid == wanted_uid)
        };
        assert!(found[0].0 == "/run/secrets/s" && is(found[0].1, 0o400, 0), "{}", found[0].0);
        assert!(found[1].0 == "/t" && is(found[1].1, 0o440, 5), "{}", found[1].0);
        assert_eq!(format!("{:?}", call.mounts).matches("Secret(..)").count(), 2, "in what a back-end might print");
        assert!(call.process.env.contains(&format!("TOKEN={SECRET}").into()));
        Exit::Code(0)
    });
    let outcome = bench.build();
    assert!(lock(&bench.sandbox.ran)[1].1.is_empty());
    assert!(!format!("{:?}", lock(&bench.sandbox.ran)[1].0).contains(SECRET), "the next RUN does not have it");
    let has = |bytes: &[u8]| bytes.windows(SECRET.len()).any(|w| w == SECRET.as_bytes());
    for layer in &outcome.image.layers {
        let mut plain = Vec::new();
        std::io::copy(&mut layer.uncompressed().unwrap(), &mut plain).unwrap();
        assert!(!has(&plain), "in a layer");
    }
    for place in ["out", "work", "context"] {
        for (path, content) in all_files(&bench.path(place)) {
            assert!(!has(&content), "in `{}`", path.display());
        }
    }
    assert!(bench.events.having(SECRET).is_empty(), "in the events");
    assert!(!format!("{:?}", bench.request.spec.secrets).contains(SECRET), "in the request's debug output");
}

#[test]
fn secrets_that_are_not_there() {
    let bench = Bench::new("FROM scratch\nRUN --mount=type=secret,id=s,env=E nothing\n");
    bench.build();
    let (process, mounts) = bench.sandbox.only();
    assert!(mounts.is_empty());
    assert!(process.env.contains(&"E=".into()), "{:?}", process.env);
    let bench = Bench::new("FROM scratch\nRUN --mount=type=secret,id=s,required nothing\n");
    assert_eq!(bench.error(), "secret `s` is required and was not given");
    assert!(lock(&bench.sandbox.ran).is_empty());
}

#[test]
fn ssh_agents_reach_the_run() {
    let dockerfile = "FROM scratch\nWORKDIR /w\nARG T=b\n\
                      RUN --mount=type=ssh --mount=type=ssh,id=deploy,target=a/$T,mode=1640,uid=5,gid=6,required \
                      --mount=type=ssh,id=none --mount=type=ssh,id=deploy nothing\nRUN nothing\n";
    let bench = Bench::new(dockerfile).agent("default").agent("deploy");
    let outcome = bench.build();
    let ran = lock(&bench.sandbox.ran);
    let (process, mounts) = &ran[0];
    let found: Vec<_> = mounts
        .iter()
        .map(|mount| match &mount.source {
            MountSource::Socket { mode, uid, gid, .. } => (mount.target.to_str().unwrap(), *mode, *uid, *gid),
            other => panic!("{other:?}"),
        })
        .collect();
    let wanted = [
        ("/a/b", 0o640, 5, 6),
        ("/run/buildkit/ssh_agent.0", 0o600, 0, 0),
        // The one that was not given is counted, too.
        ("/run/buildkit/ssh_agent.3", 0o600, 0, 0),
    ];
    assert_eq!(found, wanted);
    assert!(process.env.contains(&"SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0".into()), "{:?}", process.env);
    assert!(!format!("{:?}", ran[1].0).contains("SSH_AUTH_SOCK"), "the next RUN does not have it");
    assert!(!format!("{:?}", outcome.image.config).contains("ssh_agent"), "in the image");
}

#[test]
fn ssh_agents_that_are_not_there() {
    let bench = Bench::new("FROM scratch\nRUN --mount=type=ssh,id=s,target=/s nothing\n");
    bench.build();
    let (process, mounts) = bench.sandbox.only();
    assert!(mounts.is_empty());
    assert!(process.env.contains(&"SSH_AUTH_SOCK=/s".into()), "{:?}", process.env);
    for (variable, dockerfile) in [
        ("SSH_AUTH_SOCK=/mine", "FROM scratch\nENV SSH_AUTH_SOCK=/mine\nRUN --mount=type=ssh nothing\n"),
        ("SSH_AUTH_SOCK=/arg", "FROM scratch\nARG SSH_AUTH_SOCK=/arg\nRUN --mount=type=ssh nothing\n"),
    ] {
        let bench = Bench::new(dockerfile).agent("default");
        bench.build();
        assert!(bench.sandbox.only().0.env.contains(&variable.into()), "{variable}");
    }
    let bench = Bench::new("FROM scratch\nRUN --mount=type=ssh,id=s,required nothing\n").agent("default");
    assert_eq!(bench.error(), "SSH agent `s` is required and was not given");
    assert!(lock(&bench.sandbox.ran).is_empty());
}

#[test]
fn how_a_run_ends() {
    let table = [
        ("exit 7", Exit::Code(7), "RUN exited with status 7"),
        ("kill 15", Exit::Signal(15), "RUN was killed by signal 15: exit code 143"),
        ("kill 9", Exit::Signal(9), "RUN was killed by signal 9 (out of memory, perhaps): exit code 137"),
    ];
    for (script, want, text) in table {
        let bench = Bench::new(&format!("FROM scratch\nRUN print before; {script}\nRUN nothing\n"));
        match bench.try_build().err() {
            Some(BuildError::Run { message, place, exit, .. }) => {
                assert_eq!((message.as_str(), exit), (text, want));
                assert!(bench.request.spec.dockerfile.source[place.span].contains(script));
            }
            other => panic!("{other:?}"),
        }
        assert!(!bench.exported());
        assert_eq!(lock(&bench.sandbox.ran).len(), 1, "nothing runs after it");
        assert_eq!(bench.events.having("output before"), ["output before\n"]);
        assert_eq!(bench.events.having("outcome: Failed").len(), 1);
    }
}

#[test]
fn cancelling() {
    // While a step runs.
    let bench = Bench::new("FROM scratch\nRUN cancel\nRUN nothing\n");
    let flag = bench.request.control.cancelled.clone();
    let bench = bench.on("cancel", move |call| {
        flag.store(true, Ordering::Relaxed);
        assert!((call.cancelled)());
        Exit::Code(0)
    });
    assert!(matches!(bench.try_build().err(), Some(BuildError::Cancelled)));
    assert!(!bench.exported());
    assert_eq!(lock(&bench.sandbox.ran).len(), 1);
    // Before the first one.
    let bench = Bench::new("FROM scratch\nCOPY f /\nRUN nothing\n").file("f", "");
    bench.request.control.cancelled.store(true, Ordering::Relaxed);
    let error = bench.try_build().err();
    assert!(matches!(error, Some(BuildError::Cancelled)), "{error:?}");
    assert!(!bench.exported());
}
