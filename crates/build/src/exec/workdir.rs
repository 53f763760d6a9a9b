//! WORKDIR carried out.

use std::path::Path;

use rootfs::Tree;
use rootfs::copy::CopyError;

use super::Execution;
use crate::plan::Step;
use crate::{BuildError, user};

impl Execution<'_> {
    pub(super) fn workdir(&self, step: &Step, path: &str, user: &str, tree: &Tree) -> Result<(), BuildError> {
        let owner = match user {
            "" => None,
            user => Some(user::resolve_owner_or_root(tree, user).map_err(|error| BuildError::user(&step.span, error))?),
        };
        let made = self.plan.source_date_epoch;
        rootfs::copy::make_dirs_at(tree, Path::new(path), owner, made).map_err(|error| match error {
            CopyError::Rootfs(source) => {
                self.rootfs_error(&format!("could not make working directory `{path}`"), step, source)
            }
            error => BuildError::dockerfile(&step.span, format!("could not make working directory `{path}`: {error}")),
        })
    }
}
