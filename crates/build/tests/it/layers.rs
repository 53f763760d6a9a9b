//! Layers: when base layers are fetched, what a step's layer holds, and that the same input gives the same bytes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use oci::media_type::Compression;
use oci::{DiffId, Digest};
use store::{Exporter, Image, Layer, StoreError};
use zuwai_build::{BuildError, FilesOutput, Output};

use crate::harness::{Base, Bench, all_files, lock, tar_output};

/// Takes images and reads no layer, as a registry that has them all.
#[derive(Default)]
struct Knowing {
    prepared: Mutex<Vec<DiffId>>,
    exported: Mutex<Vec<Image>>,
}

impl Exporter for Knowing {
    fn prepare(&self, layer: &Layer) -> Result<(), StoreError> {
        lock(&self.prepared).push(layer.diff_id.clone());
        Ok(())
    }

    fn export(&self, image: &Image) -> Result<Digest, StoreError> {
        lock(&self.exported).push(image.clone());
        Ok(image.encode().manifest_descriptor.digest)
    }

    fn describe(&self) -> String {
        "somebody who has every layer".to_owned()
    }
}

fn base() -> Base {
    Base::new().layer(&[("f", "one")]).layer(&[("g", "two")])
}

#[test]
fn metadata_alone_downloads_no_layer() {
    let dockerfile = "FROM base AS a\nENV A=1\nFROM a\nLABEL b=2\nCMD [\"x\"]\nWORKDIR /\n";
    let mut bench = Bench::new(dockerfile).image("base", base());
    let knowing = Arc::new(Knowing::default());
    bench.request.outputs = vec![Output::Image(knowing.clone())];
    zuwai_build::build(&bench.request).unwrap();
    assert_eq!(bench.images.downloads(), 0);
    assert_eq!(lock(&knowing.exported)[0].layers.len(), 2);
    assert!(!bench.request.control.work.join("stages").exists(), "nothing is unpacked");
}

#[test]
fn base_layers_are_downloaded_once() {
    // Unpacked for two stages, exported twice, copied from.
    let dockerfile = "FROM base AS a\nRUN write /a 1\nFROM base AS b\nRUN write /b 1\n\
                      FROM base\nCOPY --from=a /a /\nCOPY --from=b /b /\nCOPY --from=base /f /h\n";
    let mut bench = Bench::new(dockerfile).image("base", base());
    let second = store::LayoutExporter::new(&bench.path("second"), Vec::new());
    bench.request.outputs.push(Output::Image(Arc::new(second)));
    bench.build();
    let opened: Vec<usize> = lock(&bench.images.opened).values().copied().collect();
    assert_eq!(opened, [1, 1]);
}

/// Layers of bases that no result and no reader needs.
#[test]
fn a_stage_that_is_only_copied_from_downloads_what_it_is_made_of() {
    let dockerfile = "FROM tools AS t\nFROM base\nCOPY --from=t /tool /\n";
    let mut bench = Bench::new(dockerfile).image("base", base()).image("tools", Base::new().layer(&[("tool", "x")]));
    let knowing = Arc::new(Knowing::default());
    bench.request.outputs = vec![Output::Image(knowing.clone())];
    zuwai_build::build(&bench.request).unwrap();
    let prepared = lock(&knowing.prepared).clone();
    assert_eq!(prepared.len(), 3, "two of the base and the copy; the tools are no part of the result");
}

#[test]
fn an_empty_run_has_an_empty_layer_and_its_history() {
    let outcome = Bench::new("FROM scratch\nRUN nothing\nENV A=1\nRUN write /f x\n").build();
    assert_eq!(outcome.layers[0], Vec::<String>::new());
    assert_eq!(outcome.layers.len(), 2);
    assert_eq!(outcome.history(), ["RUN /bin/sh -c nothing", "(empty) ENV A=1", "RUN /bin/sh -c write /f x"]);
}

#[test]
fn changes_and_whiteouts() {
    let dockerfile = "FROM base\nRUN remove /f; write /g changed\nRUN write /f new\n";
    let outcome = Bench::new(dockerfile).image("base", base()).build();
    let names = |layer: usize| -> Vec<&str> {
        outcome.layers[layer].iter().map(|l| l.rsplit(' ').next().unwrap()).filter(|n| *n != "./").collect()
    };
    assert_eq!(names(2), [".wh.f", "g"]);
    assert_eq!(names(3), ["f"]);
}

/// Non-empty history entries are as many as layers, whatever the base says.
#[test]
fn history_is_in_step_with_layers() {
    type Change = fn(&mut oci::ImageConfig);
    let table: [(&str, Change); 4] = [
        ("as it should be", |_| {}),
        ("none", |c| c.history.clear()),
        ("too little", |c| c.history.truncate(1)),
        ("too much", |c| c.history.extend(vec![oci::History::default(); 3])),
    ];
    for (name, change) in table {
        let bench = Bench::new("FROM base\nRUN nothing\nENV A=1\nCOPY f /\n")
            .image("base", base().config(change))
            .file("f", "");
        let outcome = bench.build();
        let named = outcome.image.config.history.iter().filter(|h| !h.empty_layer).count();
        assert_eq!(named, outcome.image.layers.len(), "{name}: {:?}", outcome.history());
        let want = ["RUN /bin/sh -c nothing", "(empty) ENV A=1", "COPY f /"];
        assert!(outcome.history().ends_with(&want.map(str::to_owned)), "{name}: {:?}", outcome.history());
    }
}

const BROAD: &str = "FROM base AS a\nRUN write /a 1\nFROM base\nCOPY --from=a /a /x/\nCOPY . /context/\n\
                     RUN write /r 2; remove /f\nCOPY --link . /linked/\nWORKDIR /w/x\nENV A=1\n";

fn broad() -> Bench {
    Bench::new(BROAD).image("base", base()).file("one", "1").file("dir/two", "2")
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let build = |jobs: usize, compression: Compression| {
        let mut bench = broad();
        bench.request.control.jobs = jobs;
        bench.request.spec.compression = compression;
        bench.request.spec.clamp_modified = true;
        let outcome = bench.build();
        let layers: Vec<Digest> = outcome.image.layers.iter().map(|l| l.descriptor.digest.clone()).collect();
        (layers, outcome.built.digest, outcome.built.image_id)
    };
    for compression in [Compression::Gzip, Compression::Zstd, Compression::None] {
        let first = build(1, compression);
        for jobs in [1, 2, 7] {
            assert_eq!(build(jobs, compression), first, "{compression:?}, {jobs} jobs");
        }
    }
}

#[test]
fn compression_does_not_change_what_is_in_the_layers() {
    let diff_ids = |compression, level| {
        let mut bench = broad();
        bench.request.spec.compression = compression;
        bench.request.spec.compression_level = level;
        bench.request.spec.clamp_modified = true;
        bench.build().diff_ids().into_iter().cloned().collect::<Vec<_>>()
    };
    let gzip = diff_ids(Compression::Gzip, None);
    assert_eq!(gzip, diff_ids(Compression::Gzip, Some(9)));
    assert_eq!(gzip, diff_ids(Compression::Zstd, None));
    assert_eq!(gzip, diff_ids(Compression::None, None));
}

#[test]
fn times_are_clamped_where_it_is_asked() {
    for clamped in [true, false] {
        let mut bench = Bench::new("FROM scratch\nCOPY f /\n").file("f", "");
        bench.request.spec.clamp_modified = clamped;
        let outcome = bench.build();
        let mut archive = tar::Archive::new(outcome.image.layers[0].uncompressed().unwrap());
        let mut entries = archive.entries().unwrap().map(Result::unwrap);
        let file = entries.find(|e| e.path().unwrap().ends_with("f")).unwrap();
        let modified = i64::try_from(file.header().mtime().unwrap()).unwrap();
        assert_eq!(modified == crate::harness::EPOCH, clamped, "{modified}");
    }
}

#[test]
fn ignored_paths_stay_out_of_layers() {
    let mut bench =
        Bench::new("FROM scratch\nCOPY . /\nRUN write /dir/more x; write /kept y\n").file("dir/f", "").file("g", "");
    bench.request.spec.ignore_paths = vec!["dir".into()];
    let outcome = bench.build();
    let all = outcome.layers.concat().join("\n");
    assert!(!all.contains("dir"), "{all}");
    assert!(all.contains(" g") && all.contains(" kept"), "{all}");
}

/// Every exporter gets the same image, and a failing one fails the build with its name.
#[test]
fn exporters() {
    let mut bench = Bench::new("FROM base\nRUN write /x y\n").image("base", base());
    let knowing = [Arc::new(Knowing::default()), Arc::new(Knowing::default())];
    bench.request.outputs.extend(knowing.iter().map(|k| Output::Image(k.clone())));
    let outcome = bench.build();
    assert_eq!(outcome.built.digests, vec![outcome.built.digest.clone(); 3]);
    for one in &knowing {
        assert_eq!(lock(&one.prepared).len(), 3, "each layer is offered ahead of time, once");
    }

    struct Failing(fn() -> StoreError);
    impl Exporter for Failing {
        fn prepare(&self, _: &Layer) -> Result<(), StoreError> {
            Err(self.0())
        }
        fn export(&self, _: &Image) -> Result<Digest, StoreError> {
            Err(self.0())
        }
        fn describe(&self) -> String {
            "the failing place".to_owned()
        }
    }
    let mut bench = Bench::new("FROM scratch\nRUN write /x y\n");
    let denied = || StoreError::Remote { message: "403 DENIED".to_owned(), hint: None, source: None };
    bench.request.outputs = vec![Output::Image(Arc::new(Failing(denied)))];
    assert_eq!(bench.error(), "could not export to the failing place: 403 DENIED");
    assert_eq!(bench.events.having("the failing place: 403 DENIED; trying again").len(), 1);
}

#[test]
fn an_interrupted_export_is_an_interrupted_build() {
    struct Interrupted(Arc<AtomicBool>);
    impl Exporter for Interrupted {
        fn prepare(&self, _: &Layer) -> Result<(), StoreError> {
            Ok(())
        }
        fn export(&self, _: &Image) -> Result<Digest, StoreError> {
            self.0.store(true, Ordering::Relaxed);
            Err(StoreError::Cancelled)
        }
        fn describe(&self) -> String {
            "a slow place".to_owned()
        }
    }
    let mut bench = Bench::new("FROM scratch\nRUN write /x y\n");
    bench.request.outputs.insert(0, Output::Image(Arc::new(Interrupted(bench.request.control.cancelled.clone()))));
    let error = bench.try_build().err();
    assert!(matches!(error, Some(BuildError::Cancelled)), "{error:?}");
    assert!(!bench.exported(), "nothing is exported after it");
}

#[test]
fn files_instead_of_an_image() {
    let dockerfile = "FROM base\nRUN write /x y; remove /f\n";
    let mut bench = Bench::new(dockerfile).image("base", base());
    bench.request.outputs.clear();
    bench.request.outputs.push(Output::Files(FilesOutput::Directory(bench.path("files"))));
    zuwai_build::build(&bench.request).unwrap();
    let mut files: Vec<(String, Vec<u8>)> = all_files(&bench.path("files"))
        .into_iter()
        .map(|(p, c)| (p.file_name().unwrap().to_str().unwrap().to_owned(), c))
        .collect();
    files.sort();
    assert_eq!(files, [("g".to_owned(), b"two".to_vec()), ("x".to_owned(), b"y".to_vec())]);

    let (output, bytes) = tar_output();
    let mut bench = Bench::new(dockerfile).image("base", base());
    bench.request.outputs.clear();
    bench.request.outputs.push(Output::Files(output));
    zuwai_build::build(&bench.request).unwrap();
    let bytes = lock(&bytes).clone();
    let mut archive = tar::Archive::new(bytes.as_slice());
    let mut names: Vec<String> = archive
        .entries()
        .unwrap()
        .map(|e| e.unwrap().path().unwrap().display().to_string())
        .filter(|n| n != "./")
        .collect();
    names.sort();
    assert_eq!(names, ["g", "x"]);
}

/// A layer that is not what its digest says.
#[test]
fn a_damaged_base_is_refused() {
    let bench = Bench::new("FROM base\nRUN nothing\n").image("base", base());
    bench.images.damage();
    let error = bench.error();
    assert!(error.contains("could not unpack layer"), "{error}");
    assert!(error.contains("sha256:"), "{error}");
    assert!(!bench.exported());
}

#[test]
fn a_layer_beyond_the_limit_is_refused() {
    let mut bench =
        Bench::new("FROM base\nRUN nothing\n").image("base", Base::new().layer(&[("f", &"x".repeat(5000))]));
    bench.request.spec.layer_limit_bytes = 4999;
    let error = bench.error();
    assert!(error.contains("could not unpack layer"), "{error}");
    assert!(lock(&bench.sandbox.ran).is_empty());
}

/// Layers of the same bytes are that many layers, and one blob.
#[test]
fn identical_layers() {
    let dockerfile = format!("FROM scratch\n{}", "RUN nothing\n".repeat(30));
    let mut bench = Bench::new(&dockerfile);
    bench.request.control.jobs = 4;
    let outcome = bench.build();
    assert_eq!(outcome.layers.len(), 30);
    assert!(outcome.diff_ids().windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(all_files(&bench.path("out/blobs")).len(), 3, "manifest, config, layer");
}

/// What COPY --link makes knows nothing of what it lies on: nobody unpacks that, or downloads it where the destination has it.
#[test]
fn linked_copies_need_no_base() {
    let tail = "FROM base\nRUN write /x 1\nFROM base AS last\nCOPY --link a /a\nCOPY --link --from=0 /x /x\n";
    for (dockerfile, is_opened) in [
        ("FROM base\nCOPY --link a /a\nCOPY --link --chown=5:6 a /b\n", false),
        ("FROM base\nCOPY --link a /a\nCOPY a /c\n", true),
        (tail, true),
    ] {
        let bench = Bench::new(dockerfile).image("base", Base::new().layer(&[("f", "x")])).file("a", "a");
        let outcome = bench.build();
        assert_eq!(outcome.content("a").as_deref(), Some("a"), "{dockerfile}");
        assert_eq!(outcome.content("f").as_deref(), Some("x"), "{dockerfile}");
        assert_eq!(!bench.events.having("StageStarted").is_empty(), is_opened, "{dockerfile}");
    }
}
