//! A build without root and without network: images in memory, a sandbox that does what a small script says, an OCI layout
//! that is read back.
//!
//! Functions panic where a test could not go on.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use context::Context;
use net::{Net, Settings};
use oci::media_type::Compression;
use oci::{Descriptor, DiffId, Digest, Flavor, History, ImageConfig, Platform, Reference};
use rootfs::{FileKind, Tree};
use sandbox::{Ended, Exit, Mount, Process, Sandbox, SandboxError, Stream};
use store::{BlobSource, Image, ImageSource, Layer, LayoutExporter, StoreError};
use zuwai_build::{
    Backends, BuildError, Built, CacheRoot, Control, Event, FilesOutput, NamedContext, NoCache, Observer, Output, Plan,
    Request, Specification,
};

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One build to be: fields are changed, then [`Bench::build`].
pub struct Bench {
    directory: tempfile::TempDir,
    pub request: Request,
    pub images: Arc<Images>,
    pub sandbox: Arc<Scripted>,
    pub events: Arc<Recorder>,
}

/// An agent that ends every connection.
struct Silent;

impl sandbox::Service for Silent {
    fn serve(&self, _: &std::os::unix::net::UnixStream) {}
}

impl Bench {
    /// An empty context, no images, an OCI layout as the only output.
    pub fn new(dockerfile: &str) -> Bench {
        let directory = tempfile::tempdir().unwrap();
        for name in ["context", "work"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        let images = Arc::new(Images::default());
        let sandbox = Arc::new(Scripted::default());
        let events = Arc::new(Recorder::default());
        let spec = Specification {
            dockerfile: dockerfile::parse(dockerfile.as_bytes()).unwrap_or_else(|e| panic!("{e}\n{dockerfile}")),
            dockerfile_name: "Dockerfile".to_owned(),
            target: None,
            more_targets: Vec::new(),
            platform: None,
            build_args: BTreeMap::new(),
            labels: Vec::new(),
            annotations: BTreeMap::new(),
            secrets: BTreeMap::new(),
            flavor: None,
            compression: Compression::Gzip,
            compression_level: None,
            source_date_epoch: Some(EPOCH),
            default_epoch: None,
            clamp_modified: false,
            ignore_paths: Vec::new(),
            extra_hosts: Vec::new(),
            network: dockerfile::Network::Default,
            shm_bytes: None,
            layer_limit_bytes: 1 << 30,
        };
        let backends = Backends {
            context: context::open_dir(&directory.path().join("context"), None).unwrap(),
            contexts: BTreeMap::new(),
            images: images.clone(),
            net: Net::new(Settings::new("zuwai-test")).unwrap(),
            sandbox: sandbox.clone(),
            agents: BTreeMap::new(),
            cache: Arc::new(NoCache),
            cache_mounts: CacheRoot::new(directory.path().join("caches"), String::new()),
            on_failure: None,
        };
        let control = Control {
            work: directory.path().join("work"),
            jobs: 2,
            processes: 2,
            cancelled: Arc::new(AtomicBool::new(false)),
            observer: events.clone(),
        };
        let layout = LayoutExporter::new(&directory.path().join("out"), Vec::new());
        let outputs = vec![Output::Image(Arc::new(layout))];
        let request = Request { spec, backends, outputs, control };
        Bench { directory, request, images, sandbox, events }
    }

    /// Adds a file to the context; its directories too.
    pub fn file(self, path: &str, content: &str) -> Bench {
        put(&self.directory.path().join("context"), path, content);
        self
    }

    /// `.dockerignore`.
    pub fn ignore(mut self, text: &str) -> Bench {
        self = self.file(".dockerignore", text);
        self.request.backends.context = context::open_dir(&self.directory.path().join("context"), None).unwrap();
        self
    }

    pub fn image(self, reference: &str, base: Base) -> Bench {
        self.images.add(reference, base);
        self
    }

    pub fn arg(mut self, name: &str, value: &str) -> Bench {
        self.request.spec.build_args.insert(name.to_owned(), value.to_owned());
        self
    }

    pub fn target(mut self, name: &str) -> Bench {
        self.request.spec.target = Some(name.to_owned());
        self
    }

    pub fn secret(mut self, id: &str, content: &str) -> Bench {
        self.request.spec.secrets.insert(id.to_owned(), auth::Secret::new(content));
        self
    }

    pub fn agent(mut self, id: &str) -> Bench {
        self.request.backends.agents.insert(id.to_owned(), sandbox::Server(Arc::new(Silent)));
        self
    }

    /// A directory as a named context, of `files`.
    pub fn directory_context(mut self, name: &str, files: &[(&str, &str)]) -> Bench {
        let path = self.directory.path().join(format!("context-{}", self.request.backends.contexts.len()));
        std::fs::create_dir(&path).unwrap();
        for (file, content) in files {
            put(&path, file, content);
        }
        let context: Context = context::open_dir(&path, None).unwrap();
        self.request.backends.contexts.insert(name.to_owned(), NamedContext::Directory(context));
        self
    }

    /// An image of [`Bench::images`] as a named context.
    pub fn image_context(mut self, name: &str, reference: &str) -> Bench {
        let context =
            NamedContext::Image { source: self.images.clone(), reference: Reference::parse(reference).unwrap() };
        self.request.backends.contexts.insert(name.to_owned(), context);
        self
    }

    /// What a RUN whose first word is `name` does, beyond the words of [`Scripted`].
    pub fn on(self, name: &str, action: impl Fn(&mut Call<'_>) -> Exit + Send + Sync + 'static) -> Bench {
        lock(&self.sandbox.actions).insert(name.to_owned(), Arc::new(action));
        self
    }

    /// A directory of this build that is neither context nor work directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn plan(&self) -> Plan {
        zuwai_build::plan(&self.request).unwrap_or_else(|e| panic!("{}", chain(&e)))
    }

    pub fn build(&self) -> Outcome {
        match self.try_build() {
            Ok(outcome) => outcome,
            Err(error) => panic!("{}\n{}", chain(&error), self.request.spec.dockerfile.source),
        }
    }

    #[expect(clippy::result_large_err, reason = "what the build itself returns")]
    pub fn try_build(&self) -> Result<Outcome, BuildError> {
        let built = zuwai_build::build(&self.request)?;
        let layout = store::Layout::open(&self.path("out")).unwrap();
        let image = layout.find(None, &Platform::host()).unwrap();
        assert_eq!(image.digest.as_ref(), Some(&built.digest), "the digest is the layout's");
        assert_eq!(image.encode().config_descriptor.digest, built.image_id, "the image ID is the config's digest");
        let (layers, contents) = image.layers.iter().map(read_layer).unzip();
        Ok(Outcome { built, image, layers, contents })
    }

    /// The error as people see it first: message, causes below it, all in one line.
    pub fn error(&self) -> String {
        match self.try_build() {
            Ok(_) => panic!("built\n{}", self.request.spec.dockerfile.source),
            Err(error) => chain(&error),
        }
    }

    /// Whether any image was written.
    pub fn exported(&self) -> bool {
        self.path("out").join("index.json").exists()
    }
}

/// 2023-11-14T22:13:20Z: long past, so that whatever is made now differs.
pub const EPOCH: i64 = 1_700_000_000;

fn put(root: &Path, path: &str, content: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// A finished build, read back from its layout.
pub struct Outcome {
    pub built: Built,
    pub image: Image,
    /// One line an entry, in the layer's order: see [`line`].
    pub layers: Vec<Vec<String>>,
    /// Regular files by path.
    contents: Vec<HashMap<PathBuf, String>>,
}

impl Outcome {
    /// `RUN x` or `(empty) ENV a=b`, one an instruction of ours and the base's.
    pub fn history(&self) -> Vec<String> {
        let text = |entry: &History| {
            let by = entry.created_by.clone().unwrap_or_default();
            if entry.empty_layer { format!("(empty) {by}") } else { by }
        };
        self.image.config.history.iter().map(text).collect()
    }

    pub fn diff_ids(&self) -> Vec<&DiffId> {
        self.image.layers.iter().map(|l| &l.diff_id).collect()
    }

    pub fn env(&self, name: &str) -> Option<&str> {
        let entries = self.image.config.config.env.iter();
        entries.filter_map(|e| e.split_once('=')).find(|(n, _)| *n == name).map(|(_, v)| v)
    }

    /// The config as JSON, without what changes from build to build.
    pub fn config(&self) -> serde_json::Value {
        serde_json::to_value(&self.image.config.config).unwrap()
    }

    /// What a file holds in the topmost layer that has it.
    pub fn content(&self, path: &str) -> Option<String> {
        self.contents.iter().rev().find_map(|files| files.get(Path::new(path)).cloned())
    }
}

fn read_layer(layer: &Layer) -> (Vec<String>, HashMap<PathBuf, String>) {
    let (mut lines, mut contents) = (Vec::new(), HashMap::new());
    let mut archive = tar::Archive::new(layer.uncompressed().unwrap());
    for mut entry in archive.entries().unwrap().map(Result::unwrap) {
        lines.push(line(&mut entry));
        if entry.header().entry_type() == tar::EntryType::Regular {
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            contents.insert(entry.path().unwrap().into_owned(), text);
        }
    }
    (lines, contents)
}

/// `f 644 0:0 etc/passwd`, `d …`, `l … name -> target`, `h …`.
fn line(entry: &mut tar::Entry<'_, impl Read>) -> String {
    let header = entry.header();
    let kind = match header.entry_type() {
        tar::EntryType::Regular => "f",
        tar::EntryType::Directory => "d",
        tar::EntryType::Symlink => "l",
        tar::EntryType::Link => "h",
        other => panic!("unexpected entry {other:?}"),
    };
    let owner = (header.uid().unwrap(), header.gid().unwrap());
    let mut text =
        format!("{kind} {:o} {}:{} {}", header.mode().unwrap(), owner.0, owner.1, entry.path().unwrap().display());
    if let Some(target) = entry.link_name().unwrap() {
        text = format!("{text} -> {}", target.display());
    }
    text
}

/// A base image to be.
#[derive(Clone, Default)]
pub struct Base {
    pub config: ImageConfig,
    /// Bottom first; each a tar of regular files.
    layers: Vec<Vec<u8>>,
    docker: bool,
}

impl Base {
    pub fn new() -> Base {
        let host = Platform::host();
        let config =
            ImageConfig { architecture: host.architecture, os: host.os, variant: host.variant, ..Default::default() };
        Base { config, ..Base::default() }
    }

    /// A layer of files, and its line of history.
    pub fn layer(mut self, files: &[(&str, &str)]) -> Base {
        let files: Vec<(&str, &[u8])> = files.iter().map(|(name, content)| (*name, content.as_bytes())).collect();
        self.layers.push(testkit::fixture::tar(&files));
        let created_by = Some(format!("layer {}", self.layers.len()));
        self.config.history.push(History { created_by, ..History::default() });
        self
    }

    pub fn config(mut self, change: impl FnOnce(&mut ImageConfig)) -> Base {
        change(&mut self.config);
        self
    }

    pub fn docker(mut self) -> Base {
        self.docker = true;
        self
    }
}

/// Images in memory that count what is asked of them.
#[derive(Default)]
pub struct Images {
    images: Mutex<HashMap<String, Image>>,
    /// Every reference that was asked for, in order.
    pub asked: Mutex<Vec<String>>,
    /// How often each blob was opened.
    pub opened: Arc<Mutex<BTreeMap<Digest, usize>>>,
}

impl Images {
    fn add(&self, reference: &str, base: Base) {
        let blobs: HashMap<Digest, Vec<u8>> = base.layers.iter().map(|l| (Digest::of(l), l.clone())).collect();
        let content = Arc::new(Memory { blobs, opened: self.opened.clone() });
        let flavor = if base.docker { Flavor::Docker } else { Flavor::Oci };
        let layer = |bytes: &Vec<u8>| Layer {
            descriptor: Descriptor::new(
                flavor.layer(Compression::None).unwrap(),
                Digest::of(bytes),
                bytes.len() as u64,
            ),
            diff_id: DiffId(Digest::of(bytes)),
            content: content.clone(),
            origin: None,
        };
        let mut image = Image {
            config: base.config,
            layers: base.layers.iter().map(layer).collect(),
            flavor,
            annotations: BTreeMap::from([("of.the.base".to_owned(), "not inherited".to_owned())]),
            digest: None,
        };
        image.digest = Some(image.encode().manifest_descriptor.digest);
        let name = Reference::parse(reference).unwrap().to_string();
        lock(&self.images).insert(name, image);
    }

    /// From now on every blob has a byte changed.
    pub fn damage(&self) {
        lock(&self.images).values_mut().flat_map(|i| &mut i.layers).for_each(|layer| {
            layer.content = Arc::new(Damaged(layer.content.clone()));
        });
    }

    pub fn downloads(&self) -> usize {
        lock(&self.opened).values().sum()
    }
}

impl ImageSource for Images {
    fn image(&self, reference: &Reference, _: &Platform) -> Result<Image, StoreError> {
        lock(&self.asked).push(reference.familiar());
        lock(&self.images).get(&reference.to_string()).cloned().ok_or_else(|| StoreError::Invalid {
            what: reference.familiar(),
            reason: "there is no such image".to_owned(),
        })
    }
}

struct Memory {
    blobs: HashMap<Digest, Vec<u8>>,
    opened: Arc<Mutex<BTreeMap<Digest, usize>>>,
}

impl BlobSource for Memory {
    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, StoreError> {
        *lock(&self.opened).entry(blob.digest.clone()).or_default() += 1;
        Ok(Box::new(std::io::Cursor::new(self.blobs[&blob.digest].clone())))
    }
}

struct Damaged(Arc<dyn BlobSource>);

impl BlobSource for Damaged {
    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, StoreError> {
        let mut bytes = Vec::new();
        self.0.open(blob)?.read_to_end(&mut bytes).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        Ok(Box::new(std::io::Cursor::new(bytes)))
    }
}

/// One RUN as the sandbox gets it.
pub struct Call<'a> {
    pub rootfs: &'a Tree,
    pub process: &'a Process,
    pub mounts: &'a [Mount],
    pub output: &'a mut dyn FnMut(Stream, &[u8]),
    pub cancelled: &'a dyn Fn() -> bool,
}

type Action = dyn Fn(&mut Call<'_>) -> Exit + Send + Sync;

/// Runs the last argument of a process as statements split by `;`:
/// `write PATH TEXT`, `link PATH TARGET`, `remove PATH`, `print TEXT`, `exit CODE`, `kill SIGNAL`, `nothing`, and names given to [`Bench::on`].
#[derive(Default)]
pub struct Scripted {
    actions: Mutex<HashMap<String, Arc<Action>>>,
    pub one_at_a_time: AtomicBool,
    /// Every process that ran, and its mounts.
    pub ran: Mutex<Vec<(Process, Vec<Mount>)>>,
    running: AtomicUsize,
    /// The most that ran at a time.
    pub most: AtomicUsize,
}

impl Scripted {
    /// The only process that ran.
    pub fn only(&self) -> (Process, Vec<Mount>) {
        let ran = lock(&self.ran);
        assert_eq!(ran.len(), 1, "one RUN");
        ran[0].clone()
    }

    fn statement(&self, text: &str, call: &mut Call<'_>) -> Exit {
        let (name, rest) = text.split_once(' ').unwrap_or((text, ""));
        let (first, second) = rest.split_once(' ').unwrap_or((rest, ""));
        match name {
            "write" => write(call.rootfs, Path::new(first), second),
            "link" => call.rootfs.make_symlink(Path::new(second), Path::new(first)).unwrap(),
            "remove" => call.rootfs.remove(Path::new(first)).unwrap(),
            "print" => (call.output)(Stream::Stdout, format!("{rest}\n").as_bytes()),
            "exit" => return Exit::Code(first.parse().unwrap()),
            "kill" => return Exit::Signal(first.parse().unwrap()),
            "nothing" => {}
            name => {
                let action = lock(&self.actions).get(name).cloned();
                return action.unwrap_or_else(|| panic!("no statement `{name}`"))(call);
            }
        }
        Exit::Code(0)
    }
}

/// Writes a file that is as old as [`EPOCH`], and so is its directory afterwards.
pub fn write(tree: &Tree, path: &Path, content: &str) {
    use std::io::Write as _;
    let old = tree.stat(path).unwrap();
    assert!(old.is_none_or(|o| o.kind == FileKind::File));
    tree.remove(path).unwrap();
    tree.make_file(path).unwrap().write_all(content.as_bytes()).unwrap();
    tree.set_mode(path, 0o644).unwrap();
    for touched in [path, path.parent().unwrap()] {
        tree.set_modified(touched, (EPOCH, 0)).unwrap();
    }
}

impl Sandbox for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn parallel(&self) -> bool {
        !self.one_at_a_time.load(Ordering::Relaxed)
    }

    fn run(
        &self,
        rootfs: &Tree,
        process: &Process,
        mounts: &[Mount],
        output: &mut (dyn FnMut(Stream, &[u8]) + Send),
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> Result<Ended, SandboxError> {
        lock(&self.ran).push((process.clone(), mounts.to_vec()));
        self.most.fetch_max(self.running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let script = process.args.last().unwrap().to_str().unwrap().to_owned();
        let mut call = Call { rootfs, process, mounts, output, cancelled };
        let mut exit = Exit::Code(0);
        for text in script.split(';').map(str::trim).filter(|t| !t.is_empty()) {
            exit = self.statement(text, &mut call);
            if exit != Exit::Code(0) {
                break;
            }
        }
        self.running.fetch_sub(1, Ordering::SeqCst);
        if cancelled() { Err(SandboxError::Cancelled) } else { Ok(exit.into()) }
    }
}

/// Every event, as text.
#[derive(Default)]
pub struct Recorder {
    pub lines: Mutex<Vec<String>>,
}

impl Recorder {
    pub fn having(&self, part: &str) -> Vec<String> {
        lock(&self.lines).iter().filter(|l| l.contains(part)).cloned().collect()
    }
}

impl Observer for Recorder {
    fn event(&self, event: &Event<'_>) {
        let text = match event {
            Event::Output { bytes, .. } => format!("output {}", String::from_utf8_lossy(bytes)),
            other => format!("{other:?}"),
        };
        lock(&self.lines).push(text);
    }
}

/// The files of a build as a tar in memory.
pub fn tar_output() -> (FilesOutput, Arc<Mutex<Vec<u8>>>) {
    let bytes = Arc::new(Mutex::new(Vec::new()));
    (FilesOutput::Tar(Mutex::new(Box::new(Shared(bytes.clone())))), bytes)
}

struct Shared(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        lock(&self.0).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Every file below `directory` with its content.
pub fn all_files(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(all_files(&entry.path()));
        } else if kind.is_file() {
            found.push((entry.path(), std::fs::read(entry.path()).unwrap()));
        }
    }
    found
}
