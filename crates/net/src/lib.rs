//! HTTP for the floors above: one place that makes clients, trusts certificates, follows redirects and decides what is
//! tried again.
//!
//! Blocking on the outside; a small runtime is hidden inside (reqwest needs one) and starts with the first request.
//! Bodies stream in both directions through a few hundred kilobytes of memory. This crate knows nothing of registries and
//! reads no environment: proxies, certificates and the cancel flag come in with [`Settings`].

mod body;
mod client;
mod curves;
mod date;
mod dns;
mod error;
mod proxy;
mod redirect;
mod request;
mod retry;
mod settings;
mod tls;
mod verify;
mod x509;

pub use date::parse_date;
pub use dns::{LookupError, NameFiles};
pub use error::{Kind, NetError, cause_of, chain, display_url, is_cancelled};
pub use request::{Body, Open, Request, Response};
pub use settings::{Proxies, Settings, SystemCertificates};

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// How often the cancel flag is looked at while something is waited for.
const CANCEL_POLL: Duration = Duration::from_millis(50);

/// Clients per host, and the runtime they run on. Cheap to clone.
#[derive(Clone)]
pub struct Net {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    trust: tls::Trust,
    routes: Arc<proxy::Routes>,
    resolver: dns::Resolver,
    clients: Mutex<HashMap<client::Profile, reqwest::Client>>,
    runtime: OnceLock<Running>,
}

/// The runtime, driven by a thread of its own until this is dropped.
struct Running {
    handle: Handle,
    _end: oneshot::Sender<()>,
}

impl Net {
    /// Reads the certificate files that `settings` names; starts nothing and connects to nothing.
    ///
    /// # Errors
    /// [`NetError::Setup`] when a certificate, key or proxy address cannot be used, naming it.
    pub fn new(settings: Settings) -> Result<Net, NetError> {
        let routes = Arc::new(proxy::Routes::new(&settings.proxies)?);
        let trust = tls::Trust::load(&settings)?;
        let resolver = dns::Resolver::new(settings.name_files.clone());
        let inner = Inner { settings, trust, routes, resolver, clients: Mutex::default(), runtime: OnceLock::new() };
        Ok(Net { inner: Arc::new(inner) })
    }

    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// Downloads `url` as a stream: retries, redirects, and the caller's `headers` kept from other hosts.
    ///
    /// Any final status is `Ok`; only the absence of an answer is an error.
    pub fn get(&self, url: &str, headers: &[(String, String)]) -> Result<Response, NetError> {
        let request = headers.iter().try_fold(Request::get(url), |request, (name, value)| request.header(name, value));
        self.send(&request?)
    }

    /// Whether the user asked to stop.
    pub fn cancelled(&self) -> bool {
        self.inner.settings.cancel.load(Ordering::Relaxed)
    }

    /// Sleeps, in vain when the user asks to stop.
    ///
    /// # Errors
    /// [`NetError::Cancelled`]
    pub fn sleep(&self, duration: Duration) -> Result<(), NetError> {
        let until = std::time::Instant::now() + duration;
        loop {
            if self.cancelled() {
                return Err(NetError::Cancelled);
            }
            let left = until.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(CANCEL_POLL));
        }
    }

    /// Runs `future` on the hidden runtime until it is done or the user asks to stop. Not to be called from within it.
    ///
    /// # Errors
    /// [`NetError::Cancelled`]; [`NetError::Setup`] when the runtime does not start.
    pub fn block_on<F: Future>(&self, future: F) -> Result<F::Output, NetError> {
        let cancelled = async {
            while !self.cancelled() {
                tokio::time::sleep(CANCEL_POLL).await;
            }
        };
        self.runtime()?.block_on(async {
            tokio::select! {
                output = future => Ok(output),
                () = cancelled => Err(NetError::Cancelled),
            }
        })
    }

    /// The addresses of `host`, for connections that are not HTTP; their port is 0.
    ///
    /// # Errors
    /// [`NetError::Name`] when it has none; [`NetError::Cancelled`].
    pub fn look_up(&self, host: &str) -> Result<Vec<std::net::SocketAddr>, NetError> {
        let found = self.block_on(self.inner.resolver.look_up(host))?;
        found.map_err(|source| NetError::Name { host: host.to_owned(), source })
    }

    /// Starts the thread that connections are served by. Done at the first request otherwise.
    ///
    /// # Errors
    /// [`NetError::Setup`]
    pub fn start(&self) -> Result<(), NetError> {
        self.runtime().map(drop)
    }

    fn runtime(&self) -> Result<&Handle, NetError> {
        if let Some(running) = self.inner.runtime.get() {
            return Ok(&running.handle);
        }
        let made = self.drive().map_err(|error| NetError::setup("the network thread", error))?;
        Ok(&self.inner.runtime.get_or_init(|| made).handle)
    }

    /// The thread is ours rather than the runtime's, which panics where there is none to be had.
    fn drive(&self) -> std::io::Result<Running> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel();
        let drive = move || {
            let _ = runtime.block_on(ended);
            // A name look-up that hangs in the resolver would otherwise hold up the exit.
            runtime.shutdown_background();
        };
        spawn::thread("net", &|| self.cancelled(), drive)?;
        Ok(Running { handle, _end: end })
    }
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Net").finish_non_exhaustive()
    }
}
