//! HTTP for the floors above: one place that makes clients, trusts certificates, follows redirects and decides what is
//! tried again.
//!
//! Blocking on the outside; a small runtime is hidden inside (reqwest needs one) and starts with the first request.
//! Bodies stream in both directions through a few hundred kilobytes of memory. This crate knows nothing of registries and
//! reads no environment: proxies, certificates and the cancel flag come in with [`Settings`].

mod body;
mod client;
mod date;
mod error;
mod redirect;
mod request;
mod retry;
mod settings;
mod tls;

pub use date::parse_date;
pub use error::{Kind, NetError, cause_of, is_cancelled};
pub use request::{Body, Open, Request, Response};
pub use settings::{Proxies, Settings};

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::runtime::Runtime;

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
    clients: Mutex<HashMap<client::Profile, reqwest::Client>>,
    runtime: OnceLock<Runtime>,
}

impl Net {
    /// Reads the certificate files that `settings` names; starts nothing and connects to nothing.
    ///
    /// # Errors
    /// [`NetError::Setup`] when a certificate, key or proxy address cannot be used, naming it.
    pub fn new(settings: Settings) -> Result<Net, NetError> {
        client::check_proxies(&settings)?;
        let trust = tls::Trust::load(&settings)?;
        let inner = Inner { settings, trust, clients: Mutex::default(), runtime: OnceLock::new() };
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

    fn runtime(&self) -> Result<&Runtime, NetError> {
        if let Some(runtime) = self.inner.runtime.get() {
            return Ok(runtime);
        }
        let made = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("net")
            .enable_all()
            .build()
            .map_err(|e| NetError::setup("network threads", e))?;
        Ok(self.inner.runtime.get_or_init(|| made))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A name look-up that hangs in the resolver would otherwise hold up the exit.
            runtime.shutdown_background();
        }
    }
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Net").finish_non_exhaustive()
    }
}
