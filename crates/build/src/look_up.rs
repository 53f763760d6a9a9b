//! What is known of a plan's steps before any of them runs.

use std::collections::HashMap;

use store::Layer;

use crate::plan::{NodeId, Plan};

/// Steps that were carried out before, here or elsewhere.
pub trait Cache: Send + Sync {
    /// The layers that steps of `plan` will have.
    fn look_up(&self, plan: &Plan) -> Hits;
}

/// A cache that knows nothing.
#[derive(Debug)]
pub struct NoCache;

impl Cache for NoCache {
    fn look_up(&self, _: &Plan) -> Hits {
        Hits::default()
    }
}

/// The layers of steps that need not run.
#[derive(Clone, Default)]
pub struct Hits(HashMap<NodeId, Layer>);

impl Hits {
    /// Says what a step of the plan will have. The layer must be what the step would make: nobody checks that.
    pub fn put(&mut self, step: NodeId, layer: Layer) {
        self.0.insert(step, layer);
    }

    pub fn get(&self, step: NodeId) -> Option<&Layer> {
        self.0.get(&step)
    }
}
