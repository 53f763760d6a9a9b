//! Faults of our own, and outputs that fail half way.

use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use oci::Digest;
use store::{Exporter, Image, Layer, StoreError};
use zuwai_build::{FilesOutput, Output};

use crate::harness::{Bench, all_files};

#[test]
fn a_panic_in_a_worker_leaves_nobody_waiting() {
    struct Broken;
    impl Exporter for Broken {
        fn prepare(&self, _: &Layer) -> Result<(), StoreError> {
            panic!("a fault for a test")
        }
        fn export(&self, image: &Image) -> Result<Digest, StoreError> {
            Ok(image.encode().manifest_descriptor.digest)
        }
        fn describe(&self) -> String {
            "a broken place".to_owned()
        }
    }
    let mut bench = Bench::new("FROM scratch\nRUN write /a b\nRUN write /b c\nRUN write /c d\n");
    bench.request.outputs.insert(0, Output::Image(Arc::new(Broken)));
    let ended = catch_unwind(AssertUnwindSafe(|| zuwai_build::build(&bench.request).is_ok()));
    assert!(ended.is_err());
    assert!(!bench.exported());
}

/// What was there stays until the new file is whole, and nothing else is left beside it.
#[test]
fn a_tar_of_files_comes_whole_or_not_at_all() {
    for (run, whole) in [("write /a b", true), ("fail", false)] {
        let mut bench = Bench::new(&format!("FROM scratch\nRUN {run}\n")).on("fail", |_| sandbox::Exit::Code(1));
        let directory = bench.path("files");
        std::fs::create_dir(&directory).unwrap();
        let path = directory.join("out.tar");
        std::fs::File::create(&path).unwrap().write_all(b"old").unwrap();
        bench.request.outputs.push(Output::Files(FilesOutput::TarFile(path.clone())));
        assert_eq!(zuwai_build::build(&bench.request).is_ok(), whole);
        assert_eq!(std::fs::read(&path).unwrap() == b"old", !whole);
        assert_eq!(all_files(&directory).len(), 1);
    }
}

/// A local output is not finished after Ctrl-C, however fast the disk is.
#[test]
fn an_export_ends_with_the_build() {
    struct Reads(Arc<std::sync::atomic::AtomicBool>);
    impl Exporter for Reads {
        fn prepare(&self, _: &Layer) -> Result<(), StoreError> {
            Ok(())
        }
        fn export(&self, image: &Image) -> Result<Digest, StoreError> {
            let mut content = image.layers[0].content.open(&image.layers[0].descriptor)?;
            self.0.store(true, std::sync::atomic::Ordering::Relaxed);
            let read = std::io::copy(&mut content, &mut std::io::sink());
            Err(StoreError::Read(read.expect_err("the layer is not read after the signal")))
        }
        fn describe(&self) -> String {
            "a place".to_owned()
        }
    }
    let mut bench = Bench::new("FROM scratch\nRUN write /a b\n");
    bench.request.outputs.insert(0, Output::Image(Arc::new(Reads(bench.request.control.cancelled.clone()))));
    assert!(matches!(bench.try_build(), Err(zuwai_build::BuildError::Cancelled)));
    assert!(!bench.exported());
}
