//! Images made of a few bytes, as documents and blobs.

use oci::{Descriptor, DiffId, Digest, Flavor, ImageConfig, Index, Manifest, Platform, RootFs, media_type};

/// One image: its documents and its blobs.
#[derive(Clone, Debug)]
pub struct Fixture {
    pub manifest: Vec<u8>,
    pub manifest_type: &'static str,
    /// Config first, then the layers.
    pub blobs: Vec<(Digest, Vec<u8>)>,
    pub platform: Platform,
}

impl Fixture {
    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    /// The digest of layer `index`, bottom first.
    pub fn layer(&self, index: usize) -> &Digest {
        &self.blobs[index + 1].0
    }

    pub fn config(&self) -> &Digest {
        &self.blobs[0].0
    }

    /// Its entry in an index.
    pub fn descriptor(&self) -> Descriptor {
        let mut descriptor = Descriptor::new(self.manifest_type, self.digest(), self.manifest.len() as u64);
        descriptor.platform = Some(self.platform.clone());
        descriptor
    }
}

/// An image of `platform` with uncompressed `layers`, each a tar or whatever bytes a test likes.
pub fn image(layers: &[Vec<u8>], platform: &Platform, flavor: Flavor) -> Fixture {
    let config = ImageConfig {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        rootfs: RootFs { diff_ids: layers.iter().map(|l| DiffId(Digest::of(l))).collect(), ..RootFs::default() },
        ..ImageConfig::default()
    };
    let config = serde_json::to_vec(&config).expect("a config is JSON");
    let describe = |kind: &str, bytes: &[u8]| Descriptor::new(kind, Digest::of(bytes), bytes.len() as u64);
    let layer_type = flavor.layer(media_type::Compression::None).expect("every family has plain layers");
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(flavor.manifest().to_owned()),
        config: describe(flavor.config(), &config),
        layers: layers.iter().map(|l| describe(layer_type, l)).collect(),
        annotations: None,
        extra: Default::default(),
    };
    let blobs = std::iter::once(&config).chain(layers).map(|bytes| (Digest::of(bytes), bytes.clone())).collect();
    Fixture {
        manifest: serde_json::to_vec(&manifest).expect("a manifest is JSON"),
        manifest_type: flavor.manifest(),
        blobs,
        platform: platform.clone(),
    }
}

/// An index of `entries` as JSON.
pub fn index(entries: Vec<Descriptor>) -> Vec<u8> {
    let index = Index {
        schema_version: 2,
        media_type: Some(media_type::OCI_INDEX.to_owned()),
        manifests: entries,
        annotations: None,
        extra: Default::default(),
    };
    serde_json::to_vec(&index).expect("an index is JSON")
}

/// A tar (ustar) of regular files, mode 0644, owned by root, from the epoch. Names are at most 100 bytes.
pub fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, content) in files {
        out.extend_from_slice(&header(name, content.len()));
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

fn header(name: &str, size: usize) -> [u8; 512] {
    let mut block = [0; 512];
    let mut put = |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000644\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{size:011o}\0"));
    put(136, "00000000000\0");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}
