//! The road of a build: plan, look up, execute, assemble, export.
//!
//! [`build`] is its table of contents. Back-ends (isolation, registries, contexts) come in as values of [`Request`]; what
//! happens goes out as [`Event`]s. Nothing here reads flags or the environment, and nothing prints.

mod assemble;
pub mod compare;
mod env;
mod error;
mod event;
mod exec;
mod failure;
mod layers;
mod lines;
mod look_up;
mod mount;
pub mod plan;
mod request;
mod schedule;
mod scratch;
pub mod user;

pub use error::{BuildError, ErrorKind, Place, is_the_hosts};
pub use event::{Event, Observer, Preparing, StepId, StepOutcome};
pub use exec::Tail;
pub use failure::{Failed, OnFailure};
pub use lines::Lines;
pub use look_up::{Cache, Hits, NoCache};
pub use plan::{Linted, Outline, Plan, Unread, lint, outline, plan};
pub use request::{Backends, CacheRoot, Control, FilesOutput, Labels, NamedContext, Output, Request, Specification};

use std::time::Instant;

use oci::Digest;
use store::Image;

/// What a finished build gives back.
#[derive(Clone)]
pub struct Built {
    /// The manifest's digest as each exporter wrote it, in the order of [`Request::outputs`].
    pub digests: Vec<Digest>,
    /// The manifest's digest in the image's own flavour.
    pub digest: Digest,
    /// The config's digest, which Docker calls the image ID.
    pub image_id: Digest,
    /// The image itself. Its layers lie in the work directory, or where its base is.
    pub image: Image,
}

/// Builds `request` and writes the image wherever its outputs lead.
///
/// # Errors
/// The first thing that went wrong, with its place in the Dockerfile where it has one. Nothing is tagged then, and the work
/// directory holds nothing that anybody needs.
pub fn build(request: &Request) -> Result<Built, BuildError> {
    // Whatever an interruption made fail, the interruption is what happened.
    carry_out(request).map_err(|error| if request.is_cancelled() { BuildError::Cancelled } else { error })
}

/// Words of the request that have no effect and are probably misspelt.
pub fn doubts(request: &Request) -> Vec<String> {
    let file = &request.spec.dockerfile;
    let did_you_mean = |near: &str| format!(" (did you mean `{near}`?)");
    let rules =
        file.checks.unknown().into_iter().map(|(name, near)| {
            format!("there is no build check `{name}`{}", near.map(did_you_mean).unwrap_or_default())
        });
    let arguments = file.global_args.iter().chain(file.stages.iter().flat_map(|stage| &stage.instructions));
    let names = arguments.filter_map(|instruction| match &instruction.kind {
        dockerfile::Kind::Arg(args) => Some(args.iter().map(|arg| arg.name.text.as_str())),
        _ => None,
    });
    let declared: Vec<&str> = names.flatten().collect();
    let unused = request.spec.build_args.keys().filter(|name| !declared.contains(&name.as_str()));
    let near = unused.filter_map(|name| Some((name, dockerfile::lint::nearest_name(name, declared.iter().copied())?)));
    let near = near.filter(|(_, near)| !request.spec.build_args.contains_key(*near));
    let arguments =
        near.map(|(name, near)| format!("build argument `{name}` is declared by no ARG{}", did_you_mean(near)));
    rules.chain(arguments).collect()
}

fn carry_out(request: &Request) -> Result<Built, BuildError> {
    let begun = Instant::now();
    request.control.observer.event(&Event::Planning);
    let plan = plan(request)?;
    for message in doubts(request) {
        request.control.observer.event(&Event::Warning { message });
    }
    for finding in &plan.warnings {
        let (source, file) = (&request.spec.dockerfile.source, &request.spec.dockerfile_name);
        request.control.observer.event(&Event::Finding { finding, source, file });
    }
    request.control.observer.event(&Event::Planned { steps: plan.step_count(), elapsed: begun.elapsed() });
    let hits = request.backends.cache.look_up(&plan);
    let layers = layers::Pool::start(request)?;
    let snapshots = exec::execute(&plan, &hits, request, &layers)?;
    let image = assemble::assemble(&plan, request, &snapshots.layers(plan.target, &layers))?;
    assemble::export(image, &plan, request, &snapshots)
}
