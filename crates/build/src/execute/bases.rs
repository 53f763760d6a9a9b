//! The files of a base image, which are unpacked once for all the stages that stand on it.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use oci::Digest;

use super::Execution;
use super::files::Files;
use crate::BuildError;
use crate::plan::{Base, BaseImage, Stage, StageId};

/// By the digests of their layers.
pub type Bases = HashMap<Vec<Digest>, State>;

pub enum State {
    /// Somebody unpacks it.
    Begun,
    /// Its files, and how many stages have not come for them yet. None: the last one has taken them.
    Done(Option<Arc<Files>>, usize),
}

fn key(base: &BaseImage) -> Vec<Digest> {
    base.image.layers.iter().map(|layer| layer.descriptor.digest.clone()).collect()
}

impl Execution<'_> {
    /// The files of a base that several stages need; none where one stage alone does.
    pub(super) fn shared_base(
        &self,
        id: StageId,
        stage: &Stage,
        base: &BaseImage,
    ) -> Result<Option<Arc<Files>>, BuildError> {
        let key = key(base);
        let same = |other: &Stage| matches!(&other.base, Base::Image(base) if self::key(base) == key);
        let stages = (0..self.plan.stages.len()).map(StageId).filter(|id| self.needs_files(*id));
        let users: Vec<&Stage> = stages.map(|id| self.plan.stage(id)).filter(|other| same(other)).collect();
        if users.len() < 2 {
            return Ok(None);
        }
        let mut board = self.board();
        loop {
            match board.bases.get(&key) {
                None => break,
                Some(State::Done(files, _)) => return Ok(files.clone()),
                Some(State::Begun) if self.stopped() => return Err(BuildError::Stopped),
                Some(State::Begun) => board = self.changed.wait(board).unwrap_or_else(PoisonError::into_inner),
            }
        }
        let directory = self.request.work.join("bases").join(board.bases.len().to_string());
        board.bases.insert(key.clone(), State::Begun);
        drop(board);
        let is_layered = users.iter().any(|user| user.layered);
        let files = self.unpacking(id, stage, || {
            let files = self.new_files(&directory, is_layered)?;
            self.fill(&files.tree(), stage)?;
            Ok(files)
        })?;
        self.board().bases.insert(key, State::Done(Some(files.clone()), users.len()));
        self.changed.notify_all();
        Ok(Some(files))
    }

    /// Where nobody can stand on the files of a base each stage copies them, but the last: it has them if nobody copies any more.
    pub(super) fn take_base(&self, base: &BaseImage, files: Arc<Files>) -> Result<Arc<Files>, Arc<Files>> {
        let mut board = self.board();
        if let Some(State::Done(kept, left)) = board.bases.get_mut(&key(base)) {
            *left -= 1;
            if *left == 0 {
                *kept = None;
                return Arc::try_unwrap(files).map(Arc::new);
            }
        }
        Err(files)
    }
}
