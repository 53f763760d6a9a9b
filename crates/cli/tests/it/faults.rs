//! Dockerfiles and contexts that are wrong, and a host without room.

use crate::harness::{Place, skipped};

#[test]
fn no_dockerfile() {
    let place = Place::new("");
    std::fs::remove_file(place.path("context/Dockerfile")).unwrap();
    place.build(&["--no-push"]).failed(3, &["Dockerfile `Dockerfile` not found in the build context"]);
    place.build(&["--no-push", "-f", "other/file"]).failed(3, &["Dockerfile `other/file` not found"]);
    let place = place.file("context/Dockerfile.prod", "FROM scratch\n");
    place.build(&["--no-push"]).failed(3, &["not found", "hint: ", "`Dockerfile.prod`"]);
    place.run(&["build", "--no-push", "no-such-directory"]).failed(3, &["could not open context `no-such-directory`"]);
    place.run(&["build", "--no-push", "context/Dockerfile.prod"]).failed(3, &["not a directory"]);
}

#[test]
fn dockerfiles_that_are_none() {
    let random: Vec<u8> = (0..100_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut enormous = b"FROM scratch\n".to_vec();
    enormous.resize(20 << 20, b'#');
    let table: [(&str, &[u8], &[&str]); 7] = [
        ("empty", b"", &["the Dockerfile is empty"]),
        ("comments alone", b"# nothing\n\n", &["the Dockerfile has no instructions"]),
        ("no FROM", b"RUN x\n", &["FROM", "Dockerfile:1"]),
        ("binary", &random, &["Dockerfile"]),
        ("zeros", &[0; 5000], &["Dockerfile"]),
        ("enormous", &enormous, &["Dockerfile", "16 MiB|16777216|too large|larger"]),
        (
            "an unknown instruction",
            b"FROM scratch\nCOPPY a b\n",
            &["unknown instruction `COPPY`", "Dockerfile:2", "hint: did you mean COPY?"],
        ),
    ];
    for (name, content, parts) in table {
        let place = Place::new("").file("context/Dockerfile", content);
        let ran = place.build(&["--no-push"]);
        assert_eq!((ran.code(), ran.stdout()), (3, ""), "{name}: {}", ran.stderr);
        for part in parts {
            assert!(part.split('|').any(|p| ran.stderr.contains(p)), "{name}: `{part}` is not in\n{}", ran.stderr);
        }
        assert!(ran.stderr.len() < 10_000, "{name}: a message, not the file: {} bytes", ran.stderr.len());
        assert!(!ran.stderr.contains("panicked"), "{name}: {}", ran.stderr);
        place.assert_clean();
    }
}

#[test]
fn a_missing_source_says_why() {
    let place = Place::new("FROM scratch\nCOPY dist/ /srv/\n")
        .file("context/dist/a", "")
        .file("context/.dockerignore", "dist\n");
    let ran = place.build(&["--no-push"]);
    ran.failed(3, &["does not exist in the build context", "Dockerfile:2", "COPY dist/ /srv/"]);
    ran.failed(3, &["hint: `.dockerignore` line 1 (`dist`) excludes it"]);
    let place = Place::new("FROM scratch\nCOPY reqirements.txt /\n").file("context/requirements.txt", "");
    place
        .build(&["--no-push"])
        .failed(3, &["`reqirements.txt` does not exist", "hint: did you mean `requirements.txt`?"]);
    place.assert_clean();
}

#[test]
fn unknown_stages_and_platforms() {
    let place = Place::new("FROM scratch AS build\nENV A=1\n");
    let ran = place.build(&["--no-push", "--target=biuld"]);
    ran.failed(3, &["target stage `biuld` could not be found", "hint: did you mean `build`?"]);
    place.build(&["--no-push", "--platform=nosuch"]).failed(2, &["--platform", "`nosuch`"]);
}

#[test]
fn the_place_is_that_of_the_named_file() {
    let place = Place::new("").file("context/sub/My.Dockerfile", "FROM scratch\n\n\nEXPOSE 99999\n");
    place.build(&["--no-push", "-f", "context/sub/My.Dockerfile"]).failed(3, &["My.Dockerfile:4", "EXPOSE 99999"]);
}

/// A small file system of its own, gone when this is dropped.
struct Small(std::path::PathBuf);

impl Small {
    /// None, said aloud, where this process may not mount.
    fn mount(path: &std::path::Path, mebibytes: u32) -> Option<Small> {
        std::fs::create_dir_all(path).unwrap();
        let options = std::ffi::CString::new(format!("size={mebibytes}m")).unwrap();
        match rustix::mount::mount("none", path, "tmpfs", rustix::mount::MountFlags::empty(), options.as_c_str()) {
            Ok(()) => Some(Small(path.to_owned())),
            Err(errno) => {
                skipped(&format!("could not mount a tmpfs: {errno}"));
                None
            }
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

/// Noise, so that it does not compress.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

#[test]
fn a_full_disk() {
    // Too small for the copy; then for the copy, its tar and its compressed layer together.
    for (file_mebibytes, room_mebibytes) in [(6, 4), (4, 10)] {
        let place =
            Place::new("FROM scratch\nCOPY big /\nCOPY big /again\n").file("context/big", noise(file_mebibytes << 20));
        let Some(_small) = Small::mount(&place.path("work"), room_mebibytes) else { return };
        let ran = place.build(&["--oci-layout-path=out"]);
        ran.failed(6, &["No space left on device"]);
        assert!(!place.path("out/index.json").exists());
        place.assert_clean();
    }
}

#[test]
fn a_full_disk_where_the_image_goes() {
    let place = Place::new("FROM scratch\nCOPY big /\n").file("context/big", noise(2 << 20));
    let Some(_small) = Small::mount(&place.path("out"), 1) else { return };
    for output in ["--oci-layout-path=out/layout", "--tar-path=out/image.tar", "--output=type=local,dest=out/files"] {
        let ran = place.build(&[output]);
        ran.failed(6, &["No space left on device", "out/"]);
        place.assert_clean();
    }
    assert!(!place.path("out/image.tar").exists());
    let partial = std::fs::read_dir(place.path("out"))
        .unwrap()
        .flatten()
        .find(|e| e.file_name().to_string_lossy().contains("partial"));
    assert!(partial.is_none(), "{partial:?}");
}

#[test]
fn a_work_directory_that_cannot_be() {
    let place = Place::new("FROM scratch\n").file("file", "");
    let ran = place.build(&["--no-push", "--work-dir=file/below"]);
    ran.failed(6, &["could not use work directory `file/below`", "hint: choose another one with --work-dir"]);
}
