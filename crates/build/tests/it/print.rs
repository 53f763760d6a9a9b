//! The plan as `--dry-run` shows it.

use zuwai_build::plan::{to_json, to_text};

use crate::harness::{Base, Bench};

fn bench() -> Bench {
    let dockerfile = "ARG V=1\nFROM base:$V AS build\nWORKDIR /src\nARG DIR=. V TOKEN\nENV A=1\nCOPY --chown=1:2 $DIR .\n\
                      USER app\nRUN --network=none --mount=type=cache,target=/c,id=c$V,sharing=locked \\\n \
                      --mount=type=bind,from=other,source=/x,target=/x --mount=type=bind,target=w,rw \\\n \
                      --mount=type=secret,id=s,env=S,required --mount=type=tmpfs,target=/t,size=1k \\\n make all\n\
                      FROM scratch AS other\nCOPY <<EOF /x/\nhere\nEOF\n\
                      FROM missing AS unused\nFROM scratch\nLABEL a=b\nADD --link https://user:word@host.example/f /f\n\
                      COPY --from=build /src/out /out\nCMD [\"/out\"]\n";
    // A stage has to stand before those that take from it.
    let (build, rest) = dockerfile.split_once("FROM scratch AS other\n").unwrap();
    let (head, build) = build.split_once("FROM base").unwrap();
    let (other, rest) = rest.split_once("FROM missing").unwrap();
    let dockerfile = format!("{head}FROM scratch AS other\n{other}FROM base{build}FROM missing{rest}");
    let mut bench =
        Bench::new(&dockerfile).image("base:1", Base::new().layer(&[("f", "")])).arg("DIR", "sub").arg("TOKEN", "hush");
    bench.request.spec.platform = Some(oci::Platform::parse("linux/amd64").unwrap());
    bench
}

fn without_digest(text: &str) -> String {
    let Some(at) = text.find("sha256:") else { panic!("no digest in\n{text}") };
    text.replace(&text[at..at + 71], "DIGEST")
}

/// With `BLESS=1` what is expected is written instead of compared; read what changed before it is committed.
fn compare(name: &str, actual: &str) {
    let expected = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/print").join(name);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(expected, actual).unwrap();
    } else {
        assert_eq!(std::fs::read_to_string(&expected).unwrap(), actual, "{name}");
    }
}

#[test]
fn text() {
    let bench = bench();
    let text = to_text(&bench.plan(), &bench.request.spec.dockerfile.source);
    compare("plan.txt", &without_digest(&text));
    assert_eq!(bench.images.downloads(), 0);
    assert!(!bench.request.control.work.join("stages").exists());
}

#[test]
fn json() {
    let bench = bench();
    let json = to_json(&bench.plan(), &bench.request.spec.dockerfile.source);
    compare("plan.json", &(without_digest(&serde_json::to_string_pretty(&json).unwrap()) + "\n"));
}

/// Several targets: the first is the one that is exported.
#[test]
fn targets() {
    let mut bench =
        Bench::new("FROM scratch AS a\nCOPY f /\nFROM scratch AS b\nCOPY f /\nFROM a AS c\nFROM scratch\n").target("B");
    bench.request.spec.more_targets = vec!["c".to_owned(), "b".to_owned()];
    let text = to_text(&bench.plan(), &bench.request.spec.dockerfile.source);
    let heads: Vec<&str> = text.lines().filter(|line| !line.starts_with(' ')).collect();
    let platform = oci::Platform::host().to_string();
    assert_eq!(
        heads,
        [
            &format!("stage b (target), from scratch, {platform}"),
            &format!("stage a, from scratch, {platform}"),
            &format!("stage c (target, not exported), from stage a, {platform}"),
            "not built: stage stage-3 (line 6): no target is it, stands on it or takes files from it",
        ]
    );
}
