//! Layouts: finding and adding images, and layouts that somebody made to harm.

mod common;

use std::io::Read;
use std::path::Path;

use common::{Scratch, files_below, image, layer, linux, read_all, run, tar_of};
use oci::media_type::{DOCKER_MANIFEST, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST};
use oci::{Compression, Descriptor, Digest, Flavor, Platform, Reference};
use zuwai_store::{
    BlobSink, BlobSource, EntryName, Exporter, Image, ImageSource, Layout, LayoutExporter, LayoutSource, StoreError,
    contract,
};

fn simple(layout: &Layout, content: &str, platform: &Platform) -> Image {
    let tar = tar_of(&[("content", content.as_bytes())]);
    image(vec![layer(layout, &tar, Compression::Gzip)], Flavor::Oci, platform)
}

fn write_index(directory: &Path, manifests: &[Descriptor]) {
    let index = serde_json::json!({"schemaVersion": 2, "manifests": manifests});
    std::fs::write(directory.join("index.json"), index.to_string()).unwrap();
}

/// Stores a document and gives its descriptor.
fn put(layout: &Layout, media_type: &str, document: &serde_json::Value) -> Descriptor {
    let bytes = document.to_string().into_bytes();
    let descriptor = Descriptor::new(media_type, Digest::of(&bytes), bytes.len() as u64);
    layout.put(&descriptor, &mut &bytes[..]).unwrap();
    descriptor
}

#[test]
fn an_image_is_found_by_each_of_its_names() {
    let scratch = Scratch::new();
    let layout = scratch.layout();
    let full = Reference::parse("registry.example/acme/app:1.4").unwrap();
    let app = layout.add(&simple(&layout, "app", &linux("amd64")), Some(&EntryName::of(&full))).unwrap();
    let plain = layout.add(&simple(&layout, "plain", &linux("amd64")), Some(&EntryName::plain("v2"))).unwrap();
    let named = EntryName::plain("docker.io/library/tool:latest");
    let tool = layout.add(&simple(&layout, "tool", &linux("amd64")), Some(&named)).unwrap();
    let cases = [
        ("registry.example/acme/app:1.4", &app),
        ("1.4", &app),
        ("v2", &plain),
        ("docker.io/library/tool:latest", &tool),
        ("tool", &tool),
        ("latest", &tool),
        (app.digest.as_str(), &app),
        (&format!("registry.example/acme/app:other@{}", plain.digest), &plain),
    ];
    for (name, expected) in cases {
        let found = layout.find(Some(name), &linux("amd64")).unwrap();
        assert_eq!(found.digest.as_ref(), Some(&expected.digest), "{name}");
    }
    assert_eq!(layout.find(None, &linux("amd64")).unwrap().digest, Some(tool.digest), "`latest` among several");
    let error = layout.find(Some("1.5"), &linux("amd64")).err().unwrap().to_string();
    assert!(error.contains("no image `1.5`; it has registry.example/acme/app:1.4, v2, "), "{error}");
    assert_eq!(layout.image(&full, &linux("amd64")).unwrap().digest, Some(app.digest));
}

#[test]
fn an_image_comes_back_as_it_went_in() {
    let scratch = Scratch::new();
    let layout = scratch.layout();
    for flavor in [Flavor::Oci, Flavor::Docker] {
        let mut written = simple(&layout, "content", &linux("amd64"));
        written.flavor = flavor;
        written.annotations.insert("org.example".to_owned(), "yes".to_owned());
        written.config.config.env.push("PATH=/bin".to_owned());
        let descriptor = layout.add(&written, Some(&EntryName::plain("it"))).unwrap();
        let found = layout.find(Some("it"), &linux("amd64")).unwrap();
        assert_eq!(found.encode(), written.encode());
        assert_eq!(found.encode().manifest_descriptor, descriptor);
        assert_eq!((found.flavor, found.annotations.clone()), (flavor, written.annotations.clone()));
        assert_eq!(found.config.config, written.config.config);
        assert_eq!(
            read_all(found.layers[0].uncompressed()).unwrap(),
            read_all(written.layers[0].uncompressed()).unwrap()
        );
    }
}

#[test]
fn a_name_is_replaced_and_an_image_without_name_kept_once() {
    let scratch = Scratch::new();
    let layout = scratch.layout();
    let name = EntryName::plain("v1");
    layout.add(&simple(&layout, "old", &linux("amd64")), Some(&name)).unwrap();
    let new = layout.add(&simple(&layout, "new", &linux("amd64")), Some(&name)).unwrap();
    let nameless = simple(&layout, "nameless", &linux("amd64"));
    layout.add(&nameless, None).unwrap();
    layout.add(&nameless, None).unwrap();
    let index = layout.index().unwrap();
    assert_eq!(index.manifests.len(), 2);
    assert_eq!(index.manifests[0].digest, new.digest);
}

#[test]
fn the_best_platform_is_taken() {
    let scratch = Scratch::new();
    let layout = scratch.layout();
    let platforms = ["linux/amd64", "linux/arm/v6", "linux/arm/v7", "linux/arm64", "windows/amd64"];
    let mut entries: Vec<Descriptor> = Vec::new();
    for text in platforms {
        let platform = Platform::parse(text).unwrap();
        let mut entry = layout.add(&simple(&layout, text, &platform), None).unwrap();
        entry.platform = Some(platform);
        entries.push(entry);
    }
    let mut attestation = entries[0].clone();
    attestation.annotations =
        Some([("vnd.docker.reference.type".to_owned(), "attestation-manifest".to_owned())].into());
    let shapes = ["one index", "an index in an index", "entries of index.json", "entries without platform"];
    for shape in shapes {
        let mut all = vec![attestation.clone()];
        all.extend(entries.iter().cloned());
        let nested = put(&layout, OCI_INDEX, &serde_json::json!({"schemaVersion": 2, "manifests": all}));
        match shape {
            "one index" => write_index(layout.path(), &[nested]),
            "an index in an index" => {
                let outer = put(&layout, OCI_INDEX, &serde_json::json!({"schemaVersion": 2, "manifests": [nested]}));
                write_index(layout.path(), &[outer]);
            }
            "entries of index.json" => write_index(layout.path(), &all),
            _ => {
                all.iter_mut().for_each(|entry| entry.platform = None);
                write_index(layout.path(), &all);
            }
        }
        for (wanted, expected) in [
            ("linux/amd64", Some("linux/amd64")),
            ("linux/amd64/v3", Some("linux/amd64")),
            ("linux/arm/v7", Some("linux/arm/v7")),
            ("linux/arm/v8", Some("linux/arm/v7")),
            ("linux/arm/v6", Some("linux/arm/v6")),
            ("linux/arm/v5", None),
            ("linux/arm64", Some("linux/arm64")),
            ("linux/s390x", None),
        ] {
            let found = layout.find(None, &Platform::parse(wanted).unwrap());
            match (found, expected) {
                (Ok(found), Some(expected)) => {
                    assert_eq!(found.platform(), Platform::parse(expected).unwrap(), "{shape}: {wanted}");
                }
                (Err(StoreError::Platform { available, .. }), None) => assert_eq!(
                    available, "linux/amd64, linux/arm/v6, linux/arm/v7, linux/arm64, windows/amd64",
                    "{shape}: {wanted}"
                ),
                (found, _) => panic!("{shape}: {wanted}: {:?}", found.map(|image| image.platform())),
            }
        }
    }
}

#[test]
fn one_image_alone_serves_every_platform() {
    let scratch = Scratch::new();
    let layout = scratch.layout();
    layout.add(&simple(&layout, "arm", &linux("arm64")), Some(&EntryName::plain("it"))).unwrap();
    assert_eq!(layout.find(Some("it"), &linux("amd64")).unwrap().platform(), linux("arm64"));
}

#[test]
fn a_named_context_says_path_tag_and_digest() {
    let scratch = Scratch::new();
    let layout = scratch.layout();
    let one = layout.add(&simple(&layout, "one", &linux("amd64")), Some(&EntryName::plain("1"))).unwrap();
    let two = layout.add(&simple(&layout, "two", &linux("amd64")), Some(&EntryName::plain("latest"))).unwrap();
    let path = layout.path().display();
    let any = Reference::parse("ignored").unwrap();
    for (spec, expected) in [
        (format!("{path}"), &two),
        (format!("{path}:1"), &one),
        (format!("{path}@{}", one.digest), &one),
        (format!("{path}:latest@{}", one.digest), &one),
    ] {
        let found = LayoutSource::open(&spec).unwrap().image(&any, &linux("amd64")).unwrap();
        assert_eq!(found.digest.as_ref(), Some(&expected.digest), "{spec}");
    }
    for spec in [format!("{path}@sha256:12"), format!("{path}/none"), String::new()] {
        assert!(LayoutSource::open(&spec).is_err(), "{spec}");
    }
}

#[test]
fn a_blob_that_is_not_what_it_should_be_is_not_stored() {
    let scratch = Scratch::new();
    let layout = scratch.layout();
    let before = files_below(layout.path());
    let right = Descriptor::new(OCI_LAYER_GZIP, Digest::of(b"hello"), 5);
    for wrong in [&b"hellO"[..], b"hell", b"hello ", b"", &[0; 100_000]] {
        let error = layout.put(&right, &mut &*wrong).unwrap_err();
        assert!(matches!(error, StoreError::WrongDigest { .. } | StoreError::WrongSize { .. }), "{error:?}");
        assert!(!layout.contains(&right).unwrap());
        assert!(matches!(layout.open(&right), Err(StoreError::Missing { .. })));
    }
    let endless = layout.put(&right, &mut std::io::repeat(b'h'));
    assert!(matches!(endless, Err(StoreError::WrongSize { .. })));
    assert_eq!(files_below(layout.path()), before);
    layout.put(&right, &mut &b"hello"[..]).unwrap();
    assert!(layout.contains(&right).unwrap());
    let sha512 = Digest::parse(concat!(
        "sha512:9b71d224bd62f3785d96d46ad3ea3d73319bfbc2890caadae2dff72519673ca7",
        "2323c3d99ba5c11d7c7acc6e14b8c5da0c4663475c2e5c3adef46f73bcdec043"
    ));
    let sha512 = Descriptor::new(OCI_LAYER_GZIP, sha512.unwrap(), 5);
    assert!(layout.put(&sha512, &mut &b"hellO"[..]).is_err());
    layout.put(&sha512, &mut &b"hello"[..]).unwrap();
    assert!(layout.contains(&sha512).unwrap());
}

#[test]
fn what_is_no_layout_is_refused() {
    let scratch = Scratch::new();
    let cases: [(&str, &[(&str, &str)]); 5] = [
        ("empty directory", &[]),
        ("no version", &[("oci-layout", "{}"), ("index.json", "{}")]),
        ("other version", &[("oci-layout", r#"{"imageLayoutVersion":"2.0.0"}"#)]),
        ("no JSON", &[("oci-layout", "hello")]),
        ("huge", &[("oci-layout", &" ".repeat(10_000))]),
    ];
    for (name, files) in cases {
        let directory = scratch.path(name);
        std::fs::create_dir(&directory).unwrap();
        for (file, content) in files {
            std::fs::write(directory.join(file), content).unwrap();
        }
        assert!(Layout::open(&directory).is_err(), "{name}");
    }
    assert!(Layout::open(&scratch.path("nowhere")).is_err());
}

#[test]
fn hostile_documents_are_refused() {
    let scratch = Scratch::new();
    let layout = scratch.layout();
    let good = simple(&layout, "good", &linux("amd64")).encode();
    layout.add(&simple(&layout, "good", &linux("amd64")), None).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&good.manifest).unwrap();
    let with = |key: &str, value: serde_json::Value| {
        let mut changed = manifest.clone();
        changed[key] = value;
        changed
    };
    let deep = (0..200).fold(manifest["config"].clone(), |inner, _| serde_json::json!([inner]));
    let cases = [
        ("manifest and index at once", with("manifests", serde_json::json!([]))),
        ("layers missing", with("layers", serde_json::json!([]))),
        ("no layers at all", with("layers", serde_json::Value::Null)),
        ("schema 1", with("schemaVersion", 1.into())),
        (
            "artifact",
            with(
                "config",
                serde_json::json!({"mediaType": "application/vnd.oci.empty.v1+json",
            "digest": good.config_descriptor.digest, "size": good.config_descriptor.size}),
            ),
        ),
        (
            "digest that is a path",
            with(
                "config",
                serde_json::json!({"mediaType": good.config_descriptor.media_type,
            "digest": "sha256:../../../etc/passwd", "size": 10}),
            ),
        ),
        (
            "config of another size",
            with(
                "config",
                serde_json::json!({"mediaType": good.config_descriptor.media_type,
            "digest": good.config_descriptor.digest, "size": 1}),
            ),
        ),
        (
            "config too large",
            with(
                "config",
                serde_json::json!({"mediaType": good.config_descriptor.media_type,
            "digest": good.config_descriptor.digest, "size": 1_u64 << 40}),
            ),
        ),
        (
            "negative size",
            with(
                "config",
                serde_json::json!({"mediaType": good.config_descriptor.media_type,
            "digest": good.config_descriptor.digest, "size": -1}),
            ),
        ),
        (
            "config that is a layer",
            with(
                "config",
                serde_json::json!({"mediaType": good.config_descriptor.media_type,
            "digest": manifest["layers"][0]["digest"], "size": manifest["layers"][0]["size"]}),
            ),
        ),
        ("deep", with("deep", deep)),
        ("null", serde_json::Value::Null),
        ("list", serde_json::json!([])),
    ];
    for (name, document) in cases {
        for media_type in [OCI_MANIFEST, DOCKER_MANIFEST] {
            write_index(layout.path(), &[put(&layout, media_type, &document)]);
            let found = layout.find(None, &linux("amd64"));
            assert!(found.is_err(), "{name}");
        }
    }
    let mut huge = Descriptor::new(OCI_MANIFEST, Digest::of(b"x"), 1 << 40);
    write_index(layout.path(), &[huge.clone()]);
    assert!(layout.find(None, &linux("amd64")).err().unwrap().to_string().contains("more than the"));
    huge.size = 1;
    write_index(layout.path(), &[huge]);
    assert!(matches!(layout.find(None, &linux("amd64")), Err(StoreError::Missing { .. })));
    std::fs::write(layout.path().join("index.json"), " ".repeat(9 << 20)).unwrap();
    assert!(layout.find(None, &linux("amd64")).err().unwrap().to_string().contains("larger than"));
}

/// Indexes cannot contain themselves, but they can be a chain, or a tree that is exponentially large.
#[test]
fn nested_indexes_have_a_limit() {
    let scratch = Scratch::new();
    let layout = scratch.layout();
    let mut inner = layout.add(&simple(&layout, "good", &linux("amd64")), None).unwrap();
    inner.platform = None;
    let width = 300;
    for _ in 0..4 {
        let document = serde_json::json!({"schemaVersion": 2, "manifests": vec![&inner; width]});
        inner = put(&layout, OCI_INDEX, &document);
    }
    write_index(layout.path(), &[inner]);
    let error = layout.find(None, &linux("s390x")).err().unwrap().to_string();
    assert!(error.contains("too deeply or too large"), "{error}");
}

#[test]
fn links_and_other_files_do_not_lead_out() {
    let scratch = Scratch::new();
    std::fs::write(scratch.path("secret"), "secret").unwrap();
    let secret = Descriptor::new(OCI_LAYER_GZIP, Digest::of(b"secret"), 6);
    for place in ["index.json", "oci-layout"] {
        let layout = Layout::create(&scratch.path("linked")).unwrap();
        std::fs::remove_file(layout.path().join(place)).unwrap();
        std::os::unix::fs::symlink(scratch.path("secret"), layout.path().join(place)).unwrap();
        let error = Layout::open(layout.path()).and_then(|layout| layout.index().map(drop)).err().unwrap();
        assert!(matches!(error, StoreError::Io { .. }), "{error:?}");
        std::fs::remove_dir_all(layout.path()).unwrap();
    }
    // A directory link: nothing is written where it leads.
    std::fs::create_dir(scratch.path("outside")).unwrap();
    let layout = Layout::create(&scratch.path("linked")).unwrap();
    std::os::unix::fs::symlink(scratch.path("outside"), layout.path().join("blobs")).unwrap();
    assert!(layout.put(&secret, &mut &b"secret"[..]).is_err());
    assert!(files_below(&scratch.path("outside")).is_empty());
    // A FIFO in place of a blob does not stop us.
    std::fs::remove_file(layout.path().join("blobs")).unwrap();
    std::fs::create_dir_all(layout.path().join("blobs/sha256")).unwrap();
    let blob = layout.path().join("blobs/sha256").join(secret.digest.hex());
    run("mkfifo", &[blob.to_str().unwrap()]);
    assert!(BlobSource::open(&layout, &secret).is_err());
    // A blob that is a link to the right bytes is good (Bazel), and being written it is replaced.
    std::fs::remove_file(&blob).unwrap();
    std::os::unix::fs::symlink(scratch.path("secret"), &blob).unwrap();
    let mut text = String::new();
    BlobSource::open(&layout, &secret).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "secret");
    layout.put(&secret, &mut &b"secret"[..]).unwrap();
    assert!(std::fs::symlink_metadata(&blob).unwrap().is_file());
}

#[test]
fn writers_at_the_same_time_lose_no_entry() {
    let scratch = Scratch::new();
    let path = scratch.path("shared");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let path = &path;
            scope.spawn(move || {
                for round in 0..5 {
                    let layout = Layout::create(path).unwrap();
                    let name = EntryName::plain(&format!("t{thread}-{round}"));
                    layout.add(&simple(&layout, &name.name, &linux("amd64")), Some(&name)).unwrap();
                }
            });
        }
    });
    assert_eq!(Layout::open(&path).unwrap().index().unwrap().manifests.len(), 20);
}

#[test]
fn skopeo_and_umoci_read_a_layout() {
    let scratch = Scratch::new();
    let store = scratch.layout();
    let layers = [Compression::Gzip, Compression::Gzip, Compression::None]
        .iter()
        .enumerate()
        .map(|(number, kind)| layer(&store, &tar_of(&[(&format!("file{number}"), b"content")]), *kind))
        .collect();
    let made = image(layers, Flavor::Oci, &linux("amd64"));
    let out = scratch.path("out");
    let exporter = LayoutExporter::new(&out, vec![EntryName::plain("1"), EntryName::plain("2")]);
    let digest = exporter.export(&made).unwrap();
    let out = out.to_str().unwrap();
    for tag in ["1", "2"] {
        let Some(inspected) = run("skopeo", &["inspect", &format!("oci:{out}:{tag}")]) else { break };
        let inspected: serde_json::Value = serde_json::from_str(&inspected).unwrap();
        assert_eq!(inspected["Digest"], digest.as_str());
        assert_eq!(inspected["Layers"].as_array().unwrap().len(), 3);
    }
    // Copying reads every layer and checks the diff IDs.
    run("skopeo", &["--insecure-policy", "copy", "-q", &format!("oci:{out}:1"), &format!("dir:{out}.dir")]);
    let bundle = scratch.path("bundle");
    let arguments = ["unpack", "--rootless", "--image", &format!("{out}:1"), bundle.to_str().unwrap()];
    if run("umoci", &arguments).is_some() {
        assert_eq!(files_below(&bundle.join("rootfs")), ["file0", "file1", "file2"]);
    }
}

#[test]
fn what_a_killed_process_left_is_removed_and_what_is_being_written_kept() {
    let scratch = Scratch::new();
    let layout = scratch.layout();
    let mut writer = layout.layer_writer(common::compression(Compression::Gzip, 1)).unwrap();
    std::io::Write::write_all(&mut writer, b"content").unwrap();
    std::fs::write(layout.path().join(".partial-1-0"), "abandoned").unwrap();
    let again = scratch.layout();
    assert!(!layout.path().join(".partial-1-0").exists());
    let written = writer.complete().unwrap();
    assert!(again.contains(&written.descriptor).unwrap());
}

/// A process of the same number in another container, or before a crash, has used the same names.
#[test]
fn names_that_are_taken_are_passed_over() {
    let scratch = Scratch::new();
    let layout = scratch.layout();
    let pid = std::process::id();
    for number in 0..5000 {
        std::fs::write(layout.path().join(format!(".partial-{pid}-{number}")), "").unwrap();
    }
    layout.add(&simple(&layout, "content", &linux("amd64")), None).unwrap();
    layout.find(None, &linux("amd64")).unwrap();
}

#[test]
fn a_layout_keeps_the_contract() {
    let scratch = Scratch::new();
    let layout = scratch.layout();
    contract::check_blobs(&layout).unwrap();
    let reference = Reference::parse("acme/app:1").unwrap();
    for flavor in [Flavor::Oci, Flavor::Docker] {
        let image = Image { flavor, ..simple(&layout, "content", &linux("amd64")) };
        let out = scratch.path("out");
        let exporter = LayoutExporter::new(&out, vec![EntryName::of(&reference)]);
        let source = Layout::create(&out).unwrap();
        contract::check_images(&exporter, &source, &reference, &image).unwrap();
    }
}
