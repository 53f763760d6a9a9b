//! Help, and command lines that make no sense.

use crate::harness::Place;

const EMPTY: &str = "FROM scratch\nENV A=1\n";

#[test]
fn help() {
    let ran = Place::new("").run(&["build", "--help"]);
    assert_eq!((ran.code(), ran.stderr.as_str()), (0, ""));
    insta::assert_snapshot!("build-help", ran.stdout());
}

#[test]
fn versions() {
    let place = Place::new("");
    let want = format!("zuwai {}\n", env!("CARGO_PKG_VERSION"));
    for words in [["version"], ["--version"]] {
        let ran = place.run(&words);
        assert_eq!((ran.code(), ran.stdout(), ran.stderr.as_str()), (0, want.as_str(), ""));
    }
}

/// Arguments and what standard error says; the exit code is 2 for each.
#[test]
fn wrong_command_lines() {
    let table: &[(&[&str], &[&str])] = &[
        (&["bild"], &["`bild`|'bild'", "build"]),
        (&["build", "--targt", "x"], &["--targt", "--target"]),
        (&["build", "--dockerfle", "x"], &["--dockerfle", "--dockerfile"]),
        (&["build", "a", "b"], &["unexpected argument", "b"]),
        (&["build", "context", "--context", "b"], &["the context is given twice"]),
        (
            &["build", "context"],
            &["the image would go nowhere", "hint: give --push with --tag, --output, or --no-push"],
        ),
        (&["build", "--no-push", "--isolation", "foo", "context"], &["foo", "namespace", "inplace"]),
        (&["build", "--no-push", "--verbosity=loud", "context"], &["loud", "debug"]),
        (&["build", "--no-push", "--snapshot-mode=x", "context"], &["full, redo, time"]),
        (&["build", "--no-push", "--label", "=x", "context"], &["`--label =x`: expected NAME=VALUE"]),
        (&["build", "--no-push", "--build-context", "a", "context"], &["`--build-context a`: expected NAME=VALUE"]),
        (&["build", "--no-push", "--add-host", "x", "context"], &["`--add-host x`: expected HOST:ADDRESS"]),
        (&["build", "--no-push", "--secret", "src=x", "context"], &["`--secret src=x`: no `id`"]),
        (&["build", "--no-push", "--secret", "id=a,src=nothere", "context"], &["secret `a`", "nothere"]),
        (&["build", "--no-push", "--ssh", "a=nothere", "context"], &["SSH agent `a`: could not open `nothere`"]),
        (
            &["build", "--no-push", "--ssh", "default", "context"],
            &["SSH agent `default`: `SSH_AUTH_SOCK` is not set", "hint:"],
        ),
        (&["build", "--no-push", "--ssh", "a=context/Dockerfile", "context"], &["SSH agent `a`", "not a private key"]),
        (&["build", "--no-push", "--ssh", "a=/dev/zero", "context"], &["SSH agent `a`", "larger than 100 KiB"]),
        (
            &["build", "--no-push", "--ssh", "a=s,raw=true", "context"],
            &["SSH agent `a`: not supported yet: `raw=true`"],
        ),
        (&["build", "--no-push", "--secret", "id=a,env=NOT_SET", "context"], &["secret `a`", "`NOT_SET` is not set"]),
        (&["build", "--no-push", "--platform", "a/b/c/d", "context"], &["--platform", "a/b/c/d"]),
        (&["build", "--no-push", "--build-arg", "SOURCE_DATE_EPOCH=x", "context"], &["SOURCE_DATE_EPOCH `x`"]),
        (&["build", "-o", "type=foo,dest=x", "context"], &["type `foo` is not"]),
        (&["build", "-o", "type=oci", "context"], &["no `dest`"]),
        (&["build", "-o", "type=oci,dest=x,colour=red", "context"], &["not supported yet: `colour`"]),
        (&["build", "--push", "-t", "UPPER:x", "context"], &["`UPPER:x`", "lower case"]),
        (
            &["build", "-d", "a@sha256:ebdfa4b9001a4a9bc0c108b71b156fac843da77c46160543b92147dc3284b2ec", "context"],
            &["cannot be pushed to a digest"],
        ),
        (&["build", "--no-push", "--image-format=docker", "--compression=zstd", "context"], &["no media type"]),
    ];
    let place = Place::new(EMPTY);
    for (args, parts) in table {
        let ran = place.run(args);
        assert_eq!((ran.code(), ran.stdout()), (2, ""), "{args:?}\n{}", ran.stderr);
        for part in *parts {
            assert!(part.split('|').any(|p| ran.stderr.contains(p)), "{args:?}: `{part}` is not in\n{}", ran.stderr);
        }
    }
    place.assert_clean();
}

#[test]
fn what_is_not_supported_yet_says_so() {
    let flags: &[&str] = &[
        "--cache",
        "--cache=true",
        "--cache-repo=registry.example/cache",
        "--cache-dir=/x",
        "--cache-from=type=registry,ref=x",
        "--cache-to=type=inline",
        "--single-snapshot",
        "--bucket=x",
        "--platform=linux/amd64,linux/arm64",
        "--credential-helpers=ecr-login",
    ];
    let place = Place::new(EMPTY);
    for flag in flags {
        let name = flag.split('=').next().unwrap();
        place.build(&[flag, "--no-push"]).failed(2, &["not supported yet", name]);
    }
    for harmless in ["--cache=false", "--single-snapshot=false", "--snapshot-mode=redo", "--cleanup", "--force"] {
        place.build(&[harmless, "--no-push"]).digest();
    }
}

#[test]
fn a_context_that_is_not_supported_yet_says_so() {
    let place = Place::new(EMPTY);
    for context in ["s3://bucket/key", "gs://bucket/key"] {
        place.run(&["build", "--no-push", context]).failed(2, &["not supported yet", context]);
    }
}

#[test]
fn a_dry_run_prints_the_plan_and_builds_nothing() {
    let place = Place::new("FROM scratch AS unused\nRUN x\nFROM scratch\nCOPY Dockerfile /a\nENV B=1\n");
    let ran = place.build(&["--dry-run", "--platform=linux/amd64", "-t", "registry.example/x", "--push"]);
    assert_eq!(ran.code(), 0, "{}", ran.stderr);
    let want = "stage stage-1 (target), from scratch, linux/amd64\n  1/1 [layer] COPY Dockerfile /a\n        \
                Dockerfile from the build context to /a\n\
                not built: stage unused (line 1): no target is it, stands on it or takes files from it\n";
    assert_eq!((ran.stdout(), ran.stderr.as_str()), (want, ""));
    let ran = place.build(&["--dry-run", "--log-format=json", "--platform=linux/amd64", "--no-push"]);
    let plan: serde_json::Value = serde_json::from_slice(&ran.output).unwrap();
    assert_eq!(plan["stages"][0]["steps"][0]["title"], "COPY Dockerfile /a");
    assert_eq!(plan["unused"][0]["name"], "unused");
    place.assert_clean();
}

#[test]
fn the_doctor_reports() {
    let place = Place::new("");
    let ran = place.run(&["doctor"]);
    assert_eq!(ran.code(), 0, "{}", ran.stderr);
    assert!(ran.stdout().contains("namespace: ") && ran.stdout().contains("chosen: "), "{}", ran.stdout());
    let json = place.run(&["doctor", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&json.output).unwrap();
    assert_eq!(report["findings"][0]["backend"], "namespace");
    place.assert_clean();
}
