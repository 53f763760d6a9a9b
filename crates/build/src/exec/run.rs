//! RUN carried out: a process in the sandbox, and what is done when it fails.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use rootfs::Tree;
use rootfs::commit::Written;
use sandbox::{Exit, Network, Process, SandboxError};

use super::{Execution, Tail, not_made};
use crate::plan::{Node, Run, Source, Step};
use crate::{BuildError, Event, Failed, Place, StepId, mount, user};

/// What processes see as their host's name (BuildKit's default).
const HOSTNAME: &str = "buildkitsandbox";

/// As much of a step's output as is told when it fails.
const LAST_LINES: usize = 30;
const LAST_BYTES: usize = 8 << 10;

impl Execution<'_> {
    /// Where the process can have changed something, if anybody knows.
    pub(super) fn run(
        &self,
        id: StepId,
        node: &Node,
        step: &Step,
        run: &Run,
        tree: &Tree,
    ) -> Result<Option<Written>, BuildError> {
        let source_tree = |source: &Source| self.source_tree(source);
        let stopped = || self.stopped();
        let user = user::resolve(tree, &run.user).map_err(|error| BuildError::user(&step.span, error))?;
        let mounts = mount::lower(self.request, step, run, &source_tree, &stopped)?;
        let process = self.process(run, user, &mounts.env);
        let mut tail = Tail::new(LAST_LINES, LAST_BYTES);
        let mut output = |stream, bytes: &[u8]| {
            tail.push(bytes);
            self.request.control.observer.event(&Event::Output { id, stream, bytes });
        };
        let ended = self.request.backends.sandbox.run(tree, &process, &mounts.mounts, &mut output, &stopped);
        let stage = self.plan.stage(node.stage);
        let shown = format!("[{} {}/{}] {}", stage.name, id.step + 1, stage.steps.len(), step.title);
        let lines = tail.lines();
        let error = match ended {
            Ok(ended) if ended.exit == Exit::Code(0) => return Ok(ended.written),
            Err(SandboxError::Cancelled) if self.request.is_cancelled() => return Err(BuildError::Cancelled),
            Err(SandboxError::Cancelled) => return Err(BuildError::Stopped),
            Ok(ended) => run_failed(step, ended.exit, shown.clone(), lines.clone()),
            Err(source) => BuildError::Sandbox {
                action: "RUN could not be run".to_owned(),
                place: Some(Place { span: step.span.clone() }),
                source,
            },
        };
        let failed = Failed {
            step: &shown,
            message: &error.to_string(),
            output: &lines,
            tree,
            process: &process,
            mounts: &mounts.mounts,
            config: &run.config,
            platform: &stage.platform,
            request: self.request,
        };
        self.look_into(&failed, &error);
        Err(error)
    }

    fn process(&self, run: &Run, user: user::User, of_mounts: &[OsString]) -> Process {
        let variables = run.environment(&self.plan.proxies);
        let mut env: Vec<OsString> = variables.to_strings().into_iter().map(OsString::from).collect();
        if variables.get("HOME").is_none() {
            env.push(format!("HOME={}", user.home).into());
        }
        env.extend(of_mounts.iter().cloned());
        Process {
            args: run.args.iter().map(OsString::from).collect(),
            env,
            cwd: PathBuf::from(&run.cwd),
            uid: user.uid,
            gid: user.gid,
            groups: user.groups,
            network: match run.network {
                dockerfile::Network::None => Network::None,
                dockerfile::Network::Default | dockerfile::Network::Host => Network::Host,
            },
            hostname: HOSTNAME.to_owned(),
            extra_hosts: self.request.spec.extra_hosts.clone(),
            shm_bytes: self.request.spec.shm_bytes,
            terminal: None,
        }
    }

    /// Has something done about the first step whose program failed or could not be started.
    fn look_into(&self, failed: &Failed<'_>, error: &BuildError) {
        let Some(on_failure) = &self.request.backends.on_failure else { return };
        let of_program =
            matches!(error, BuildError::Run { .. } | BuildError::Sandbox { source: SandboxError::Start { .. }, .. });
        // What the others print would be in the way, and nobody needs it any more.
        if !of_program || self.request.is_cancelled() || self.failed.swap(true, Ordering::Relaxed) {
            return;
        }
        // What is done about it goes on when the others stop.
        let tree = failed.tree.share().map(|tree| tree.stopping(&self.request.stop()));
        let done = match tree {
            Ok(tree) => on_failure.failed(&Failed { tree: &tree, ..*failed }),
            Err(error) => Err(not_made(error)),
        };
        if let Err(error) = done {
            let causes = std::iter::successors(std::error::Error::source(&error), |cause| cause.source());
            let message = causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"));
            self.request.control.observer.event(&Event::Warning { message });
        }
    }
}

fn run_failed(step: &Step, exit: Exit, shown: String, output: String) -> BuildError {
    let message = match exit {
        Exit::Code(code) => format!("RUN exited with status {code}"),
        Exit::Signal(9) => "RUN was killed by signal 9 (out of memory, perhaps): exit code 137".to_owned(),
        Exit::Signal(signal) => format!("RUN was killed by signal {signal}: exit code {}", 128 + signal),
    };
    BuildError::Run { message, place: Place { span: step.span.clone() }, exit, step: shown, output }
}
