//! Who wins where ARG and ENV meet, and who sees what.

use crate::harness::{Base, Bench};

type Pairs = &'static [(&'static str, &'static str)];

/// The value of `name` in the only RUN, as the sandbox gets it.
fn seen(bench: &Bench, name: &str) -> Option<String> {
    let (process, _) = bench.sandbox.only();
    let prefix = format!("{name}=");
    let values: Vec<String> =
        process.env.iter().filter_map(|e| e.to_str().unwrap().strip_prefix(&prefix).map(str::to_owned)).collect();
    assert!(values.len() <= 1, "{name} is set {} times", values.len());
    values.into_iter().next()
}

/// Dockerfile, build arguments, variable, value in RUN.
#[test]
fn what_a_run_sees() {
    let table: &[(&str, Pairs, &str, Option<&str>)] = &[
        // Precedence.
        ("FROM scratch\nARG A=1\nRUN nothing", &[], "A", Some("1")),
        ("FROM scratch\nARG A=1\nRUN nothing", &[("A", "2")], "A", Some("2")),
        ("FROM scratch\nARG A\nRUN nothing", &[("A", "2")], "A", Some("2")),
        ("FROM scratch\nARG A\nRUN nothing", &[], "A", None),
        ("FROM scratch\nARG A=1\nRUN nothing", &[("A", "")], "A", Some("")),
        ("FROM scratch\nARG A=\nRUN nothing", &[], "A", Some("")),
        ("FROM scratch\nRUN nothing", &[("A", "2")], "A", None),
        ("FROM scratch\nARG A=1\nENV A=2\nRUN nothing", &[("A", "3")], "A", Some("2")),
        ("FROM scratch\nENV A=2\nARG A=1\nRUN nothing", &[], "A", Some("1")),
        ("FROM scratch\nENV A=2\nARG A=1\nRUN nothing", &[("A", "3")], "A", Some("3")),
        ("FROM scratch\nENV A=2\nARG A\nRUN nothing", &[], "A", Some("2")),
        ("FROM scratch\nARG A=1\nARG B=${A}x\nRUN nothing", &[], "B", Some("1x")),
        ("FROM scratch\nARG A=1 B=$A\nRUN nothing", &[], "B", Some("1")),
        ("FROM scratch\nARG A=1\nENV B=$A\nRUN nothing", &[], "B", Some("1")),
        ("FROM scratch\nENV B=${A:-d}\nARG A=1\nRUN nothing", &[], "B", Some("d")),
        ("FROM scratch\nRUN nothing\nARG A=1", &[], "A", None),
        ("FROM scratch\nRUN nothing\nENV A=1", &[], "A", None),
        // The global scope is seen where it is declared again.
        ("ARG A=1\nFROM scratch\nRUN nothing", &[], "A", None),
        ("ARG A=1\nFROM scratch\nARG A\nRUN nothing", &[], "A", Some("1")),
        ("ARG A=1\nFROM scratch\nARG A\nRUN nothing", &[("A", "2")], "A", Some("2")),
        ("ARG A=1\nFROM scratch\nARG A=3\nRUN nothing", &[], "A", Some("3")),
        ("ARG A=1\nARG B=$A$A\nFROM scratch\nARG B\nRUN nothing", &[], "B", Some("11")),
        // Stages: handed on with FROM, not to siblings.
        ("FROM scratch AS a\nARG A=1\nFROM a\nRUN nothing", &[], "A", Some("1")),
        ("FROM scratch AS a\nENV A=1\nFROM a\nRUN nothing", &[], "A", Some("1")),
        ("FROM scratch AS a\nARG A=1\nFROM scratch\nRUN nothing", &[], "A", None),
        ("FROM scratch AS a\nARG A=1\nFROM scratch\nARG A\nRUN nothing", &[], "A", None),
        // The base's environment.
        ("FROM base\nRUN nothing", &[], "OF_BASE", Some("b")),
        ("FROM base\nARG OF_BASE=x\nRUN nothing", &[], "OF_BASE", Some("x")),
        ("FROM base\nENV OF_BASE=x\nRUN nothing", &[], "OF_BASE", Some("x")),
        // Platforms: invisible until declared; a default overrides them, a build argument that.
        ("FROM scratch\nRUN nothing", &[], "TARGETOS", None),
        ("FROM scratch\nARG TARGETOS\nRUN nothing", &[], "TARGETOS", Some("linux")),
        ("FROM scratch\nARG TARGETOS=x\nRUN nothing", &[], "TARGETOS", Some("x")),
        ("FROM scratch\nARG TARGETOS\nRUN nothing", &[("TARGETOS", "y")], "TARGETOS", Some("y")),
        ("FROM scratch AS last\nARG TARGETSTAGE\nRUN nothing", &[], "TARGETSTAGE", Some("last")),
        ("FROM scratch\nARG TARGETSTAGE\nRUN nothing", &[], "TARGETSTAGE", Some("default")),
        // Proxies reach RUN undeclared, in both cases.
        ("FROM scratch\nRUN nothing", &[("http_proxy", "p")], "HTTP_PROXY", Some("p")),
        ("FROM scratch\nRUN nothing", &[("HTTP_PROXY", "p")], "http_proxy", Some("p")),
        // They win over ENV, and the lower case over the upper.
        ("FROM scratch\nENV HTTP_PROXY=own\nRUN nothing", &[("HTTP_PROXY", "p")], "HTTP_PROXY", Some("p")),
        ("FROM scratch\nRUN nothing", &[("HTTP_PROXY", "p"), ("http_proxy", "q")], "HTTP_PROXY", Some("q")),
        // What is for the builder alone.
        ("FROM scratch\nARG BUILDKIT_SBOM_SCAN_STAGE=true\nRUN nothing", &[], "BUILDKIT_SBOM_SCAN_STAGE", None),
        // The builder's own environment never does.
        ("FROM scratch\nRUN nothing", &[], "CARGO_MANIFEST_DIR", None),
        ("FROM scratch\nRUN nothing", &[], "HOME", Some("/")),
        ("FROM scratch\nENV HOME=/h\nRUN nothing", &[], "HOME", Some("/h")),
    ];
    for (dockerfile, args, name, want) in table {
        let base = Base::new().config(|c| c.config.env = vec!["OF_BASE=b".to_owned()]);
        let mut bench = Bench::new(dockerfile).image("base", base);
        for (arg, value) in *args {
            bench = bench.arg(arg, value);
        }
        bench.build();
        assert_eq!(seen(&bench, name).as_deref(), *want, "{name} with {args:?} in\n{dockerfile}");
    }
}

#[test]
fn proxies_leave_no_trace() {
    let outcome = Bench::new("FROM scratch\nRUN nothing\n").arg("HTTPS_PROXY", "http://user:pass@proxy").build();
    let config = String::from_utf8(outcome.image.encode().config).unwrap();
    assert!(!config.contains("user:pass"), "{config}");
}

#[test]
fn history_of_run_names_the_declared_arguments() {
    let bench = Bench::new("ARG G=g\nFROM scratch\nARG A=1\nARG G\nARG N\nRUN nothing\n").arg("UNDECLARED", "x");
    let want = ["(empty) ARG A=1", "(empty) ARG G=g", "(empty) ARG N", "|3 A=1 G=g N= /bin/sh -c nothing"];
    let mut history = bench.build().history();
    if let Some(run) = history.last_mut() {
        *run = run.strip_prefix("RUN ").unwrap().to_owned();
    }
    assert_eq!(history, want);
}

#[test]
fn args_in_from() {
    let table: &[(&str, Pairs, &str)] = &[
        ("ARG V=1\nFROM base:$V\n", &[], "base:1"),
        ("ARG V=1\nFROM base:${V}\n", &[("V", "2")], "base:2"),
        ("FROM base:${V:-3}\n", &[], "base:3"),
        ("ARG N=base\nARG V=1\nFROM $N:$V AS a\nFROM a\n", &[], "base:1"),
    ];
    for (dockerfile, args, want) in table {
        let mut bench = Bench::new(dockerfile);
        for tag in ["base:1", "base:2", "base:3"] {
            bench = bench.image(tag, Base::new().layer(&[("f", tag)]));
        }
        for (name, value) in *args {
            bench = bench.arg(name, value);
        }
        bench.build();
        assert_eq!(*bench.images.asked.lock().unwrap(), [*want], "{dockerfile}");
    }
    let error = Bench::new("ARG V\nFROM $V\n").error();
    assert!(error.contains("blank"), "{error}");
}

#[test]
fn words_are_expanded_where_buildkit_does() {
    let dockerfile = "FROM scratch\nARG D=dir\nENV U=5\n\
                      COPY --chown=$U ${D}/f /$D/\nLABEL $D=${D}x\nUSER $U\nWORKDIR /$D\nSTOPSIGNAL ${S:-9}\nCMD $D\n";
    let outcome = Bench::new(dockerfile).file("dir/f", "").build();
    assert!(outcome.layers[0].contains(&"f 644 5:5 dir/f".to_owned()), "{:?}", outcome.layers);
    let config = outcome.image.config.config;
    assert_eq!(config.labels.unwrap()["dir"], "dirx");
    assert_eq!((config.user.as_deref(), config.working_dir.as_deref()), (Some("5"), Some("/dir")));
    assert_eq!(config.stop_signal.as_deref(), Some("9"));
    assert_eq!(config.cmd.unwrap()[2], "$D", "left to the shell");
}
