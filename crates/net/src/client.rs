//! Clients by how they speak: hosts that need the same certificates share one, and its connections.

use reqwest::{NoProxy, Proxy};
use url::Url;

use crate::error::host_and_port;
use crate::{Net, NetError, Settings};

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
            // Redirects are ours: the next host may need another client.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        if profile.http1 {
            builder = builder.http1_only();
        }
        for proxy in proxies(settings)? {
            builder = builder.proxy(proxy);
        }
        builder.build().map_err(|e| NetError::setup("HTTP client", e))
    }
}

/// Finds a wrong proxy address before the first request does.
pub(crate) fn check_proxies(settings: &Settings) -> Result<(), NetError> {
    proxies(settings).map(drop)
}

type Make = fn(&str) -> reqwest::Result<Proxy>;

fn proxies(settings: &Settings) -> Result<Vec<Proxy>, NetError> {
    let given = &settings.proxies;
    let direct = given.no_proxy.as_deref().and_then(NoProxy::from_string);
    let kinds: [(&Option<String>, Make); 3] = [
        (&given.http, |url| Proxy::http(url)),
        (&given.https, |url| Proxy::https(url)),
        (&given.all, |url| Proxy::all(url)),
    ];
    let mut made = Vec::new();
    for (url, make) in kinds {
        let Some(url) = url.as_deref().filter(|url| !url.is_empty()) else { continue };
        let shown = || format!("proxy `{}`", crate::error::display_url(url));
        made.push(make(url).map_err(|e| NetError::setup(shown(), e.without_url()))?.no_proxy(direct.clone()));
    }
    Ok(made)
}
