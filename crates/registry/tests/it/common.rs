//! Images, registries and observers for the tests here.

use std::io::{self, Read};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use auth::{Credentials, Login, Secret};
use net::{Net, Settings};
use oci::media_type::Compression;
use oci::{Descriptor, DiffId, Digest, Flavor, ImageConfig, Platform, Reference, RootFs};
use store::{BlobSource, Image, ImageSource as _, Layer, StoreError, Transfer, TransferObserver};
use testkit::FakeRegistry;
use testkit::fixture::{self, Fixture};
use zuwai_registry::{FailureKind, Registry, RegistrySettings, failure};

/// Keeps what it is told.
#[derive(Default)]
pub struct Heard(pub Mutex<Vec<Transfer>>);

impl TransferObserver for Heard {
    fn transfer(&self, transfer: &Transfer) {
        self.0.lock().unwrap().push(transfer.clone());
    }
}

impl Heard {
    pub fn states(&self, what: &str) -> Vec<store::TransferState> {
        self.0.lock().unwrap().iter().filter(|t| t.what == what).map(|t| t.state.clone()).collect()
    }
}

/// Plain HTTP to `hosts`, and no long waits.
pub fn settings(hosts: &[&str]) -> Settings {
    let mut settings = Settings::new("zuwai-test");
    settings.plain_http = hosts.iter().map(|h| (*h).to_owned()).collect();
    settings.backoff = Duration::from_millis(2);
    settings.idle_timeout = Duration::from_secs(5);
    settings
}

pub fn registry(host: &str) -> Registry {
    registry_with(&[host], Credentials::anonymous())
}

pub fn registry_with(hosts: &[&str], credentials: Credentials) -> Registry {
    registry_from(settings(hosts), credentials, RegistrySettings::new())
}

pub fn registry_from(settings: Settings, credentials: Credentials, how: RegistrySettings) -> Registry {
    Registry::new(Net::new(settings).unwrap(), credentials, Arc::new(Heard::default()), how)
}

#[expect(clippy::print_stderr, reason = "a skipped check is said aloud")]
pub fn skipped(reason: &str) {
    eprintln!("SKIPPED: {reason}");
}

pub fn reference(host: &str, rest: &str) -> Reference {
    Reference::parse(&format!("{host}/{rest}")).unwrap()
}

struct Bytes(Vec<u8>);

impl BlobSource for Bytes {
    fn open(&self, _: &Descriptor) -> Result<Box<dyn Read + Send>, StoreError> {
        Ok(Box::new(io::Cursor::new(self.0.clone())))
    }
}

pub fn bytes_layer(bytes: &[u8], flavor: Flavor) -> Layer {
    let media_type = flavor.layer(Compression::None).unwrap();
    let digest = Digest::of(bytes);
    Layer {
        descriptor: Descriptor::new(media_type, digest.clone(), bytes.len() as u64),
        diff_id: DiffId(digest),
        content: Arc::new(Bytes(bytes.to_vec())),
        origin: None,
    }
}

pub fn image_of(flavor: Flavor, layers: Vec<Layer>) -> Image {
    let host = Platform::host();
    let config = ImageConfig {
        architecture: host.architecture,
        os: host.os,
        rootfs: RootFs { diff_ids: layers.iter().map(|l| l.diff_id.clone()).collect(), ..RootFs::default() },
        ..ImageConfig::default()
    };
    Image { config, layers, flavor, annotations: Default::default(), digest: None }
}

pub fn content(layer: &Layer) -> Vec<u8> {
    let mut bytes = Vec::new();
    layer.content.open(&layer.descriptor).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

pub fn tiny() -> Fixture {
    fixture::image(&[fixture::tar(&[("a", b"one")]), vec![7; 100_000]], &Platform::host(), Flavor::Oci)
}

/// A fake with the image `base:1`.
pub fn with_base() -> (FakeRegistry, Fixture, Reference) {
    let server = FakeRegistry::start();
    let image = tiny();
    server.add("base", "1", &image);
    let base = reference(&server.host(), "base:1");
    (server, image, base)
}

pub fn one_layer(bytes: &[u8]) -> Image {
    image_of(Flavor::Oci, vec![bytes_layer(bytes, Flavor::Oci)])
}

pub fn pull(registry: &Registry, from: &Reference) -> Result<Image, StoreError> {
    registry.image(from, &Platform::host())
}

pub fn kind(error: &StoreError) -> Option<FailureKind> {
    failure(error).map(|f| f.kind)
}

pub fn logged_in(host: &str, user: &str, password: &str) -> Credentials {
    let mut credentials = Credentials::anonymous();
    let login = Login::Basic { username: user.to_owned(), password: Secret::new(password) };
    credentials.add_login(host, login, "`test.json`");
    credentials
}
