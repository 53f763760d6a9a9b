//! Values to back-ends: the one place that picks implementations of the seams.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context as _;
use auth::Credentials;
use build::{
    Backends, BuildError, CacheRoot, Control, Event, FilesOutput, NamedContext, NoCache, OnFailure, Output, Request,
    Specification,
};
use context::{ContextError, GitScheme, Place, Sources};
use net::Net;
use oci::Reference;
use registry::{Registry, RegistrySettings};
use sandbox::probe::Wanted;
use sandbox::{Ended, Mount, Process, Sandbox, SandboxError, Server, Service, Stream};
use spawn::NoneLeft;
use store::{
    ArchiveExporter, ArchiveFormat, Destination, EntryName, Exporter, Image, LayoutExporter, LayoutSource, StoreError,
};

use crate::args::Build;
use crate::labels::pair;
use crate::on_failure::{Choice, Notes};
use crate::progress::Shown;
use crate::report::Failure;
use crate::work::WorkDir;
use crate::{Manner, on_failure, settings, signals};

/// A request and what is needed to talk about it.
pub struct Wired {
    pub request: Request,
    /// Every name the image was given.
    pub names: Vec<Reference>,
    /// What was done about a failed step.
    pub notes: Arc<Notes>,
}

impl Wired {
    pub fn failure(&self, error: BuildError) -> Failure {
        self.failure_shown(error, false)
    }

    /// `output_is_shown`: what the failed step printed is on the screen already.
    pub fn failure_shown(&self, error: BuildError, output_is_shown: bool) -> Failure {
        Failure::Build {
            error: Box::new(error),
            source: self.request.spec.dockerfile.source.clone(),
            name: self.request.spec.dockerfile_name.clone(),
            output_is_shown,
            notes: self.notes.take(),
        }
    }
}

/// The isolation back-end. Where `auto` finds none the build may still need none: then a RUN says why it cannot run.
pub fn sandbox(typed: &Build, work: &Path) -> Result<Arc<dyn Sandbox>, Failure> {
    let name = match typed.run.isolation.as_str() {
        // docker's word.
        "default" => "auto",
        name @ ("process" | "hyperv") => {
            let message = format!("`--isolation={name}` is for containers of Windows, which zuwai does not build");
            return Err(Failure::usage(message));
        }
        name => name,
    };
    if name != "auto" && !sandbox::probe::names().any(|known| known == name) {
        let names: Vec<&str> = sandbox::probe::names().collect();
        let message = format!("no isolation back-end is called `{name}`; there are auto, {}", names.join(", "));
        return Err(Failure::usage(message));
    }
    let keep = kept_in_place(typed);
    let wanted = Wanted { name, work, keep: &keep, force_in_place: typed.kaniko.force };
    match sandbox::probe::enter_as(&wanted) {
        Ok(sandbox) => Ok(Arc::from(sandbox)),
        Err(SandboxError::NoBackend { reasons }) if name == "auto" => Ok(Arc::new(NoSandbox::Works { reasons })),
        Err(error) if name == "auto" && NoneLeft::is_cause_of(&error) => Ok(Arc::new(NoSandbox::CouldBeTried)),
        Err(error) => {
            let hint = Some("`zuwai doctor` shows what each one needs".to_owned());
            Err(Failure::Other { error: error.into(), code: 6, hint })
        }
    }
}

/// Puts `/` in order if a killed builder has left it full of a stage's files. Before anything takes space there: the disk may be
/// full, and what fills it be gone then.
pub fn recover() -> Result<(), Failure> {
    sandbox::inplace::recover().map_err(|error| Failure::Other { error: error.into(), code: 6, hint: None })
}

/// What is opened by its path while a step may have taken the place of `/`: the context, credentials, outputs.
fn kept_in_place(typed: &Build) -> Vec<PathBuf> {
    let local = |spec: &String| PathBuf::from(spec.strip_prefix("dir://").unwrap_or(spec));
    let contexts = typed.positional_context.iter().chain(&typed.input.context).map(local);
    let named =
        typed.input.build_context.iter().filter_map(|word| word.split_once('=')).map(|(_, spec)| PathBuf::from(spec));
    let outputs = [&typed.output.oci_layout_path, &typed.output.tar_path].into_iter().flatten().cloned();
    let all = contexts.chain(named).chain(outputs).chain(config_files().into_iter().map(|file| file.path));
    all.filter_map(|path| std::path::absolute(path).ok()).filter(|path| path.exists()).collect()
}

/// For what is only asked about.
pub fn no_sandbox() -> Arc<dyn Sandbox> {
    Arc::new(NoSandbox::Works { reasons: "nothing was meant to run".to_owned() })
}

/// What says, when a step is to run, why it cannot.
enum NoSandbox {
    Works {
        reasons: String,
    },
    /// There were no processes to try anything.
    CouldBeTried,
}

impl Sandbox for NoSandbox {
    fn name(&self) -> &'static str {
        "none"
    }

    fn parallel(&self) -> bool {
        true
    }

    fn run(
        &self,
        _: &rootfs::Tree,
        _: &Process,
        _: &[Mount],
        _: &mut (dyn FnMut(Stream, &[u8]) + Send),
        _: &(dyn Fn() -> bool + Sync),
    ) -> Result<Ended, SandboxError> {
        Err(match self {
            NoSandbox::Works { reasons } => SandboxError::NoBackend { reasons: reasons.clone() },
            NoSandbox::CouldBeTried => SandboxError::Setup {
                action: "could not try what isolates steps here".to_owned(),
                source: NoneLeft::named(std::io::Error::from_raw_os_error(libc::EAGAIN)),
            },
        })
    }
}

/// Everything a build needs, out of everything that was typed.
pub fn request(
    typed: &Build,
    manner: Manner,
    sandbox: Arc<dyn Sandbox>,
    work: &WorkDir,
    shown: Arc<dyn Shown>,
    cancelled: Arc<AtomicBool>,
) -> Result<Wired, Failure> {
    let destinations = settings::destinations(typed)?;
    let net = Net::new(settings::network(typed, &destinations, &cancelled)?)
        .context("could not set up networking")
        .map_err(Failure::other(2))?;
    net.start().map_err(|error| Failure::other(6)(error.into()))?;
    let build_args = settings::build_args_and_epoch(&typed.input.build_arg);
    let secrets = settings::secrets(&typed.input.secret)?;
    let git = settings::git(&typed.input, &secrets, &build_args)?;
    let opened = open_context(typed, &net, &git, work, &cancelled)?;
    let checks = settings::checks(&build_args)?;
    let dockerfile = dockerfile::parse_with_checks(&opened.dockerfile, checks)
        .map_err(|e| Failure::Dockerfile { error: Box::new(e), name: opened.name.clone() })?;
    let given = typed.input.target.iter().filter(|word| !word.is_empty());
    let mut targets = given.map(|word| settings::target(word, &dockerfile, manner));
    let (first, others): (Option<String>, Vec<String>) = (targets.next(), targets.collect());
    let registry = registry(typed, manner, &net, shown.clone())?;
    let platform = settings::platform(&typed.input)?;
    let names = settings::names(typed)?;
    let outputs = outputs(typed, manner, &registry, &destinations, &names)?;
    check_permission(typed, &registry, &destinations)?;
    let source_date_epoch = settings::source_date_epoch(&build_args)?;
    let cache_namespace = build_args.get("BUILDKIT_CACHE_MOUNT_NS").cloned().unwrap_or_default();
    let notes = Arc::new(Notes::default());
    let on_failure = on_failure(typed, &registry, &shown, work, &notes)?;
    let spec = Specification {
        dockerfile,
        dockerfile_name: opened.name,
        target: first,
        more_targets: others,
        platform,
        build_args,
        labels: settings::labels(&typed.input.label)?,
        annotations: settings::pairs("--annotation", &typed.output.annotation)?.into_iter().collect(),
        secrets,
        flavor: settings::flavor(&typed.output)?,
        compression: settings::compression(&typed.output),
        compression_level: settings::compression_level(&typed.output)?,
        source_date_epoch,
        default_epoch: typed.kaniko.reproducible.then_some(0),
        clamp_modified: typed.kaniko.reproducible || settings::rewrites_timestamps(&typed.output)?,
        ignore_paths: typed.output.ignore_path.iter().map(|p| p.strip_prefix("/").unwrap_or(p).to_owned()).collect(),
        extra_hosts: settings::extra_hosts(&typed.input.add_host)?,
        network: settings::run_network(typed.run.network.as_deref())?,
        shm_bytes: settings::shm_bytes(typed.run.shm_size.as_deref())?,
        layer_limit_bytes: typed.run.layer_limit.saturating_mul(1 << 30),
    };
    let backends = Backends {
        context: opened.context,
        contexts: named_contexts(typed, &registry, &net, &git.settings, work)?,
        images: Arc::new(registry.clone()),
        net,
        sandbox,
        agents: agents(typed)?,
        cache: Arc::new(NoCache),
        cache_mounts: CacheRoot::new(work.root().join(crate::work::CACHE_MOUNTS), cache_namespace),
        on_failure,
    };
    let control = Control {
        work: work.path().to_owned(),
        jobs: typed.run.jobs.unwrap_or_else(processors).max(1),
        processes: typed.run.jobs.unwrap_or_else(|| processors().max(WAITING)).max(1),
        cancelled,
        observer: shown,
    };
    let request = Request { spec, backends, outputs: outputs.list, control };
    Ok(Wired { request, names, notes })
}

/// Steps that run at a time, at least: most of what they do is to wait, for a network above all.
const WAITING: usize = 8;

/// What `--on-failure` asks for, ready to be done.
fn on_failure(
    typed: &Build,
    registry: &Registry,
    shown: &Arc<dyn Shown>,
    work: &WorkDir,
    notes: &Arc<Notes>,
) -> Result<Option<Arc<dyn OnFailure>>, Failure> {
    let Some(word) = &typed.run.on_failure else { return Ok(None) };
    let notes = notes.clone();
    Ok(Some(match Choice::parse(word)? {
        Choice::Shell => Arc::new(on_failure::Shell { shown: shown.clone() }),
        Choice::Keep => Arc::new(on_failure::Keep { directory: work.root().join(crate::work::FAILED), notes }),
        Choice::Export(path) => Arc::new(on_failure::Export { path, notes }),
        Choice::Push(reference) => {
            let exporter = registry.exporter(reference.clone());
            Arc::new(on_failure::Push { exporter, reference, notes })
        }
    }))
}

/// What answers a step at the socket of an agent.
struct AgentService(ssh::Agent);

impl Service for AgentService {
    fn serve(&self, connection: &UnixStream) {
        // What goes wrong ends this connection, and is for the step's client to tell.
        let _ = self.0.serve(connection);
    }
}

fn agents(typed: &Build) -> Result<BTreeMap<String, Server>, Failure> {
    let own = std::env::var_os("SSH_AUTH_SOCK").filter(|path| !path.is_empty()).map(PathBuf::from);
    let agents = settings::agents(&typed.input.ssh, own.as_deref())?;
    Ok(agents.into_iter().map(|(id, agent)| (id, Server(Arc::new(AgentService(agent))))).collect())
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

fn registry(typed: &Build, manner: Manner, net: &Net, shown: Arc<dyn Shown>) -> Result<Registry, Failure> {
    let registry_settings = RegistrySettings {
        maps: settings::registry_maps(&typed.registry)?,
        skip_fallback: typed.kaniko.skip_default_registry_fallback,
        plain_http_to_private_hosts: manner == Manner::Kaniko,
        ..RegistrySettings::new()
    };
    let credentials = credentials(typed, &*shown)?;
    Ok(Registry::new(net.clone(), credentials, shown, registry_settings))
}

/// Logins from where docker, podman and kaniko look: `DOCKER_AUTH_CONFIG`, `config.json`, `auth.json`, `KANIKO_HOST_USER`.
///
/// A file that was named has to be readable. One that merely lies where such files do (somebody else's HOME, with a pod's
/// random user) is warned about, as docker does.
fn credentials(typed: &Build, shown: &dyn Shown) -> Result<Credentials, Failure> {
    let mut credentials = Credentials::anonymous();
    if let Ok(text) = std::env::var("DOCKER_AUTH_CONFIG") {
        let added = credentials.add_config(&text, "variable `DOCKER_AUTH_CONFIG`");
        added.map_err(|error| Failure::Other { error: error.into(), code: 5, hint: None })?;
    }
    for file in config_files() {
        match add_config_file(&mut credentials, &file.path) {
            Ok(()) => {}
            Err(error) if file.is_named => return Err(Failure::Other { error, code: 5, hint: None }),
            Err(error) => {
                let problem = format!("{error:#}");
                shown.event(&Event::Warning { message: format!("{problem}; its logins are not used") });
                credentials.add_unreadable(&problem);
            }
        }
    }
    match typed.registry.credential_helpers.as_deref() {
        Some([]) => return Ok(credentials),
        Some(names) => {
            if let Some(other) = names.iter().find(|n| !n.is_empty() && *n != "env") {
                return Err(Failure::usage(format!("not supported yet: --credential-helpers={other}")));
            }
            if names.iter().all(String::is_empty) {
                return Ok(credentials);
            }
        }
        None => {}
    }
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    credentials.add_variables("KANIKO", std::env::vars_os().filter_map(text));
    Ok(credentials)
}

/// More is no configuration.
const CONFIG_MAX_BYTES: u64 = 4 << 20;

/// Adds the logins of a file, if there is one.
fn add_config_file(credentials: &mut Credentials, path: &Path) -> anyhow::Result<()> {
    let read = settings::read_at_most(path, CONFIG_MAX_BYTES);
    if read.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        return Ok(());
    }
    let text = read.and_then(|bytes| String::from_utf8(bytes).map_err(|_| std::io::Error::other("it is not UTF-8")));
    let text = text.with_context(|| format!("could not read `{}`", path.display()))?;
    Ok(credentials.add_config(&text, &format!("`{}`", path.display()))?)
}

struct ConfigFile {
    path: PathBuf,
    /// Somebody said that it is there.
    is_named: bool,
}

fn config_files() -> Vec<ConfigFile> {
    let variable = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let home = variable("HOME");
    let below = |directory: Option<PathBuf>, file: &str| directory.map(|directory| directory.join(file));
    let docker = match variable("DOCKER_CONFIG") {
        Some(directory) => (Some(directory.join("config.json")), true),
        None => (below(home.clone(), ".docker/config.json"), false),
    };
    let configuration = variable("XDG_CONFIG_HOME").or(below(home, ".config"));
    let files = [
        docker,
        (variable("REGISTRY_AUTH_FILE"), true),
        (below(variable("XDG_RUNTIME_DIR"), "containers/auth.json"), false),
        (below(configuration, "containers/auth.json"), false),
    ];
    files.into_iter().filter_map(|(path, is_named)| Some(ConfigFile { path: path?, is_named })).collect()
}

/// Finds out before the work whether its result can be pushed, as kaniko does.
fn check_permission(typed: &Build, registry: &Registry, destinations: &[Reference]) -> Result<(), Failure> {
    if typed.kaniko.skip_push_permission_check || !typed.builds() {
        return Ok(());
    }
    for destination in destinations {
        registry.check_push_permission(destination).map_err(|error| {
            let hint = match &error {
                StoreError::Remote { hint, .. } => hint.clone(),
                _ => None,
            };
            let error = anyhow::Error::new(error).context(format!("`{destination}` cannot be pushed to"));
            Failure::Other { error, code: 5, hint }
        })?;
    }
    Ok(())
}

#[derive(Default)]
struct Outputs {
    list: Vec<Output>,
    /// Somebody said that nothing is to be written.
    is_discarded: bool,
}

impl Outputs {
    fn image(&mut self, exporter: Arc<dyn Exporter>) {
        self.list.push(Output::Image(exporter));
    }
}

fn outputs(
    typed: &Build,
    manner: Manner,
    registry: &Registry,
    destinations: &[Reference],
    names: &[Reference],
) -> Result<Outputs, Failure> {
    let mut outputs = Outputs::default();
    for destination in destinations {
        outputs.image(pushing(typed, registry, destination));
    }
    if let Some(path) = &typed.output.oci_layout_path {
        let entries = names.iter().map(EntryName::of).collect();
        outputs.image(Arc::new(LayoutExporter::new(path, entries)));
    }
    if let Some(path) = &typed.output.tar_path {
        let destination = Destination::File(path.clone());
        outputs.image(Arc::new(ArchiveExporter::new(ArchiveFormat::Docker, destination, archive_names(names))));
    }
    for spec in &typed.output.output {
        output(spec, names, typed.output.push, &mut outputs)?;
    }
    if typed.output.output.iter().filter(|spec| settings::is_to_stdout(spec)).count() > 1 {
        return Err(Failure::usage("only one output can go to standard output"));
    }
    let nowhere = outputs.list.is_empty() && !outputs.is_discarded;
    if nowhere && typed.output.verify.is_none() && !settings::no_push(typed)? && typed.builds() {
        let hint = match manner {
            Manner::Kaniko => "give --destination, or --no-push",
            Manner::Zuwai => "give --push with --tag, --output, or --no-push to only see whether it builds",
        };
        let message = "the image would go nowhere".to_owned();
        return Err(Failure::Usage { message, hint: Some(hint.to_owned()) });
    }
    Ok(outputs)
}

fn pushing(typed: &Build, registry: &Registry, destination: &Reference) -> Arc<dyn Exporter> {
    let exporter = Arc::new(registry.exporter(destination.clone()));
    if typed.kaniko.push_ignore_immutable_tag_errors { Arc::new(LenientOnImmutable(exporter)) } else { exporter }
}

/// kaniko names an archive without destination like this.
fn archive_names(names: &[Reference]) -> Vec<Reference> {
    if names.is_empty() {
        return Reference::parse("docker.io/unset-repo/unset-image-name").into_iter().collect();
    }
    names.to_vec()
}

/// One `--output`: `type=…,dest=…`, or a directory for the files.
fn output(spec: &str, names: &[Reference], push: bool, outputs: &mut Outputs) -> Result<(), Failure> {
    let parsed = settings::output_fields(spec);
    for key in parsed.keys() {
        if !["type", "dest", "name", "push", "tar", "rewrite-timestamp"].contains(&key.as_str()) {
            return Err(Failure::usage(format!("`--output {spec}`: not supported yet: `{key}`")));
        }
    }
    let dest = || {
        let given = parsed.get("dest").filter(|dest| !dest.is_empty()).cloned();
        given.ok_or_else(|| Failure::usage(format!("`--output {spec}`: no `dest`")))
    };
    let named = match parsed.get("name") {
        Some(texts) => texts
            .split(',')
            .map(Reference::parse)
            .collect::<Result<_, _>>()
            .map_err(|e| Failure::usage(e.to_string()))?,
        None => names.to_vec(),
    };
    let archive = |format, names| -> Result<Arc<dyn Exporter>, Failure> {
        let dest = dest()?;
        let destination =
            if dest == "-" { Destination::writer(Box::new(std::io::stdout())) } else { Destination::File(dest.into()) };
        Ok(Arc::new(ArchiveExporter::new(format, destination, names)))
    };
    match parsed.get("type").map(String::as_str) {
        Some("oci") if parsed.get("tar").is_some_and(|t| t == "false") => {
            let entries = named.iter().map(EntryName::of).collect();
            // Readers of layouts look for OCI media types only, where kaniko's flag keeps those that would be pushed.
            outputs.image(Arc::new(LayoutExporter::new(Path::new(&dest()?), entries).with_oci_types()));
        }
        Some("oci") => outputs.image(archive(ArchiveFormat::Oci, named)?),
        Some("docker") if dest().is_err() => {
            let message = format!("`--output {spec}`: no `dest`, and there is no daemon to load the image into");
            let hint = "`--output type=docker,dest=- | docker load` does that".to_owned();
            return Err(Failure::Usage { message, hint: Some(hint) });
        }
        Some("docker") => outputs.image(archive(ArchiveFormat::Docker, archive_names(&named))?),
        // It is one of the destinations, or nothing is kept of it.
        Some("image" | "registry") => outputs.is_discarded |= !settings::is_push(spec, push)?,
        Some("cacheonly") => outputs.is_discarded = true,
        Some("local") => outputs.list.push(Output::Files(FilesOutput::Directory(dest()?.into()))),
        Some("tar") => outputs.list.push(Output::Files(tar_of_files(&dest()?))),
        other => {
            let message = format!(
                "`--output {spec}`: type `{}` is not oci, docker, image, registry, local, tar or cacheonly",
                other.unwrap_or("")
            );
            return Err(Failure::usage(message));
        }
    }
    Ok(())
}

fn tar_of_files(dest: &str) -> FilesOutput {
    match dest {
        "-" => FilesOutput::Tar(std::sync::Mutex::new(Box::new(std::io::stdout()))),
        path => FilesOutput::TarFile(path.into()),
    }
}

/// kaniko's `--push-ignore-immutable-tag-errors`: a tag that is there and may not change counts as pushed.
struct LenientOnImmutable(Arc<registry::RegistryExporter>);

impl Exporter for LenientOnImmutable {
    fn prepare(&self, layer: &store::Layer) -> Result<(), StoreError> {
        self.0.prepare(layer)
    }

    fn export(&self, image: &Image) -> Result<oci::Digest, StoreError> {
        match self.0.export(image) {
            Err(error) if registry::failure(&error).is_some_and(|f| f.kind == registry::FailureKind::ImmutableTag) => {
                Ok(image.encode().manifest_descriptor.digest)
            }
            other => other,
        }
    }

    fn describe(&self) -> String {
        self.0.describe()
    }
}

struct Opened {
    context: context::Context,
    dockerfile: Vec<u8>,
    name: String,
}

/// The build context and the Dockerfile in or beside it.
fn open_context(
    typed: &Build,
    net: &Net,
    git: &settings::Git,
    work: &WorkDir,
    cancelled: &Arc<AtomicBool>,
) -> Result<Opened, Failure> {
    let input = &typed.input;
    if typed.positional_context.is_some() && input.context.is_some() {
        return Err(Failure::usage("the context is given twice: as --context and by itself"));
    }
    let spec = typed.positional_context.as_deref().or(input.context.as_deref()).unwrap_or(".");
    // Kaniko's flag, and what it means by `git://`.
    let scheme = if input.context.is_some() { settings::git_scheme() } else { GitScheme::Protocol };
    let place = Place::parse(spec, scheme).map_err(|error| context_failure(error.into()))?;
    let unverified = match &place {
        Place::KanikoGit(found) if git.skip_verify => Some(without_verification(net, &found.remote.host_and_port())?),
        _ => None,
    };
    if !input.git.is_empty() && !matches!(place, Place::KanikoGit(_)) {
        let message = "--git says how `--context=git://…` is cloned, and the context is none";
        let hint = Some("in other addresses stand `#REF:DIR` and `?submodules=false`".to_owned());
        return Err(Failure::Usage { message: message.to_owned(), hint });
    }
    let mut sources = Sources {
        stdin: Some(Box::new(signals::Stdin::new(cancelled))),
        net: unverified.as_ref().unwrap_or(net),
        git: &git.settings,
        work: work.path(),
    };
    let mut try_open = || -> anyhow::Result<Opened> {
        let opened = context::open(&place, &mut sources)?;
        let opened = match &input.context_sub_path {
            Some(sub) => below(opened, sub)?,
            None => opened,
        };
        let dockerfile = context::read_dockerfile(input.file.as_deref(), &opened, &mut sources)?;
        let context = opened.with_ignore_file(&dockerfile)?.hiding(work.own())?;
        Ok(Opened { context, dockerfile: dockerfile.bytes, name: dockerfile.name })
    };
    try_open().map_err(context_failure).map_err(|failure| match failure {
        Failure::Other { error, code, hint: None } if Path::new(spec).is_file() => {
            let hint = Some(format!("a context is a directory; `--file {spec}` names a Dockerfile"));
            Failure::Other { error, code, hint }
        }
        failure => failure,
    })
}

/// The same network, with any certificate of `host` accepted.
fn without_verification(net: &Net, host: &str) -> Result<Net, Failure> {
    let mut settings = net.settings().clone();
    settings.skip_verify.push(host.to_owned());
    Net::new(settings).context("could not set up networking").map_err(Failure::other(2))
}

fn context_failure(error: anyhow::Error) -> Failure {
    let (code, hint) = match error.downcast_ref() {
        Some(ContextError::Unsupported { .. }) => (2, None),
        Some(ContextError::NoDockerfile { suggestion: Some(near), .. }) => {
            (3, Some(format!("there is `{}`; name it with --file", near.display())))
        }
        error => (3, error.and_then(ContextError::hint)),
    };
    Failure::Other { error, code, hint }
}

/// A directory of a context as the context.
fn below(opened: context::Opened, sub: &Path) -> anyhow::Result<context::Opened> {
    let inside = opened.tree.resolve(sub, true)?;
    let path = opened.tree.path().join(inside);
    let tree = rootfs::Tree::open(&path, None).with_context(|| format!("--context-sub-path `{}`", sub.display()))?;
    Ok(context::Opened { tree: Arc::new(tree), ..opened })
}

/// `--build-context NAME=…`: a directory, `docker-image://REF`, `oci-layout://DIR[:TAG][@DIGEST]`, a tar or repository by its
/// address.
fn named_contexts(
    typed: &Build,
    registry: &Registry,
    net: &Net,
    git: &git::Settings,
    work: &WorkDir,
) -> Result<BTreeMap<String, NamedContext>, Failure> {
    // BuildKit keeps `.git` of a named context only when its address says so, and its times are those of the checkout; kaniko's
    // variables are for the one context that it knows.
    let auth = git::Auth { user: None, ..git.auth.clone() };
    let git = git::Settings { auth, ..git::Settings::default() };
    let mut contexts = BTreeMap::new();
    for word in &typed.input.build_context {
        let (name, spec) = pair("--build-context", word)?;
        let failed = |error: anyhow::Error| Failure::Other {
            error: error.context(format!("named context `{name}`")),
            code: 3,
            hint: None,
        };
        // The hint is in the error, which gets a line before it.
        let fetched = |error: ContextError| {
            let hint = error.hint();
            Failure::Other {
                error: anyhow::Error::new(error).context(format!("named context `{name}`")),
                code: 3,
                hint,
            }
        };
        let context = if let Some(image) = spec.strip_prefix("docker-image://") {
            let reference = Reference::parse(image).map_err(|e| failed(e.into()))?;
            NamedContext::Image { source: Arc::new(registry.clone()), reference }
        } else if let Some(layout) = spec.strip_prefix("oci-layout://") {
            let source = LayoutSource::open(layout).map_err(|e| failed(e.into()))?;
            let reference =
                Reference::parse(name).or_else(|_| Reference::parse("layout")).map_err(|e| failed(e.into()))?;
            NamedContext::Image { source: Arc::new(source), reference }
        } else {
            let mut sources = Sources { stdin: None, net, git: &git, work: work.path() };
            let place = Place::parse(spec, GitScheme::Protocol).map_err(|e| failed(e.into()))?;
            let opened = match place {
                Place::Directory(path) => context::open_dir(&path, None),
                place => context::open(&place, &mut sources)
                    .map(|o| context::Context { tree: o.tree, ignore: Default::default() }),
            };
            NamedContext::Directory(opened.and_then(|context| context.hiding(work.own())).map_err(fetched)?)
        };
        contexts.insert(name.to_ascii_lowercase(), context);
    }
    Ok(contexts)
}
