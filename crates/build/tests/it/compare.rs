//! What is different between two images, in words.

use std::sync::Arc;

use oci::{Compression, Descriptor, DiffId, Digest, Flavor, ImageConfig};
use store::{BlobSource, Image, Layer, StoreError};
use zuwai_build::compare::{Comparison, compare};

struct Bytes(Vec<u8>);

impl BlobSource for Bytes {
    fn open(&self, _: &Descriptor) -> Result<Box<dyn std::io::Read + Send>, StoreError> {
        Ok(Box::new(std::io::Cursor::new(self.0.clone())))
    }
}

fn layer(bytes: Vec<u8>) -> Layer {
    let media_type = Flavor::Oci.layer(Compression::None).unwrap();
    let digest = Digest::of(&bytes);
    let descriptor = Descriptor::new(media_type, digest.clone(), bytes.len() as u64);
    Layer { descriptor, diff_id: DiffId(digest), content: Arc::new(Bytes(bytes)), origin: None }
}

fn image(layers: Vec<Vec<u8>>) -> Image {
    let config = ImageConfig { os: "linux".into(), architecture: "amd64".into(), ..ImageConfig::default() };
    let layers = layers.into_iter().map(layer).collect();
    Image { config, layers, flavor: Flavor::Oci, annotations: Default::default(), digest: None }
}

/// Entries written as `KIND MODE UID PATH CONTENT-OR-TARGET`, their time being 7.
fn tar_of(entries: &[&str]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for entry in entries {
        let mut words = entry.splitn(5, ' ');
        let mut word = || words.next().unwrap_or_default();
        let (kind, mode, uid, path, content) = (word(), word(), word(), word(), word());
        let mut header = tar::Header::new_ustar();
        header.set_mode(u32::from_str_radix(mode, 8).unwrap());
        header.set_uid(uid.parse().unwrap());
        header.set_gid(0);
        header.set_mtime(7);
        header.set_entry_type(match kind {
            "f" => tar::EntryType::Regular,
            "d" => tar::EntryType::Directory,
            "l" => tar::EntryType::Symlink,
            _ => tar::EntryType::Link,
        });
        if matches!(kind, "l" | "h") {
            header.set_size(0);
            builder.append_link(&mut header, path, content).unwrap();
        } else {
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, path, content.as_bytes()).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

fn differences(found: &Image, built: &Image) -> (Comparison, Vec<String>) {
    let mut lines = Vec::new();
    let compared = compare(found, built, &mut |difference| {
        lines.push(difference.to_string());
        Ok(())
    });
    (compared.unwrap(), lines)
}

#[test]
fn files_are_compared_whatever_their_order() {
    let found = tar_of(&[
        "d 755 0 d/",
        "f 644 0 d/a one",
        "f 644 0 d/b two",
        "l 777 0 d/l to",
        "f 644 0 gone",
        "h 644 0 h d/a",
    ]);
    let built = tar_of(&[
        "f 644 0 ./d/b two",
        "d 700 5 ./d",
        "f 4755 0 d/a one",
        "l 777 0 d/l away",
        "f 644 0 h one",
        "f 644 0 .wh.x",
    ]);
    let (compared, lines) = differences(&image(vec![found]), &image(vec![built]));
    assert_eq!(compared, Comparison::Different { only_times: false });
    let want = [
        "layer 1:",
        "  d/l: target `to` → `away`",
        "  d: mode 0755 → 0700, owner 0:0 → 5:0",
        "  d/a: mode 0644 → 4755",
        "  h: kind hard link → file, size 0 → 3, target `d/a` → ``, content",
        "  gone: only in the image",
        "  .wh.x: only rebuilt",
    ];
    let mut sorted = lines.clone();
    sorted.sort();
    let mut want: Vec<String> = want.map(str::to_owned).into();
    want.sort();
    assert_eq!(sorted, want);
    assert_eq!(lines[0], "layer 1:");
}

#[test]
fn layers_are_matched_from_both_ends() {
    let [base, top, one, other] = ["base", "top", "one", "other"].map(|name| tar_of(&[&format!("f 644 0 {name} x")]));
    let found = image(vec![base.clone(), one.clone(), top.clone()]);
    let built = image(vec![base.clone(), one.clone(), other, top.clone()]);
    assert_eq!(differences(&found, &built).1, ["layer 3: only rebuilt"]);
    assert_eq!(differences(&built, &found).1, ["layer 3: only in the image"]);
    assert_eq!(differences(&found, &found), (Comparison::Same, vec![]));
    // Compressed otherwise, with a manifest that says so.
    let mut stored = found.clone();
    let bytes = zip(&one);
    stored.layers[1].descriptor =
        Descriptor::new(Flavor::Oci.layer(Compression::Gzip).unwrap(), Digest::of(&bytes), bytes.len() as u64);
    stored.digest = Some(stored.encode().manifest_descriptor.digest);
    let lines = differences(&stored, &found).1;
    assert_eq!(
        lines,
        [format!("layer 2: the same files, stored otherwise: gzip, {} bytes → none, 2048 bytes", bytes.len())]
    );
}

fn zip(bytes: &[u8]) -> Vec<u8> {
    // Any other bytes: they are not read, since the files are the same.
    bytes[..100].to_vec()
}

#[test]
fn times_alone_are_told_apart() {
    let early = tar_of(&["f 644 0 a x"]);
    let mut late = early.clone();
    late[136..147].copy_from_slice(b"00000000011");
    let sum: u32 =
        late[..512].iter().enumerate().map(|(at, &b)| if (148..156).contains(&at) { 32 } else { u32::from(b) }).sum();
    late[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let (mut found, built) = (image(vec![early]), image(vec![late]));
    found.config.created = Some("2020-01-01T00:00:00Z".into());
    let (compared, lines) = differences(&found, &built);
    assert_eq!(compared, Comparison::Different { only_times: true });
    let want = [
        "created: only in the image: \"2020-01-01T00:00:00Z\"",
        "layer 1:",
        "  a: time 1970-01-01T00:00:07Z → 1970-01-01T00:00:09Z",
    ];
    assert_eq!(lines, want);
}

#[test]
fn what_a_terminal_would_obey_is_not_printed() {
    let found = image(vec![tar_of(&["f 644 0 a\u{1b}[2J x"])]);
    let mut built = image(vec![tar_of(&["f 644 0 a\u{1b}[2J y"])]);
    built.config.config.env = vec!["A=\u{9b}x\n".into()];
    let lines = differences(&found, &built).1.concat();
    assert!(lines.contains("a\\u{1b}[2J") && !lines.contains(|c: char| c.is_control()), "{lines:?}");
}

#[test]
fn a_layer_that_is_damaged_or_endless_is_an_error_or_cut_short() {
    let good = image(vec![tar_of(&["f 644 0 a x"])]);
    let mut damaged = image(vec![tar_of(&["f 644 0 a y"])]);
    damaged.layers[0].content = Arc::new(Bytes(tar_of(&["f 644 0 a z"])));
    assert!(compare(&damaged, &good, &mut |_| Ok(())).is_err());
    let names: Vec<String> = (0..60_000).map(|number| format!("f 644 0 {number} ")).collect();
    let many = image(vec![tar_of(&names.iter().map(String::as_str).collect::<Vec<_>>())]);
    assert_eq!(differences(&many, &good).1, ["layer 1:", "  … and more"]);
}
