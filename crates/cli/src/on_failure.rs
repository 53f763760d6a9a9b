//! `--on-failure`: what is done with the rootfs of a RUN that failed.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use build::{BuildError, Failed, FilesOutput, OnFailure};
use oci::Reference;
use registry::RegistryExporter;
use sandbox::Exit;

use crate::progress::Shown;
use crate::report::{self, Failure};
use crate::terminal;

/// What was asked for.
pub enum Choice {
    Shell,
    Keep,
    Export(PathBuf),
    Push(Reference),
}

impl Choice {
    /// # Errors
    /// For anything else, and for a shell where there is no terminal.
    pub fn parse(word: &str) -> Result<Choice, Failure> {
        let bad = |what: &str| Failure::usage(format!("`--on-failure {word}`: {what}"));
        match word.split_once('=') {
            None if word == "shell" && terminal::is_there() => Ok(Choice::Shell),
            None if word == "shell" => Err(Failure::Usage {
                message: format!("`--on-failure {word}`: standard input and standard error are no terminal"),
                hint: Some("`keep`, `export=DIR` and `push=REFERENCE` need none".to_owned()),
            }),
            None if word == "keep" => Ok(Choice::Keep),
            Some(("export", path)) if !path.is_empty() => Ok(Choice::Export(path.into())),
            Some(("push", reference)) => match Reference::parse(reference) {
                Ok(reference) if reference.digest.is_none() => Ok(Choice::Push(reference)),
                Ok(_) => Err(bad("an image cannot be pushed to a digest, give a tag")),
                Err(error) => Err(bad(&error.to_string())),
            },
            _ => Err(bad("expected shell, keep, export=DIR, export=FILE.tar or push=REFERENCE")),
        }
    }
}

/// What is to be said when the build has ended.
#[derive(Default)]
pub struct Notes(Mutex<Vec<String>>);

impl Notes {
    fn add(&self, note: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(note);
    }

    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A shell where the step ran.
pub struct Shell {
    pub shown: Arc<dyn Shown>,
}

impl OnFailure for Shell {
    fn failed(&self, failed: &Failed<'_>) -> Result<(), BuildError> {
        self.shown.pause();
        let text = format!(
            "{} in step {}{}\na shell where it ran; `exit` ends it and the build",
            report::visible(failed.message),
            report::visible(failed.step),
            report::indented(failed.output)
        );
        let term = std::env::var("TERM").ok().filter(|_| !failed.has_variable("TERM"));
        let term = term.map(|term| format!("TERM={term}").into()).into_iter().collect();
        let mut ended = Ok(Exit::Code(0));
        terminal::with_shell(&text, |path| ended = failed.run_on_terminal(&["/bin/sh", "-i"], term, path))
            .map_err(|source| BuildError::Io { action: "could not open a terminal for a shell".to_owned(), source })?;
        ended.map(|_| ())
    }
}

/// The files stay, in a directory of their own.
pub struct Keep {
    pub directory: PathBuf,
    pub notes: Arc<Notes>,
}

impl OnFailure for Keep {
    fn failed(&self, failed: &Failed<'_>) -> Result<(), BuildError> {
        let io = |source| BuildError::Io {
            action: format!("could not make a directory in `{}`", self.directory.display()),
            source,
        };
        std::fs::create_dir_all(&self.directory).map_err(io)?;
        let kept = tempfile::Builder::new().prefix("step-").tempdir_in(&self.directory).map_err(io)?;
        let rootfs = kept.path().join("rootfs");
        failed.write_files(&FilesOutput::Directory(rootfs.clone()))?;
        let _ = kept.keep();
        let path = rootfs.display();
        self.notes.add(format!(
            "the files of the failed step are kept in `{path}`\n  \
             look into them: `ls -l {path}`, or as root `chroot {path} /bin/sh`; remove them when done"
        ));
        Ok(())
    }
}

/// The files go where the user says: into a tar, or into a directory.
pub struct Export {
    pub path: PathBuf,
    pub notes: Arc<Notes>,
}

impl OnFailure for Export {
    fn failed(&self, failed: &Failed<'_>) -> Result<(), BuildError> {
        let is_tar = self.path.extension().is_some_and(|extension| extension == "tar") && !self.path.is_dir();
        let path = self.path.clone();
        failed.write_files(&if is_tar { FilesOutput::TarFile(path) } else { FilesOutput::Directory(path) })?;
        self.notes.add(format!("the files of the failed step are in `{}`", self.path.display()));
        Ok(())
    }
}

/// The rootfs becomes an image in a registry.
pub struct Push {
    pub exporter: RegistryExporter,
    pub reference: Reference,
    pub notes: Arc<Notes>,
}

impl OnFailure for Push {
    fn failed(&self, failed: &Failed<'_>) -> Result<(), BuildError> {
        let digest = failed.export(&self.exporter)?;
        let reference = &self.reference;
        self.notes.add(format!(
            "the failed step is pushed as `{reference}` ({digest})\n  look into it: `docker run --rm -it {reference} /bin/sh`"
        ));
        Ok(())
    }
}
