//! A blob's size does not show in the memory of who pushes and pulls it. In a process of its own, whose peak nothing else
//! raises.

use std::io::{self, Read};
use std::sync::Arc;

use auth::Credentials;
use net::{Net, Settings};
use oci::{Descriptor, DiffId, Flavor, Hasher, ImageConfig, Platform, Reference, RootFs, media_type};
use store::{BlobSource, Exporter as _, Image, ImageSource as _, Layer, StoreError, Transfer, TransferObserver};
use testkit::DockerRegistry;
use zuwai_registry::{Registry, RegistrySettings};

const SIZE: u64 = 128 << 20;

/// What a process with this client in it may have at its peak, whatever it transfers.
const MOST_KIB: u64 = 40 << 10;

/// Zeros, none of which is kept.
struct Zeros;

impl BlobSource for Zeros {
    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, StoreError> {
        Ok(Box::new(io::repeat(0).take(blob.size)))
    }
}

struct Silent;

impl TransferObserver for Silent {
    fn transfer(&self, _: &Transfer) {}
}

fn layer(size: u64) -> Layer {
    let mut hasher = Hasher::new();
    io::copy(&mut io::repeat(0).take(size), &mut hasher).unwrap();
    let digest = hasher.finish();
    Layer {
        descriptor: Descriptor::new(media_type::OCI_LAYER, digest.clone(), size),
        diff_id: DiffId(digest),
        content: Arc::new(Zeros),
        origin: None,
    }
}

fn image(layers: Vec<Layer>) -> Image {
    let host = Platform::host();
    let rootfs = RootFs { diff_ids: layers.iter().map(|l| l.diff_id.clone()).collect(), ..RootFs::default() };
    let config = ImageConfig { architecture: host.architecture, os: host.os, rootfs, ..ImageConfig::default() };
    Image { config, layers, flavor: Flavor::Oci, annotations: Default::default(), digest: None }
}

/// The most memory this process has had, in KiB (proc(5), `VmHWM`).
fn peak_memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn a_large_blob_streams() {
    let server = match DockerRegistry::start() {
        Ok(server) => server,
        Err(reason) => {
            eprintln!("SKIPPED: {reason}");
            return;
        }
    };
    let mut settings = Settings::new("zuwai-test");
    settings.plain_http = vec![server.host()];
    let net = Net::new(settings).unwrap();
    let ours = Registry::new(net, Credentials::anonymous(), Arc::new(Silent), RegistrySettings::new());
    let to = Reference::parse(&format!("{}/large:1", server.host())).unwrap();
    // Two that go up at the same time.
    let image = image(vec![layer(SIZE), layer(SIZE - 1)]);
    ours.exporter(to.clone()).export(&image).unwrap();
    let found = ours.image(&to, &Platform::host()).unwrap();
    for layer in &found.layers {
        let mut reader = layer.content.open(&layer.descriptor).unwrap();
        assert_eq!(io::copy(&mut reader, &mut io::sink()).unwrap(), layer.descriptor.size);
    }
    let peak = peak_memory_kib();
    assert!(peak < MOST_KIB, "{peak} KiB for two blobs of {} MiB", SIZE >> 20);
}
