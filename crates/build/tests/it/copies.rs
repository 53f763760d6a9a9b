//! COPY and ADD as whole steps; the rules of copying itself are tested where it is done (`rootfs`).

use crate::harness::{Base, Bench, lock};
use zuwai_build::BuildError;

/// Instruction, and what the layer holds (without the root directory).
#[test]
fn what_a_copy_adds() {
    let table: &[(&str, &[&str])] = &[
        ("COPY f /", &["f 644 0:0 f"]),
        ("COPY f /d/", &["d 755 0:0 d/", "f 644 0:0 d/f"]),
        ("COPY f /d/g", &["d 755 0:0 d/", "f 644 0:0 d/g"]),
        ("COPY dir /x/", &["d 755 0:0 x/", "f 644 0:0 x/inner"]),
        ("COPY --parents dir/inner /x/", &["d 755 0:0 x/", "d 755 0:0 x/dir/", "f 644 0:0 x/dir/inner"]),
        ("COPY --chown=3:4 f /d/", &["d 755 3:4 d/", "f 644 3:4 d/f"]),
        ("COPY --chmod=600 f /", &["f 600 0:0 f"]),
        ("COPY --exclude=inner dir f /x/", &["d 755 0:0 x/", "f 644 0:0 x/f"]),
        ("COPY no*match f /", &["f 644 0:0 f"]),
        ("USER 9\nCOPY f /", &["f 644 0:0 f"]),
        ("COPY <<a <<b /h/\n1\na\n2\nb", &["d 755 0:0 h/", "f 644 0:0 h/a", "f 644 0:0 h/b"]),
        ("ADD f /", &["f 644 0:0 f"]),
    ];
    for (instruction, want) in table {
        let bench = Bench::new(&format!("FROM scratch\n{instruction}\n")).file("f", "content").file("dir/inner", "");
        let outcome = bench.build();
        let mut lines: Vec<&String> = outcome.layers[0].iter().filter(|l| !l.ends_with(" ./")).collect();
        lines.sort();
        assert_eq!(lines, *want, "{instruction}");
    }
}

#[test]
fn the_ignore_file_hides_from_copy_and_shows_in_the_hint() {
    let bench = Bench::new("FROM scratch\nCOPY . /\n").file("a.log", "").file("b", "").ignore("*.log\n");
    let names = bench.build().layers[0].join("\n");
    assert!(names.contains("b") && !names.contains("a.log"), "{names}");
    let bench = Bench::new("FROM scratch\nCOPY a.log /\n").file("a.log", "").ignore("# logs\n*.log\n");
    match bench.try_build().err() {
        Some(BuildError::Dockerfile { message, hint, place }) => {
            assert_eq!(message, "source `a.log` does not exist in the build context");
            assert_eq!(hint.as_deref(), Some("`.dockerignore` line 2 (`*.log`) excludes it"));
            assert_eq!(&bench.request.spec.dockerfile.source[place.span], "COPY a.log /");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_ignore_file_does_not_reach_into_stages() {
    let dockerfile = "FROM scratch AS a\nRUN write /x.log 1\nFROM scratch\nCOPY --from=a /x.log /\n";
    assert_eq!(Bench::new(dockerfile).ignore("*\n").build().content("x.log").as_deref(), Some("1"));
}

#[test]
fn a_near_miss_is_suggested() {
    let bench = Bench::new("FROM scratch\nCOPY reqirements.txt /\n").file("requirements.txt", "");
    match bench.try_build().err() {
        Some(BuildError::Dockerfile { hint, .. }) => {
            assert_eq!(hint.as_deref(), Some("did you mean `requirements.txt`?"))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn here_documents_are_expanded_unless_quoted() {
    let dockerfile = "FROM scratch\nARG A=1\nCOPY <<x <<\"y\" /\n$A ${A}\nx\n$A\ny\n";
    let outcome = Bench::new(dockerfile).build();
    assert_eq!(outcome.content("x").as_deref(), Some("1 1\n"));
    assert_eq!(outcome.content("y").as_deref(), Some("$A\n"));
}

#[test]
fn owners_by_name_come_from_the_image() {
    let files = [("etc/passwd", "u:x:10:20::/:\n"), ("etc/group", "g:x:30:\n")];
    let bench = Bench::new("FROM base\nCOPY --chown=u f /1\nCOPY --chown=u:g f /2\n")
        .image("base", Base::new().layer(&files))
        .file("f", "");
    let layers = bench.build().layers;
    assert!(layers[1].contains(&"f 644 10:20 1".to_owned()), "{layers:?}");
    assert!(layers[2].contains(&"f 644 10:30 2".to_owned()), "{layers:?}");
    let error = Bench::new("FROM scratch\nCOPY --chown=nobody f /\n").file("f", "").error();
    assert!(error.contains("nobody") && error.contains("/etc/passwd"), "{error}");
}

/// The file is made in a root of its own, and has no directories there.
#[test]
fn here_documents_are_files_of_their_base_name() {
    for (name, file) in [("/abs", "abs"), ("../up", "up"), ("a/../b", "b"), ("./dot", "dot"), ("//two", "two")] {
        let outcome = Bench::new(&format!("FROM scratch\nCOPY <<{name} /e/\nx\n{name}\n")).build();
        assert_eq!(outcome.content(&format!("e/{file}")).as_deref(), Some("x\n"), "{name}");
        assert_eq!(outcome.history(), [format!("COPY <<{name} /e/")]);
    }
    for name in ["sub/x", "/a/b", "../a/b", "/", "..", "a/.."] {
        let error = Bench::new(&format!("FROM scratch\nADD <<{name} /e/\nx\n{name}\n")).error();
        assert!(error.contains(&format!("cannot be called `{name}`")), "{error}");
    }
}

#[test]
fn root_is_an_owner_without_an_entry() {
    let table = [("root", "0:0"), ("root:root", "0:0"), ("5:root", "5:0"), ("root:6", "0:6"), (":7", "0:7")];
    for (chown, owner) in table {
        for link in ["", "--link "] {
            let bench = Bench::new(&format!("FROM scratch\nCOPY {link}--chown={chown} f /\n")).file("f", "");
            assert!(bench.build().layers[0].contains(&format!("f 644 {owner} f")), "{link}{chown}");
        }
    }
    let error = Bench::new("FROM scratch\nCOPY --chown=4294967294 f /\n").file("f", "").error();
    assert!(error.contains("user `4294967294` is out of range"), "{error}");
}

/// BuildKit makes them root's (`readUser`), and what needs the user fails anyway.
#[test]
fn working_directories_of_unknown_users_are_roots() {
    let files = [("etc/passwd", "u:x:10:20::/:\n"), ("etc/group", "g:x:30:\n")];
    for (user, owner) in
        [("nosuch", "0:0"), ("nosuch:g", "0:30"), ("u:nosuch", "10:20"), ("3000000000", "0:0"), ("root", "0:0")]
    {
        let bench =
            Bench::new(&format!("FROM base\nUSER {user}\nWORKDIR /w\n")).image("base", Base::new().layer(&files));
        assert!(bench.build().layers[1].contains(&format!("d 755 {owner} w/")), "{user}");
    }
    Bench::new("FROM scratch\nUSER root\nWORKDIR /w\n").build();
}

#[test]
fn linked_files_have_no_owners_by_name() {
    let files = [("etc/passwd", "u:x:10:20::/:\n"), ("etc/group", "g:x:30:\n")];
    let bench = |flags: &str| {
        Bench::new(&format!("FROM base\nCOPY {flags} f /\n")).image("base", Base::new().layer(&files)).file("f", "")
    };
    for chown in ["u", "u:g", "5:g", "4294967294"] {
        let error = bench(&format!("--link --chown={chown}")).error();
        assert_eq!(error, format!("`--chown={chown}` needs numbers together with `--link`"));
    }
    // With a mode the flag has no effect.
    bench("--link --chown=u --chmod=600").build();
}

/// BuildKit has only what some instruction takes of a context: a directory of which nothing is taken does not exist there.
#[test]
fn a_wildcard_may_match_nothing_where_something_of_its_directory_is_taken() {
    let build = |instructions: &str| {
        let bench = Bench::new(&format!("FROM scratch\n{instructions}\n")).file("a/g", "").file("f", "");
        match bench.try_build() {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        }
    };
    let nothing = |source: &str| format!("source `{source}` matches nothing in the build context");
    for source in ["a/b*", "a/*/*", "./a//b?", "/a/b*"] {
        assert_eq!(build(&format!("COPY f /x\nCOPY {source} /x/")), nothing(source));
    }
    assert_eq!(build("COPY a/g /x\nCOPY f/* /y/"), nothing("f/*"));
    for taken in [
        "COPY . /",
        "COPY a/g /x",
        "COPY a /x",
        "COPY a/* /x/",
        "COPY */g /x/",
        "RUN --mount=source=a,target=/m nothing",
    ] {
        assert_eq!(build(&format!("COPY a/b* /y/\n{taken}")), "", "{taken}");
    }
    assert_eq!(build("COPY b* /y/"), "");
    assert_eq!(build("COPY --parents a/b* /y/"), "");
    assert_eq!(build("COPY nosuch/b* /y/"), "source `nosuch` does not exist in the build context");
    let stage = "FROM scratch AS s\nCOPY a /a\nFROM scratch\nCOPY --from=s /a/b* /x/\nCOPY f /\n";
    Bench::new(stage).file("a/g", "").file("f", "").build();
}

/// The layer of `COPY --link` depends on its files alone, and lies over what is there.
#[test]
fn link_layers_are_the_same_on_any_base() {
    let build = |base: Base| {
        let mut bench = Bench::new("FROM base\nCOPY --link dir /d/\nRUN look\n")
            .image("base", base)
            .file("dir/inner", "new")
            .on("look", |call| {
                let mut text = String::new();
                let mut file = call.rootfs.open_file(std::path::Path::new("/d/inner")).unwrap();
                std::io::Read::read_to_string(&mut file, &mut text).unwrap();
                assert_eq!(text, "new", "the step after it sees the files");
                sandbox::Exit::Code(0)
            });
        bench.request.spec.clamp_modified = true;
        let outcome = bench.build();
        assert_eq!(lock(&bench.sandbox.ran).len(), 1);
        let count = outcome.image.layers.len();
        assert_eq!(outcome.layers[count - 1], Vec::<String>::new(), "linked files are no change of the next step");
        outcome.image.layers[count - 2].diff_id.clone()
    };
    let one = build(Base::new().layer(&[("x", "")]));
    let two = build(Base::new().layer(&[("d/inner", "old"), ("d/other", "")]).layer(&[("y", "")]));
    assert_eq!(one, two);
}

#[test]
fn history_of_copies() {
    let table = [
        ("COPY f /x", "COPY f /x"),
        ("COPY --chown=1 --chmod=644 f /x", "COPY --chown=1 --chmod=644 f /x"),
        ("ADD f dir /x/", "ADD f dir /x/"),
        ("COPY <<E /x\nE", "COPY <<E /x"),
    ];
    for (instruction, want) in table {
        let bench = Bench::new(&format!("FROM scratch\n{instruction}\n")).file("f", "").file("dir/g", "");
        assert_eq!(bench.build().history(), [want], "{instruction}");
    }
}
