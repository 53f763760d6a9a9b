//! Every input that the fuzzer once found worth keeping, or that once broke something, through the body of its target.

use std::path::{Path, PathBuf};

use zuwai_fuzzed::TARGETS;

fn files(folder: &Path) -> Vec<PathBuf> {
    let listed = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = listed.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus")
}

#[test]
fn every_target_has_its_program_its_folder_and_nothing_else_is_there() {
    let names = |folder: &Path| -> Vec<String> {
        files(folder).iter().map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    };
    let targets: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names(&corpus()), targets);
    assert_eq!(names(&corpus().join("../fuzz_targets")), targets);
}

fn replay(target: &str) {
    let (_, body) = TARGETS.iter().find(|(name, _)| *name == target).unwrap();
    let inputs = files(&corpus().join(target));
    assert!(!inputs.is_empty(), "`{target}` has no inputs");
    for input in inputs {
        let bytes = std::fs::read(&input).unwrap();
        if std::panic::catch_unwind(|| body(&bytes)).is_err() {
            panic!("{}", input.display());
        }
    }
}

macro_rules! replayed {
    ($($target:ident)*) => { $(
        #[test]
        fn $target() {
            replay(stringify!($target));
        }
    )* };
}

replayed! {
    archive chmod directives dockerfile_expand dockerfile_parse dockerignore exec_form git_bytes git_pack glob image_archive image_documents
    layer layer_round_trip names oci_layout program registry_texts run_mount ssh_agent users
}
