//! Why a build ended.

use std::error::Error;
use std::io;

use dockerfile::Span;
use rootfs::RootfsError;
use sandbox::{Exit, SandboxError};
use spawn::NoneLeft;

use crate::user::UserError;

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

/// Who is to blame, for exit codes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorKind {
    /// The Dockerfile, its context, or what was asked for of them.
    Dockerfile,
    /// A step's program.
    Run,
    /// A registry, or an image that is damaged.
    Image,
    /// The machine: its disk is full, it has no processes left, it cannot isolate a step.
    Host,
    /// Nobody: somebody ended the build.
    Cancelled,
    /// This program.
    Bug,
}

/// Whether the machine is to blame wherever the error shows: the disk is full, or there are no more processes.
pub fn is_the_hosts(error: &(dyn Error + 'static)) -> bool {
    let full = |error: &io::Error| {
        matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ReadOnlyFilesystem
        )
    };
    let chain = std::iter::successors(Some(error), |error| (*error).source());
    NoneLeft::is_cause_of(error) || chain.filter_map(|error| error.downcast_ref()).any(full)
}

impl BuildError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            error if is_the_hosts(error) => ErrorKind::Host,
            BuildError::Dockerfile { .. } | BuildError::Request { .. } | BuildError::Context { .. } => {
                ErrorKind::Dockerfile
            }
            BuildError::Run { .. } => ErrorKind::Run,
            BuildError::Sandbox { source: SandboxError::Start { .. }, .. } => ErrorKind::Run,
            BuildError::Sandbox { source: SandboxError::MountPoint { .. }, .. } => ErrorKind::Dockerfile,
            BuildError::Sandbox { .. } => ErrorKind::Host,
            BuildError::Store { .. } => ErrorKind::Image,
            // No instruction's: of a base image that is damaged, or of the builder's own files.
            BuildError::Rootfs { place: None, source: RootfsError::Io { .. } | RootfsError::Write(_), .. } => {
                ErrorKind::Host
            }
            BuildError::Rootfs { place: None, .. } => ErrorKind::Image,
            BuildError::Rootfs { .. } => ErrorKind::Dockerfile,
            BuildError::Io { .. } => ErrorKind::Host,
            BuildError::Cancelled => ErrorKind::Cancelled,
            BuildError::Stopped => ErrorKind::Bug,
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        let own = match self {
            BuildError::Dockerfile { hint, .. } | BuildError::Request { hint, .. } => hint.clone(),
            BuildError::Store { source, .. } => source.hint().map(str::to_owned),
            BuildError::Context { source, .. } => source.hint(),
            BuildError::Sandbox { source, .. } => source.hint().map(str::to_owned),
            BuildError::Run { .. }
            | BuildError::Rootfs { .. }
            | BuildError::Io { .. }
            | BuildError::Cancelled
            | BuildError::Stopped => None,
        };
        own.or_else(|| NoneLeft::is_cause_of(self).then(|| NoneLeft::HINT.to_owned()))
    }

    /// A user that the image does not have is the Dockerfile's fault; files of it that cannot be read are not.
    pub(crate) fn user(span: &Span, error: UserError) -> BuildError {
        match error {
            UserError::Rootfs { file, source } => BuildError::Rootfs {
                action: format!("could not read `{file}` of the image"),
                place: Some(Place { span: span.clone() }),
                source,
            },
            error @ (UserError::Unknown { .. } | UserError::Range { .. }) => {
                BuildError::dockerfile(span, error.to_string())
            }
        }
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever was being done, a full disk is the machine's, with an instruction to point at or without.
    #[test]
    fn a_full_disk_is_no_fault_of_the_dockerfile() {
        let full = || RootfsError::Io {
            action: "could not make the directory",
            path: "/d".into(),
            source: io::Error::from(io::ErrorKind::StorageFull),
        };
        let place = Some(Place { span: 0..7 });
        let action = "could not make working directory `/d`".to_owned();
        for error in [
            BuildError::Rootfs { action: action.clone(), place: place.clone(), source: full() },
            BuildError::Rootfs { action, place: None, source: full() },
            BuildError::user(&(0..7), UserError::Rootfs { file: "/etc/passwd", source: full() }),
        ] {
            assert_eq!(error.kind(), ErrorKind::Host, "{error}");
        }
        let unknown = UserError::Unknown { kind: "user", name: "x".into(), file: "/etc/passwd" };
        assert_eq!(BuildError::user(&(0..7), unknown).kind(), ErrorKind::Dockerfile);
    }
}
