//! Why a repository could not be had: for whoever asked, and on the way there.

use std::fmt;
use std::io;

use net::NetError;
use rootfs::RootfsError;

use super::address::Remote;

/// What of a repository could not be had. Its address is shown without a login.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// What was fetched from where, and why that did not work.
    #[error("could not fetch git repository `{remote}`: {reason}")]
    Fetch { remote: String, reason: String, hint: Option<String> },
    #[error("context `{remote}`: `--git=branch=…` and `#…` both name what to check out")]
    TwoReferences { remote: String },
}

impl GitError {
    /// What the user can do, where that is known.
    pub fn hint(&self) -> Option<&str> {
        match self {
            GitError::Fetch { hint, .. } => hint.as_deref(),
            GitError::TwoReferences { .. } => None,
        }
    }
}

/// Why it did not work.
#[derive(Debug)]
pub struct Fault {
    kind: FaultKind,
    reason: String,
    hint: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum FaultKind {
    /// The connection failed or ended: the same may work a moment later.
    Cut,
    /// The server does not give a commit that no reference names.
    Refusal,
    Other,
}

impl Fault {
    /// What the server sent or lacks is at fault.
    pub fn server(reason: impl Into<String>) -> Fault {
        Fault { kind: FaultKind::Other, reason: reason.into(), hint: None }
    }

    pub fn cut(reason: impl Into<String>) -> Fault {
        Fault { kind: FaultKind::Cut, ..Fault::server(reason) }
    }

    /// What the server says, fit to be shown.
    pub fn told(message: &[u8]) -> Fault {
        let text = String::from_utf8_lossy(message);
        let text: String = text.trim().chars().take(400).map(|c| if c.is_control() { ' ' } else { c }).collect();
        let refusal = text.contains("not our ref") || text.contains("unadvertised object");
        let kind = if refusal { FaultKind::Refusal } else { FaultKind::Other };
        Fault { kind, reason: format!("the server says: {text}"), hint: None }
    }

    pub fn hint(self, hint: Option<&str>) -> Fault {
        Fault { hint: hint.map(str::to_owned), ..self }
    }

    pub fn within(self, what: &str) -> Fault {
        Fault { reason: format!("{what}: {}", self.reason), ..self }
    }

    /// As the error of fetching `remote`.
    pub fn of(self, remote: &Remote) -> GitError {
        GitError::Fetch { remote: remote.to_string(), reason: self.reason, hint: self.hint }
    }

    pub fn is_cut(&self) -> bool {
        self.kind == FaultKind::Cut
    }

    pub fn is_refusal(&self) -> bool {
        self.kind == FaultKind::Refusal
    }

    /// Through a reader; [`Fault::from`] gets it back.
    pub fn into_io(self) -> io::Error {
        io::Error::other(self)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Fault {}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        if error.get_ref().is_some_and(|inner| inner.is::<Fault>()) {
            let inner = error.into_inner().and_then(|inner| inner.downcast::<Fault>().ok());
            return inner.map_or_else(|| Fault::server("unknown"), |fault| *fault);
        }
        let transient = net::cause_of(&error).is_some_and(NetError::is_transient)
            || matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset);
        let reason = match error.kind() {
            io::ErrorKind::UnexpectedEof => "the answer ends too early".to_owned(),
            _ => net::chain(&error),
        };
        if transient { Fault::cut(reason) } else { Fault::server(reason) }
    }
}

impl From<NetError> for Fault {
    fn from(error: NetError) -> Fault {
        // Requests have been tried again by then.
        Fault::server(net::chain(&error)).hint(error.hint().as_deref())
    }
}

impl From<RootfsError> for Fault {
    fn from(error: RootfsError) -> Fault {
        Fault::server(net::chain(&error))
    }
}
