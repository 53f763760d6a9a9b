//! The plan as `--dry-run` shows it.

use zuwai_build::plan::{to_json, to_text};

use crate::harness::{Base, Bench};

fn bench() -> Bench {
    let dockerfile = "ARG V=1\nFROM base:$V AS build\nWORKDIR /src\nCOPY --chown=1:2 . .\nRUN make \\\n  all\nENV A=1\n\
                      FROM missing AS unused\nFROM scratch\nLABEL a=b\nCOPY --from=build /src/out /out\nCMD [\"/out\"]\n";
    let mut bench = Bench::new(dockerfile).image("base:1", Base::new().layer(&[("f", "")]));
    bench.request.platform = Some(oci::Platform::parse("linux/amd64").unwrap());
    bench
}

fn without_digest(text: &str) -> String {
    let Some(at) = text.find("sha256:") else { panic!("no digest in\n{text}") };
    text.replace(&text[at..at + 71], "DIGEST")
}

#[test]
fn text() {
    let bench = bench();
    assert_eq!(
        without_digest(&to_text(&bench.plan())),
        "\
stage build, from base:1 (DIGEST), linux/amd64
  1/3 [files] WORKDIR /src
  2/3 [files] COPY --chown=1:2 . .
  3/3 [files] RUN make all
stage stage-2 (target), from scratch, linux/amd64
  1/1 [layer] COPY --from=build /src/out /out
"
    );
    assert_eq!(bench.images.downloads(), 0);
    assert!(!bench.request.work.join("stages").exists());
}

#[test]
fn json() {
    let json = without_digest(&serde_json::to_string_pretty(&to_json(&bench().plan())).unwrap());
    let want = r#"{
  "stages": [
    {
      "base": "base:1 (DIGEST)",
      "layered": false,
      "name": "build",
      "platform": "linux/amd64",
      "steps": [
        "WORKDIR /src",
        "COPY --chown=1:2 . .",
        "RUN make all"
      ]
    },
    {
      "base": "scratch",
      "layered": true,
      "name": "stage-2",
      "platform": "linux/amd64",
      "steps": [
        "COPY --from=build /src/out /out"
      ]
    }
  ],
  "target": "stage-2"
}"#;
    assert_eq!(json, want);
}
