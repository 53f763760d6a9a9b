//! Steps that a cache knows.

use std::collections::HashMap;
use std::sync::Arc;

use store::Layer;
use zuwai_build::plan::NodeId;
use zuwai_build::{Cache, FilesOutput, Hits, Output, Plan};

use crate::harness::{Base, Bench, Outcome, lock};

/// Layers by the titles of their steps.
struct Remembered(HashMap<String, Layer>);

impl Cache for Remembered {
    fn look_up(&self, plan: &Plan) -> Hits {
        let mut hits = Hits::default();
        for (at, node) in plan.nodes.iter().enumerate() {
            if let Some(layer) = node.step().and_then(|step| self.0.get(&step.title)) {
                hits.put(NodeId(at), layer.clone());
            }
        }
        hits
    }
}

const DOCKERFILE: &str = "FROM base AS tools\nRUN write /tool 1\n\
    FROM base\nCOPY a /a\nRUN write /b 2\nCOPY --from=tools /tool /tool\nRUN write /c 3\n";

fn bench() -> Bench {
    Bench::new(DOCKERFILE).image("base", Base::new().layer(&[("f", "base")])).file("a", "a")
}

/// The layers of the last stage, by title, those of `known` alone.
fn remembered(plan: &Plan, first: &Outcome, known: &[&str]) -> Remembered {
    let steps = plan.steps(plan.stage(plan.target));
    let layers = steps.map(|step| step.title.clone()).zip(first.image.layers.iter().skip(1).cloned());
    Remembered(layers.filter(|(title, _)| known.iter().any(|known| title.starts_with(known))).collect())
}

/// Whatever a cache knows, the image is the same, and nobody does what nobody needs.
#[test]
fn known_steps_do_not_run() {
    let clean = bench();
    let first = clean.build();
    // What is known; what runs then; whether the base is unpacked.
    let all = ["COPY a", "RUN write /b", "COPY --from", "RUN write /c"];
    let table: [(&[&str], &[&str], bool); 5] = [
        (&[], &["write /tool 1", "write /b 2", "write /c 3"], true),
        (&all, &[], false),
        (&all[..3], &["write /c 3"], true),
        (&all[1..2], &["write /tool 1", "write /c 3"], true),
        (&all[2..], &["write /b 2"], true),
    ];
    for (known, ran, is_unpacked) in table {
        let mut bench = bench();
        bench.request.backends.cache = Arc::new(remembered(&clean.plan(), &first, known));
        let outcome = bench.build();
        assert_eq!(outcome.built.digest, first.built.digest, "{known:?}");
        let mut found: Vec<String> = lock(&bench.sandbox.ran)
            .iter()
            .map(|(process, _)| process.args.last().unwrap().to_string_lossy().into_owned())
            .collect();
        found.sort();
        let mut wanted: Vec<&str> = ran.to_vec();
        wanted.sort_unstable();
        assert_eq!(found, wanted, "{known:?}");
        assert_eq!(!bench.events.having("StageStarted").is_empty(), is_unpacked, "{known:?}");
        assert_eq!(bench.events.having("Cached").len(), known.len());
    }
}

/// Files that are asked for are made of what is known, too.
#[test]
fn files_of_known_steps() {
    let clean = bench();
    let first = clean.build();
    let mut bench = bench();
    let all = ["COPY a", "RUN write /b", "COPY --from", "RUN write /c"];
    bench.request.backends.cache = Arc::new(remembered(&clean.plan(), &first, &all));
    let files = bench.path("files");
    bench.request.outputs.push(Output::Files(FilesOutput::Directory(files.clone())));
    bench.build();
    for (name, content) in [("f", "base"), ("a", "a"), ("b", "2"), ("tool", "1"), ("c", "3")] {
        assert_eq!(std::fs::read_to_string(files.join(name)).unwrap(), content, "{name}");
    }
    assert!(lock(&bench.sandbox.ran).is_empty());
}
