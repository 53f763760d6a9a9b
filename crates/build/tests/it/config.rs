//! What each metadata instruction does to config and history.

use oci::Healthcheck;
use serde_json::{Value, json};

use crate::harness::{Base, Bench};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[test]
fn metadata_instructions() {
    let table: Vec<(&str, &str, Value, &[&str])> = vec![
        ("ENV A=1 B=2", "/Env", json!([PATH, "A=1", "B=2"]), &["ENV A=1 B=2"]),
        ("ENV A=1\nENV A=2", "/Env", json!([PATH, "A=2"]), &["ENV A=1", "ENV A=2"]),
        ("ENV PATH=/x:$PATH", "/Env", json!([format!("PATH=/x:{}", &PATH[5..])]), &[]),
        ("ENV A a b", "/Env", json!([PATH, "A=a b"]), &["ENV A=a b"]),
        // The values of one line see the environment before it.
        ("ENV A=1\nENV A=2 B=$A", "/Env", json!([PATH, "A=2", "B=1"]), &[]),
        ("LABEL a=1 \"b c\"=\"d e\"", "/Labels", json!({"a": "1", "b c": "d e"}), &["LABEL a=1 b c=d e"]),
        ("LABEL a=1\nLABEL a=", "/Labels", json!({"a": ""}), &["LABEL a=1", "LABEL a="]),
        ("CMD echo hi", "/Cmd", json!(["/bin/sh", "-c", "echo hi"]), &["CMD [\"/bin/sh\" \"-c\" \"echo hi\"]"]),
        ("CMD [\"a\", \"b c\"]", "/Cmd", json!(["a", "b c"]), &["CMD [\"a\" \"b c\"]"]),
        ("CMD []", "/Cmd", json!([]), &["CMD []"]),
        ("ENTRYPOINT [\"/e\"]", "/Entrypoint", json!(["/e"]), &["ENTRYPOINT [\"/e\"]"]),
        (
            "SHELL [\"/s\", \"-x\"]\nCMD a",
            "/Cmd",
            json!(["/s", "-x", "a"]),
            &["SHELL [/s -x]", "CMD [\"/s\" \"-x\" \"a\"]"],
        ),
        ("CMD a\nSHELL [\"/s\"]", "/Cmd", json!(["/bin/sh", "-c", "a"]), &[]),
        ("SHELL [\"/s\"]", "/Shell", json!(["/s"]), &["SHELL [/s]"]),
        ("EXPOSE 80 53/udp", "/ExposedPorts", json!({"80/tcp": {}, "53/udp": {}}), &["EXPOSE [80/tcp 53/udp]"]),
        ("EXPOSE 1-2", "/ExposedPorts", json!({"1/tcp": {}, "2/tcp": {}}), &["EXPOSE [1/tcp 2/tcp]"]),
        ("ENV P=\"1 2\"\nEXPOSE $P", "/ExposedPorts", json!({"1/tcp": {}, "2/tcp": {}}), &[]),
        ("VOLUME /a /b", "/Volumes", json!({"/a": {}, "/b": {}}), &["VOLUME [/a /b]"]),
        ("VOLUME [\"/a b\"]", "/Volumes", json!({"/a b": {}}), &["VOLUME [/a b]"]),
        ("USER a:b", "/User", json!("a:b"), &["USER a:b"]),
        ("USER a\nUSER 7", "/User", json!("7"), &["USER a", "USER 7"]),
        ("STOPSIGNAL SIGQUIT", "/StopSignal", json!("SIGQUIT"), &["STOPSIGNAL SIGQUIT"]),
        ("HEALTHCHECK --retries=3 NONE", "/Healthcheck", json!({"Test": ["NONE"]}), &["HEALTHCHECK NONE"]),
        ("HEALTHCHECK NONE", "/Healthcheck/Test", json!(["NONE"]), &["HEALTHCHECK NONE"]),
        ("HEALTHCHECK CMD a b", "/Healthcheck/Test", json!(["CMD-SHELL", "a b"]), &["HEALTHCHECK CMD-SHELL a b"]),
        (
            "HEALTHCHECK --interval=5s CMD [\"a\"]",
            "/Healthcheck/Interval",
            json!(5_000_000_000i64),
            &["HEALTHCHECK CMD a"],
        ),
        (
            "HEALTHCHECK --start-interval=1m --retries=3 CMD a",
            "/Healthcheck/StartInterval",
            json!(60_000_000_000i64),
            &[],
        ),
        ("ONBUILD RUN a\nONBUILD COPY b c", "/OnBuild", json!(["RUN a", "COPY b c"]), &[]),
        ("WORKDIR /", "/WorkingDir", json!("/"), &["WORKDIR /"]),
        ("ARG A=1", "/Env", json!([PATH]), &["ARG A=1"]),
        ("ARG A", "/Env", json!([PATH]), &["ARG A"]),
    ];
    for (instructions, pointer, value, history) in table {
        let outcome = Bench::new(&format!("FROM scratch\n{instructions}\n")).build();
        assert_eq!(outcome.config().pointer(pointer), Some(&value), "{instructions}");
        assert_eq!(outcome.image.layers.len(), 0, "{instructions}");
        if !history.is_empty() {
            let want: Vec<String> = history.iter().map(|h| format!("(empty) {h}")).collect();
            assert_eq!(outcome.history(), want, "{instructions}");
        }
    }
}

#[test]
fn nothing_is_set_that_was_not_asked_for() {
    let outcome = Bench::new("FROM scratch\nCMD [\"a\"]\n").build();
    assert_eq!(outcome.config(), json!({"Env": [PATH], "Cmd": ["a"], "ArgsEscaped": true, "WorkingDir": "/"}));
    assert_eq!(outcome.image.config.created.as_deref(), Some("2023-11-14T22:13:20Z"));
    assert!(outcome.image.annotations.is_empty());
}

#[test]
fn workdir_is_joined_and_made() {
    let table = [
        ("WORKDIR /a", "/a", vec!["d 755 0:0 a/"]),
        ("WORKDIR a", "/a", vec!["d 755 0:0 a/"]),
        ("WORKDIR /a\nWORKDIR b/../c", "/a/c", vec!["d 755 0:0 a/", "d 755 0:0 a/c/"]),
        ("ENV D=/x\nWORKDIR $D/y", "/x/y", vec!["d 755 0:0 x/", "d 755 0:0 x/y/"]),
        ("WORKDIR /a\nWORKDIR /", "/", vec!["d 755 0:0 a/"]),
    ];
    for (instructions, directory, made) in table {
        let outcome = Bench::new(&format!("FROM scratch\n{instructions}\n")).build();
        assert_eq!(outcome.image.config.config.working_dir.as_deref(), Some(directory), "{instructions}");
        let mut lines: Vec<String> = outcome.layers.concat().into_iter().filter(|l| !l.ends_with(" ./")).collect();
        lines.sort();
        lines.dedup();
        assert_eq!(lines, made, "{instructions}");
    }
}

#[test]
fn workdir_belongs_to_the_user() {
    let passwd = "u:x:10:20::/home/u:/bin/sh\n";
    let bench =
        Bench::new("FROM base\nUSER u\nWORKDIR /w\n").image("base", Base::new().layer(&[("etc/passwd", passwd)]));
    assert!(bench.build().layers[1].contains(&"d 755 10:20 w/".to_owned()));
}

#[test]
fn a_workdir_that_is_there_makes_an_empty_layer() {
    let bench = Bench::new("FROM base\nWORKDIR /etc\n").image("base", Base::new().layer(&[("etc/f", "")]));
    let outcome = bench.build();
    assert_eq!(outcome.layers[1], Vec::<String>::new());
    assert_eq!(outcome.history(), ["layer 1", "WORKDIR /etc"]);
}

#[test]
fn maintainer_is_the_author() {
    let outcome = Bench::new("FROM scratch\nMAINTAINER Jo <jo@example>\n").build();
    assert_eq!(outcome.image.config.author.as_deref(), Some("Jo <jo@example>"));
    assert_eq!(outcome.history(), ["(empty) MAINTAINER Jo <jo@example>"]);
}

/// Base, Dockerfile, ENTRYPOINT and CMD of the result.
#[test]
fn entrypoint_resets_the_cmd_of_the_base_only() {
    let list = |words: &[&str]| Some(words.iter().map(|w| (*w).to_owned()).collect::<Vec<String>>());
    let table = [
        ("ENTRYPOINT [\"e\"]", list(&["e"]), None),
        ("CMD [\"c\"]\nENTRYPOINT [\"e\"]", list(&["e"]), list(&["c"])),
        ("ENTRYPOINT [\"e\"]\nCMD [\"c\"]", list(&["e"]), list(&["c"])),
        ("CMD [\"c\"]", list(&["base-e"]), list(&["c"])),
        ("ENV A=1", list(&["base-e"]), list(&["base-c"])),
    ];
    for (instructions, entrypoint, cmd) in table {
        let base = Base::new().config(|c| {
            c.config.entrypoint = list(&["base-e"]);
            c.config.cmd = list(&["base-c"]);
        });
        let outcome = Bench::new(&format!("FROM base\n{instructions}\n")).image("base", base).build();
        let config = outcome.image.config.config;
        assert_eq!((config.entrypoint, config.cmd), (entrypoint, cmd), "{instructions}");
    }
    // A parent stage's CMD is inherited, not the stage's own.
    let outcome = Bench::new("FROM scratch AS a\nCMD [\"c\"]\nFROM a\nENTRYPOINT [\"e\"]\n").build();
    assert_eq!(outcome.image.config.config.cmd, None);
}

#[test]
fn the_base_is_inherited() {
    let base = Base::new().layer(&[("f", "")]).config(|c| {
        c.author = Some("a".to_owned());
        c.config.env = vec!["A=1".to_owned(), "NO_VALUE".to_owned(), "PATH=/p".to_owned()];
        c.config.user = Some("7".to_owned());
        c.config.working_dir = Some("/w".to_owned());
        c.config.labels = Some([("l".to_owned(), "1".to_owned())].into());
        c.config.stop_signal = Some("9".to_owned());
        c.config.healthcheck = Some(Healthcheck { test: vec!["NONE".to_owned()], ..Healthcheck::default() });
        c.config.extra.insert("OfSomebodyElse".to_owned(), json!(1));
    });
    let outcome = Bench::new("FROM base\nENV B=$A\nLABEL m=2\n").image("base", base).build();
    let want = json!({
        "Env": ["A=1", "NO_VALUE", "PATH=/p", "B=1"], "User": "7", "WorkingDir": "/w", "Labels": {"l": "1", "m": "2"},
        "StopSignal": "9", "Healthcheck": {"Test": ["NONE"]}, "OfSomebodyElse": 1,
    });
    assert_eq!(outcome.config(), want);
    assert_eq!(outcome.history(), ["layer 1", "(empty) ENV B=1", "(empty) LABEL m=2"]);
    assert_eq!(outcome.image.config.author.as_deref(), Some("a"));
    assert!(outcome.image.annotations.is_empty(), "annotations of the base are its own");
}

#[test]
fn two_stages_on_one_base_do_not_share_their_config() {
    let dockerfile = "FROM base AS a\nENV A=1\nLABEL a=1\nRUN nothing\nFROM base\nENV B=1\nCOPY --from=a /f /g\n";
    let outcome = Bench::new(dockerfile).image("base", Base::new().layer(&[("f", "")])).build();
    assert_eq!(outcome.image.config.config.env, [PATH, "B=1"]);
    assert_eq!(outcome.image.config.config.labels, None);
}

#[test]
fn labels_and_annotations_of_the_request() {
    let mut bench = Bench::new("FROM scratch\nLABEL a=1 b=1\n");
    bench.request.spec.labels = vec![("b".to_owned(), "2".to_owned()), ("c".to_owned(), "3".to_owned())];
    bench.request.spec.annotations.insert("n".to_owned(), "v".to_owned());
    let outcome = bench.build();
    assert_eq!(outcome.config()["Labels"], json!({"a": "1", "b": "2", "c": "3"}));
    assert_eq!(outcome.image.annotations.get("n").map(String::as_str), Some("v"));
    assert_eq!(outcome.history(), ["(empty) LABEL a=1 b=1"], "labels of the request are no instruction");
}

#[test]
fn wrong_values_fail_before_anything_runs() {
    let table = [
        ("EXPOSE 70000", "70000"),
        ("STOPSIGNAL SIGFOO", "invalid signal `SIGFOO`"),
        ("ENV A=${B:}", "B"),
        ("COPY --chmod=9 a b", "9"),
        ("RUN --security=insecure x", "not allowed"),
        ("RUN --device=vendor.example/class=name x", "`RUN --device`"),
        ("COPY https://example.com/x /", "URL for COPY"),
        ("VOLUME $NOTHING", "empty"),
    ];
    for (instruction, part) in table {
        let bench = Bench::new(&format!("FROM scratch\nRUN nothing\n{instruction}\n"));
        let error = bench.error();
        assert!(error.contains(part), "{instruction}: {error}");
        assert!(bench.sandbox.ran.lock().unwrap().is_empty(), "{instruction}");
        assert!(!bench.exported());
    }
}

#[test]
fn media_types_are_all_of_one_family() {
    let base = || Base::new().layer(&[("f", "")]);
    let table = [
        (base(), None, "docker", false),
        (base().docker(), None, "docker", true),
        (base().docker(), Some(oci::Flavor::Oci), "docker", false),
        (base(), Some(oci::Flavor::Docker), "docker", true),
    ];
    for (base, flavor, word, docker) in table {
        let mut bench = Bench::new("FROM base\nRUN write /x y\n").image("base", base);
        bench.request.spec.flavor = flavor;
        let manifest = String::from_utf8(bench.build().image.encode().manifest).unwrap();
        let types = manifest.matches("\"mediaType\":").count();
        let of_docker = manifest.matches(&format!("vnd.{word}")).count();
        assert_eq!(of_docker, if docker { types } else { 0 }, "{manifest}");
    }
}

/// A link as working directory is followed inside the rootfs, whether its target is there or not.
#[test]
fn workdir_through_a_link() {
    let outcome =
        Bench::new("FROM scratch\nRUN link /l /../target\nWORKDIR /l/below\nCOPY f .\n").file("f", "x").build();
    assert_eq!(outcome.image.config.config.working_dir.as_deref(), Some("/l/below"));
    assert_eq!(outcome.content("target/below/f").as_deref(), Some("x"));
    assert!(!outcome.layers.concat().iter().any(|l| l.contains("d 755 0:0 l")), "{:?}", outcome.layers);
}

#[test]
fn build_checks_warn_or_fail() {
    let bench = Bench::new("FROM scratch as a\nENV A=$UNDEFINED_NAME\n");
    bench.build();
    for rule in ["FromAsCasing", "UndefinedVar"] {
        assert_eq!(bench.events.having(rule).len(), 1, "{rule}: {:?}", bench.events.lines.lock().unwrap());
    }
    let bench = Bench::new("# check=skip=FromAsCasing;error=true\nFROM scratch as a\nENV A=$UNDEFINED_NAME\n");
    let error = bench.error();
    assert!(error.contains("UndefinedVar") && !error.contains("FromAsCasing"), "{error}");
    Bench::new("# check=skip=all;error=true\nFROM scratch as a\nENV A=$UNDEFINED_NAME\n").build();
}
