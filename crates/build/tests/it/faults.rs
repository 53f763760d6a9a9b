//! Faults of our own, and outputs that fail half way.

use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use oci::Digest;
use store::{Exporter, Image, Layer, StoreError};
use zuwai_build::RootfsOutput;

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
    bench.request.exporters.insert(0, Arc::new(Broken));
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
        bench.request.rootfs_output = Some(RootfsOutput::TarFile(path.clone()));
        assert_eq!(zuwai_build::build(&bench.request).is_ok(), whole);
        assert_eq!(std::fs::read(&path).unwrap() == b"old", !whole);
        assert_eq!(all_files(&directory).len(), 1);
    }
}
