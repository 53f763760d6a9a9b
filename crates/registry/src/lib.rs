//! Registries: the distribution-spec's protocol as a place that images come from and go to.
//!
//! Written against OCI distribution-spec 1.1 and Docker's token specification, and to what real registries do. This crate
//! does not know what an image is for, and takes its logins from `auth`. Everything blocks; uploads run
//! in threads of their own, so that they overlap whatever the caller does meanwhile.

mod blob;
mod challenge;
mod client;
mod exporter;
mod failure;
mod host;
mod mirror;
mod pull;
mod token;
mod upload;

use std::sync::Arc;

use auth::Credentials;
use net::Net;
use oci::Reference;
use store::{StoreError, TransferObserver};

pub use challenge::Challenge;
pub use exporter::RegistryExporter;
pub use failure::{Failure, FailureKind, failure};

use client::{Client, Place};

/// How registries are used.
#[derive(Clone, Debug)]
pub struct RegistrySettings {
    /// Where to pull from instead, tried in order: `(source, destination)` such as `("docker.io", "mirror.example/hub")`.
    /// The source is a registry or a prefix of `registry/repository`; the rest of the name is put behind the destination.
    pub maps: Vec<(String, String)>,
    /// Fail when none of the places in `maps` has the image instead of asking the registry that the reference names.
    pub skip_fallback: bool,
    /// Take plain HTTP from registries at private addresses (RFC 1918) and in `.local` that have no HTTPS, as kaniko does. From
    /// those on this machine it is always taken.
    pub plain_http_to_private_hosts: bool,
    /// How many blobs are uploaded at the same time.
    pub parallel_uploads: usize,
}

impl RegistrySettings {
    pub fn new() -> RegistrySettings {
        RegistrySettings {
            maps: Vec::new(),
            skip_fallback: false,
            plain_http_to_private_hosts: false,
            parallel_uploads: 4,
        }
    }
}

impl Default for RegistrySettings {
    fn default() -> RegistrySettings {
        RegistrySettings::new()
    }
}

/// All registries, with what is known of each: tokens, schemes, blobs that are there. Cheap to clone; clones share it.
#[derive(Clone)]
pub struct Registry {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    observer: Arc<dyn TransferObserver>,
    settings: RegistrySettings,
    uploads: exporter::Uploads,
}

impl Registry {
    pub fn new(
        net: Net,
        credentials: Credentials,
        observer: Arc<dyn TransferObserver>,
        settings: RegistrySettings,
    ) -> Registry {
        let uploads = exporter::Uploads::new(settings.parallel_uploads);
        let client = Client::new(net, credentials, settings.plain_http_to_private_hosts);
        Registry { shared: Arc::new(Shared { client, observer, settings, uploads }) }
    }

    /// A way to push to `reference`. Exporters of one `Registry` share what they have uploaded.
    pub fn exporter(&self, reference: Reference) -> RegistryExporter {
        RegistryExporter::new(self.clone(), reference)
    }

    /// Finds out before a build whether its result could be pushed to `reference`: starts an upload and cancels it.
    ///
    /// # Errors
    /// [`StoreError::Remote`] with what the registry said and where the credentials came from.
    pub fn check_push_permission(&self, reference: &Reference) -> Result<(), StoreError> {
        let place = Place::new(&reference.registry, &reference.repository);
        upload::check_permission(&self.shared.client, &place).map_err(|f| f.during("get permission to push to", place))
    }
}
