//! Where steps take files from.

use std::sync::Arc;

use context::{Context, Ignore};
use rootfs::Tree;
use rootfs::copy::{Everything, Filter};

use super::Execution;
use crate::BuildError;
use crate::plan::Source;
use crate::request::NamedContext;

/// A tree that a step takes files from.
pub struct SourceTree {
    pub tree: Arc<Tree>,
    /// For messages: `the build context`, `stage x`.
    pub name: String,
    pub ignore: Option<Ignore>,
    /// Owners mean something (a stage), or not (a context).
    pub keep_owner: bool,
}

impl SourceTree {
    fn of_context(context: &Context, name: String) -> SourceTree {
        SourceTree { tree: context.tree.clone(), name, ignore: Some(context.ignore.clone()), keep_owner: false }
    }

    pub fn filter(&self) -> &dyn Filter {
        match &self.ignore {
            Some(ignore) => ignore,
            None => &Everything,
        }
    }
}

impl Execution<'_> {
    /// The tree that a source means. Its node is done.
    pub(super) fn source_tree(&self, source: &Source) -> Result<SourceTree, BuildError> {
        match source {
            Source::Context => {
                Ok(SourceTree::of_context(&self.request.backends.context, "the build context".to_owned()))
            }
            Source::Named(name) => match &self.request.backends.contexts[name] {
                NamedContext::Directory(context) => {
                    Ok(SourceTree::of_context(context, format!("the named context `{name}`")))
                }
                NamedContext::Image { .. } => unreachable!("a named image is a stage in the plan"),
            },
            Source::Stage(id) => {
                let name = format!("stage `{}`", self.plan.stage(*id).name);
                let rootfs = self.snapshot(self.plan.last(*id)).rootfs.clone();
                #[expect(clippy::expect_used, reason = "the scheduler's promise")]
                let tree = rootfs.expect("what a step needs is there").tree();
                Ok(SourceTree { tree, name, ignore: None, keep_owner: true })
            }
            Source::Empty => {
                let tree = Arc::new(self.make_tree(&self.new_file("empty"))?);
                Ok(SourceTree { tree, name: "scratch".to_owned(), ignore: None, keep_owner: true })
            }
        }
    }
}
