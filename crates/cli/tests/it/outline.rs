//! `zuwai outline` and `zuwai targets`.

use serde_json::{Value, json};

use crate::harness::Place;

const DOCKERFILE: &str = "\
ARG inherited=box
ARG inherited2=box2
ARG unused=abc${inherited2}
# sfx is a suffix
ARG sfx=\"usy${inherited}\"

FROM b${sfx} AS first
# this is about nothing
ARG FOO=123
# BAR is a number
ARG BAR=456
RUN --mount=type=secret,target=/etc/passwd,required=true --mount=type=cache,id=c$BAR,target=/c true

FROM alpine${unused} AS second
ARG BAZ
RUN --mount=type=secret,id=unused true

FROM --platform=$BUILDPLATFORM scratch AS third
ARG ABC=a
ARG OTHER
RUN --mount=type=secret,id=third${OTHER} true

# target defines build target
FROM third AS target
COPY --from=first /etc/passwd /

FROM second
";

/// As BuildKit answers for files like this (`dockerfile_outline_test.go`).
#[test]
fn parameters_of_a_target() {
    let place = Place::new(DOCKERFILE);
    let flags = ["--offline", "--target=target", "--build-arg=BAR=678", "--build-arg=OTHER=9", "context"];
    let ran = place.run(&[&["outline"], &flags[..]].concat());
    assert_eq!(ran.code(), 0, "{}", ran.stderr);
    let want = "\
target: target
  defines build target

BUILD ARG   VALUE    DESCRIPTION
inherited   box
sfx         usybox   is a suffix
FOO         123
BAR         678      is a number
ABC         a
OTHER       9

SECRET   REQUIRED
passwd   yes
third9   no

CACHE
c678
";
    assert_eq!(ran.stdout(), want);
    let json: Value =
        serde_json::from_slice(&place.run(&[&["outline", "--format=json"], &flags[..]].concat()).output).unwrap();
    let line = |line: u64| json!({ "ranges": [{ "start": { "line": line }, "end": { "line": line } }] });
    assert_eq!(json["name"], "target");
    assert_eq!(
        json["args"][1],
        json!({
            "name": "sfx", "value": "usybox", "description": "is a suffix", "location": line(5),
        })
    );
    assert_eq!(
        json["secrets"],
        json!([
            { "name": "passwd", "required": true, "location": line(12) }, { "name": "third9", "location": line(21) },
        ])
    );
    assert_eq!(json["cache"], json!([{ "ID": "c678", "location": line(12) }]));
    // The last stage has no name, and other parameters.
    let last = place.build(&["--call=outline,format=json"]);
    let json: Value = serde_json::from_slice(&last.output).unwrap_or_else(|e| panic!("{e}: {}", last.stderr));
    let names: Vec<&str> = json["args"].as_array().unwrap().iter().map(|arg| arg["name"].as_str().unwrap()).collect();
    assert_eq!((names, json.get("name")), (vec!["inherited2", "unused", "BAZ"], None));
}

#[test]
fn values_that_are_made_of_others() {
    let place = Place::new(
        "ARG FOO=123\nARG ABC=abc\nARG DEF=def\nARG FOO=${FOO}${ABC}\nARG BAR=${FOO}456\nFROM scratch\nARG BAR\n",
    );
    let ran = place.run(&["outline", "--format=json", "context"]);
    let json: Value = serde_json::from_slice(&ran.output).unwrap();
    let args: Vec<(&str, &str)> = json["args"]
        .as_array()
        .unwrap()
        .iter()
        .map(|arg| (arg["name"].as_str().unwrap(), arg["value"].as_str().unwrap()))
        .collect();
    assert_eq!(args, [("ABC", "abc"), ("FOO", "123abc"), ("BAR", "123abc456")]);
}

#[test]
fn stages() {
    let place = Place::new(DOCKERFILE);
    for args in [&["targets", "context"][..], &["build", "--call=targets", "context"]] {
        let ran = place.run(args);
        assert_eq!(ran.code(), 0, "{}", ran.stderr);
        let want = "\
TARGET              BASE              DESCRIPTION
first               b${sfx}
second              alpine${unused}
third               scratch
target              third             defines build target
stage-4 (default)   second
";
        assert_eq!(ran.stdout(), want);
    }
    let json: Value = serde_json::from_slice(&place.run(&["targets", "--format=json", "context"]).output).unwrap();
    assert_eq!(
        json["targets"][2],
        json!({
            "name": "third", "base": "scratch", "platform": "$BUILDPLATFORM",
            "location": { "ranges": [{ "start": { "line": 18 }, "end": { "line": 18 } }] },
        })
    );
    assert_eq!((&json["targets"][4]["default"], json["targets"][4].get("name")), (&json!(true), None));
}

#[test]
fn faults() {
    let place = Place::new(DOCKERFILE);
    place.run(&["outline", "--offline", "--target=frist", "context"]).failed(3, &["`frist`", "did you mean `first`?"]);
    Place::new("FROM\n").run(&["targets", "context"]).failed(3, &["FROM needs", "Dockerfile:1"]);
}

#[test]
fn agents_of_a_target() {
    let place = Place::new("FROM scratch\nRUN --mount=type=ssh --mount=type=ssh,id=k,required true\n");
    let ran = place.run(&["outline", "context"]);
    assert!(
        ran.stdout().ends_with("\nSSH       REQUIRED\ndefault   no\nk         yes\n"),
        "{}{}",
        ran.stdout(),
        ran.stderr
    );
}
