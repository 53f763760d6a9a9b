//! `zuwai lint`: `tests/lint/RULE/` has a Dockerfile that breaks the rule, what is printed for people and for programs, and
//! in `fine/` one that keeps it and is close to the other.
//!
//! With `BLESS=1` what is expected is written instead of compared; read what changed before it is committed.

use std::fs;
use std::path::{Path, PathBuf};

use oci::{Flavor, Platform};
use serde_json::Value;
use testkit::FakeRegistry;

use crate::harness::{Place, Ran, with_busybox};

#[test]
fn every_rule() {
    let registry = images();
    let mut cases: Vec<PathBuf> = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    let names: Vec<&str> = cases.iter().map(|case| case.file_name().unwrap().to_str().unwrap()).collect();
    let mut rules: Vec<&str> = dockerfile::lint::RULES.iter().map(|rule| rule.name).collect();
    rules.sort_unstable();
    assert_eq!(names, rules, "a folder for each rule");
    for (case, rule) in cases.iter().zip(names) {
        let text = lint(case, &registry, &[]);
        assert_eq!(text.code(), 3, "{rule}: {}", text.stderr);
        assert!(text.stdout().contains(&format!("warning[{rule}]")), "{rule}: {}", text.stdout());
        compare(&case.join("expected.txt"), &text.stdout().replace(&registry.host(), "REGISTRY"));
        let json = lint(case, &registry, &["--format=json"]);
        assert_eq!(json.code(), 3, "{rule}: {}", json.stderr);
        compare(&case.join("expected.json"), &without_source(&json).replace(&registry.host(), "REGISTRY"));

        let fine = lint(&case.join("fine"), &registry, &[]);
        assert_eq!((fine.code(), fine.stdout()), (0, "no findings\n"), "{rule}: {}", fine.stderr);
        let json: Value =
            serde_json::from_slice(&lint(&case.join("fine"), &registry, &["--format=json"]).output).unwrap();
        assert_eq!(json["warnings"], serde_json::json!([]), "{rule}");
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lint")
}

/// A registry with an image for linux/amd64, `own`, and one for linux/s390x, `other`.
fn images() -> FakeRegistry {
    let registry = FakeRegistry::start();
    for (name, platform) in [("own", "linux/amd64"), ("other", "linux/s390x")] {
        let layer = testkit::fixture::tar(&[("file", b"content")]);
        let image = testkit::fixture::image(&[layer], &Platform::parse(platform).unwrap(), Flavor::Oci);
        registry.add(name, "1", &image);
    }
    registry
}

/// Lints a folder; only the rule about base images asks a registry.
fn lint(case: &Path, registry: &FakeRegistry, flags: &[&str]) -> Ran {
    let text = fs::read_to_string(case.join("Dockerfile")).unwrap();
    let mut place = Place::new(&text.replace("REGISTRY", &registry.host()));
    if let Ok(ignore) = fs::read(case.join(".dockerignore")) {
        place = place.file("context/.dockerignore", ignore);
    }
    let insecure = format!("--insecure-registry={}", registry.host());
    let asking = if text.contains("REGISTRY") { insecure.as_str() } else { "--offline" };
    let args = fs::read_to_string(case.join("args")).unwrap_or_default();
    let own: Vec<&str> = args.lines().collect();
    place.run(&[&["lint", asking, "--platform=linux/amd64"], own.as_slice(), flags, &["context"]].concat())
}

/// The answer without the text of the Dockerfile, which it has to have.
fn without_source(ran: &Ran) -> String {
    let mut json: Value = serde_json::from_slice(&ran.output).unwrap();
    let source = &mut json["sources"][0];
    assert_eq!((&source["filename"], &source["language"]), (&"Dockerfile".into(), &"Dockerfile".into()));
    let data = source["data"].take();
    assert!(data.as_str().is_some_and(|data| data.len() > 20), "{data}");
    serde_json::to_string_pretty(&json).unwrap() + "\n"
}

fn compare(expected: &Path, actual: &str) {
    if std::env::var_os("BLESS").is_some() {
        fs::write(expected, actual).unwrap();
    } else {
        assert_eq!(fs::read_to_string(expected).unwrap(), actual, "{}", expected.display());
    }
}

const BAD: &str = "FROM scratch AS Files\nMAINTAINER me\nBADCMD x\n";

#[test]
fn a_dockerfile_that_cannot_be_parsed() {
    let place = Place::new(BAD);
    let text = place.run(&["lint", "context"]);
    assert_eq!(text.code(), 3);
    for part in ["error: unknown instruction `BADCMD`", "Dockerfile:3", "BADCMD x"] {
        assert!(text.stderr.contains(part), "{part}: {}", text.stderr);
    }
    // What was found above is told all the same, as BuildKit does.
    for rule in ["StageNameCasing", "MaintainerDeprecated"] {
        assert!(text.stdout().contains(rule), "{rule}: {}", text.stdout());
    }
    let json: Value = serde_json::from_slice(&place.run(&["lint", "--format=json", "context"]).output).unwrap();
    assert_eq!(json["warnings"].as_array().unwrap().len(), 2);
    assert_eq!(json["buildError"]["message"], "unknown instruction `BADCMD`");
    assert_eq!(json["buildError"]["location"]["ranges"][0]["start"]["line"], 3);
}

#[test]
fn a_dockerfile_that_cannot_be_built() {
    let place = Place::new("FROM scratch AS Files\nEXPOSE \\\n  80/tcp \\\n  many\n");
    let text = place.run(&["lint", "context"]);
    assert_eq!(text.code(), 3);
    assert!(text.stdout().ends_with("1 finding\n"), "{}", text.stdout());
    assert!(
        text.stderr.contains("error: invalid port `many`") && text.stderr.contains("Dockerfile:4"),
        "{}",
        text.stderr
    );
    let json: Value = serde_json::from_slice(&place.run(&["lint", "--format=json", "context"]).output).unwrap();
    let ranges = &json["buildError"]["location"]["ranges"];
    assert_eq!((&ranges[0]["start"]["line"], &ranges[2]["end"]["line"]), (&2.into(), &4.into()));
}

#[test]
fn findings_as_errors() {
    let place = Place::new("# check=error=true\nFROM scratch AS Files\n");
    let json: Value = serde_json::from_slice(&place.run(&["lint", "--format=json", "context"]).output).unwrap();
    let message = json["buildError"]["message"].as_str().unwrap();
    assert!(message.starts_with("lint violation found for rules: StageNameCasing"), "{message}");
    assert_eq!(json["warnings"].as_array().unwrap().len(), 1);
}

/// Every stage is looked at, unless some are named.
#[test]
fn which_stages() {
    let place = Place::new("FROM scratch AS one\nENV A b\n\nFROM scratch AS two\nCOPY $C /\n\nFROM one\n");
    let lines = |flags: &[&str]| {
        let ran = place.run(&[&["lint", "--format=json"], flags, &["context"]].concat());
        let json: Value = serde_json::from_slice(&ran.output).unwrap();
        let line = |warning: &Value| warning["location"]["ranges"][0]["start"]["line"].as_u64().unwrap();
        json["warnings"].as_array().unwrap().iter().map(line).collect::<Vec<_>>()
    };
    assert_eq!(lines(&[]), [2, 5]);
    assert_eq!(lines(&["--target=one"]), [2]);
    assert_eq!(lines(&["--target=two"]), [5]);
    assert_eq!(lines(&["--target=one,TWO"]), [2, 5]);
    assert_eq!(lines(&["--build-arg=BUILDKIT_DOCKERFILE_CHECK=skip=UndefinedVar"]), [2]);
}

/// Nothing but the rules about a base image need it.
#[test]
fn a_base_image_that_cannot_be_read() {
    let unreachable = format!("127.0.0.1:{}/base:1", testkit::docker_registry::free_port());
    let dockerfile =
        format!("FROM {unreachable} AS Base\nENV A=$OF_THE_BASE\nWORKDIR $THAT/x\nFROM base\nLABEL a=$B\nENV C d\n");
    let place = Place::new(&dockerfile);
    for (flag, reason) in [("--insecure-registry=none", "connection refused"), ("--offline", "--offline")] {
        let ran = place.run(&["lint", flag, "context"]);
        assert_eq!(ran.code(), 3);
        for part in
            ["could not be read", reason, "Dockerfile:1", "not checked", "InvalidBaseImagePlatform, UndefinedVar"]
        {
            assert!(ran.stderr.contains(part), "`{part}`: {}", ran.stderr);
        }
        let said = ran.stdout();
        assert!(said.contains("StageNameCasing") && said.contains("LegacyKeyValueFormat"), "{said}");
        assert!(!said.contains("UndefinedVar") && !said.contains("WorkdirRelativePath"), "{said}");
        let json: Value =
            serde_json::from_slice(&place.run(&["lint", flag, "--format=json", "context"]).output).unwrap();
        assert_eq!(json["notChecked"][0]["image"], unreachable.as_str());
    }
    let fine = Place::new(&format!("FROM {unreachable}\nENV A=1\n"));
    assert_eq!(fine.run(&["lint", "--offline", "context"]).code(), 0, "nothing was found");
}

/// docker's spellings, and that a build is not one.
#[test]
fn checks_of_a_build() {
    let place = Place::new("FROM scratch AS Files\nCOPY nothing /\n");
    for flags in
        [&["--check"][..], &["--call=check"], &["--call=lint", "-t", "x:1", "--push"], &["--call=check,format=json"]]
    {
        let ran = place.build(flags);
        assert_eq!(ran.code(), 3, "{flags:?}: {}", ran.stderr);
        assert!(ran.stdout().contains("StageNameCasing"), "{flags:?}: {}", ran.stdout());
    }
    assert_eq!(place.executor(&["--context=dir://context", "--check"]).code(), 1, "kaniko has one status for all");
    place.build(&["--call=colour"]).failed(2, &["`--call=colour`", "check, outline and targets"]);
    place.build(&["--call=check,colour=red"]).failed(2, &["unknown option `colour=red`"]);
    place.build(&["--call=build", "--no-push"]).failed(3, &["source `nothing` does not exist"]);
    place.assert_clean();
}

/// A build shows what it finds with its line.
#[test]
fn findings_during_a_build() {
    let place = with_busybox("LABEL a=$B\n");
    let ran = place.build(&["--no-push"]);
    ran.digest();
    for part in ["warning[UndefinedVar]: Usage of undefined variable '$B'", "Dockerfile:5", "5 | LABEL a=$B", "^^"] {
        assert!(ran.stderr.contains(part), "`{part}` is not in\n{}", ran.stderr);
    }
    let json = place.build(&["--no-push", "--progress=rawjson"]);
    let line = json.stderr.lines().find(|line| line.contains("UndefinedVar")).unwrap();
    let event: Value = serde_json::from_str(line).unwrap();
    assert_eq!(
        (&event["event"], &event["rule"], &event["line"]),
        (&"warning".into(), &"UndefinedVar".into(), &5.into())
    );
}

/// As other linters take it; also from standard input, and for the other questions.
#[test]
fn a_file_in_the_place_of_the_context() {
    let place = Place::new("FROM scratch AS Files\nCOPY ignored /\n")
        .file("context/.dockerignore", "ignored\n")
        .file("context/ignored", "")
        .file("Other.Dockerfile", "FROM scratch AS Other\n");
    let ran = place.run(&["lint", "context/Dockerfile"]);
    assert_eq!(ran.code(), 3, "{}", ran.stderr);
    for rule in ["StageNameCasing", "CopyIgnoredFile", "Dockerfile:1"] {
        assert!(ran.stdout().contains(rule), "{rule}: {}", ran.stdout());
    }
    let ran = place.run(&["lint", "Other.Dockerfile"]);
    assert!(ran.stdout().contains("1 finding"), "{} {}", ran.stdout(), ran.stderr);
    assert!(place.run(&["targets", "Other.Dockerfile"]).stdout().contains("other"));
    assert_eq!(place.run(&["outline", "Other.Dockerfile"]).code(), 0);
    let ran = place.start(crate::harness::ZUWAI, &["lint", "-"]).finish(b"FROM scratch AS Files\n");
    assert!(ran.stdout().contains("1 finding"), "{} {}", ran.stdout(), ran.stderr);
    // With a name besides, it has to be a context.
    let ran = place.run(&["lint", "--file=Other.Dockerfile", "context/Dockerfile"]);
    assert!(ran.code() == 3 && ran.stderr.contains("not a directory"), "{}", ran.stderr);
    place
        .run(&["build", "--no-push", "Other.Dockerfile"])
        .failed(3, &["not a directory", "hint: ", "--file Other.Dockerfile"]);
}
