//! Clients by how they speak: hosts that need the same certificates share one, and its connections.

use reqwest::Proxy;
use url::Url;

use crate::error::host_and_port;
use crate::{Net, NetError};

/// Registries behind chains of proxies answer with more than a hundred headers (hyper's limit); Go counts bytes alone.
const MAX_HEADERS: usize = 4096;
/// Of all headers together, over HTTP/2 (hyper's limit is 16 KiB, Go's 10 MiB).
const MAX_HEADERS_BYTES: u32 = 1 << 20;

/// What one client is made for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Profile {
    extra: Vec<usize>,
    own: Option<usize>,
    verify: bool,
    /// Bodies of blobs go over HTTP/1.1: parallel connections instead of one shared flow-control window.
    http1: bool,
}

impl Net {
    pub(crate) fn client(&self, url: &Url, http1: bool) -> Result<reqwest::Client, NetError> {
        let host = host_and_port(url);
        let settings = &self.inner.settings;
        let (extra, own) = self.inner.trust.applying_to(&host);
        let verify = !settings.skips_verify(&host);
        let profile = Profile { extra, own, verify, http1: http1 || settings.http1_only };
        let mut clients = self.inner.clients.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(client) = clients.get(&profile) {
            return Ok(client.clone());
        }
        let client = self.make(&profile)?;
        clients.insert(profile, client.clone());
        Ok(client)
    }

    fn make(&self, profile: &Profile) -> Result<reqwest::Client, NetError> {
        let settings = &self.inner.settings;
        let mut tls = self.inner.trust.config(&profile.extra, profile.own, profile.verify)?;
        tls.alpn_protocols = match profile.http1 {
            true => vec![b"http/1.1".to_vec()],
            false => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        };
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(&settings.user_agent)
            .connect_timeout(settings.connect_timeout)
            .http1_max_headers(MAX_HEADERS)
            .http2_max_header_list_size(MAX_HEADERS_BYTES)
            .dns_resolver(self.inner.resolver.clone())
            // Redirects are ours: the next host may need another client.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        if !self.inner.routes.are_all_direct() {
            builder = builder.proxy(self.proxy());
        }
        if profile.http1 {
            builder = builder.http1_only();
        }
        builder.build().map_err(|e| NetError::setup("HTTP client", e))
    }

    fn proxy(&self) -> Proxy {
        let routes = self.inner.routes.clone();
        Proxy::custom(move |url| routes.proxy_for(url).cloned())
    }
}
