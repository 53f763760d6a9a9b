//! Why a build ended.

use dockerfile::Span;
use rootfs::RootfsError;
use sandbox::Exit;

/// Where in the Dockerfile something went wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    pub span: Span,
}

#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The Dockerfile asks for something that cannot be.
    #[error("{message}")]
    Dockerfile { message: String, place: Place, hint: Option<String> },
    /// A request that no place in the Dockerfile is to blame for (`--target` names nothing).
    #[error("{message}")]
    Request { message: String, hint: Option<String> },
    #[error("{message}")]
    Run {
        message: String,
        place: Place,
        exit: Exit,
        /// `[stage 2/3] RUN …`
        step: String,
        /// The last lines of what the step printed.
        output: String,
    },
    #[error("{action}")]
    Store { action: String, place: Option<Place>, source: store::StoreError },
    #[error("{action}")]
    Rootfs { action: String, place: Option<Place>, source: rootfs::RootfsError },
    #[error("{action}")]
    Sandbox { action: String, place: Option<Place>, source: sandbox::SandboxError },
    #[error("{action}")]
    Context { action: String, place: Option<Place>, source: context::ContextError },
    #[error("{action}")]
    Io { action: String, source: std::io::Error },
    #[error("cancelled")]
    Cancelled,
    /// Another stage failed first; never the error that is reported.
    #[error("stopped because another stage failed")]
    Stopped,
}

impl BuildError {
    pub(crate) fn dockerfile(span: &Span, message: impl Into<String>) -> BuildError {
        BuildError::Dockerfile { message: message.into(), place: Place { span: span.clone() }, hint: None }
    }

    pub(crate) fn with_hint(self, text: impl Into<String>) -> BuildError {
        match self {
            BuildError::Dockerfile { message, place, .. } => {
                BuildError::Dockerfile { message, place, hint: Some(text.into()) }
            }
            BuildError::Request { message, .. } => BuildError::Request { message, hint: Some(text.into()) },
            other => other,
        }
    }

    /// The error with the trigger of an ONBUILD that it is about, `ONBUILD COPY …`, which no line of the Dockerfile shows. A RUN
    /// that ended names its step anyway.
    pub(crate) fn of_trigger(mut self, trigger: &str) -> BuildError {
        match &mut self {
            BuildError::Dockerfile { message: text, .. }
            | BuildError::Request { message: text, .. }
            | BuildError::Store { action: text, .. }
            | BuildError::Rootfs { action: text, .. }
            | BuildError::Sandbox { action: text, .. }
            | BuildError::Context { action: text, .. }
            | BuildError::Io { action: text, .. } => *text = format!("{trigger}: {text}"),
            BuildError::Run { .. } | BuildError::Cancelled | BuildError::Stopped => {}
        }
        self
    }

    /// Of no instruction's files. What stopping causes is no failure of its own.
    pub(crate) fn rootfs(action: String, source: RootfsError) -> BuildError {
        match source {
            RootfsError::Cancelled => BuildError::Stopped,
            source => BuildError::Rootfs { action, place: None, source },
        }
    }

    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(std::io::Error) -> BuildError {
        let action = action.into();
        move |source| BuildError::Io { action, source }
    }

    /// The place in the Dockerfile, where there is one.
    pub fn place(&self) -> Option<&Place> {
        match self {
            BuildError::Dockerfile { place, .. } | BuildError::Run { place, .. } => Some(place),
            BuildError::Store { place, .. }
            | BuildError::Rootfs { place, .. }
            | BuildError::Sandbox { place, .. }
            | BuildError::Context { place, .. } => place.as_ref(),
            BuildError::Request { .. } | BuildError::Io { .. } | BuildError::Cancelled | BuildError::Stopped => None,
        }
    }
}
