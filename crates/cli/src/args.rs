//! The command line: docker's spellings and kaniko's, as typed.
//!
//! Doc comments are the help. What was typed becomes values in [`crate::settings`], once; nobody else looks here.

mod empty;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};

/// What `words` say, the program's name being the first. Empty values, also of variables, are like no values.
pub fn parse(words: Vec<OsString>) -> Result<Cli, clap::Error> {
    let is_set_to_nothing = |name: &std::ffi::OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    let command = empty::drop_variables(Cli::command(), &is_set_to_nothing);
    let words = empty::drop_flags(&command, words);
    let matches = command.try_get_matches_from(words)?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut Cli::command()))
}

use crate::docker;

/// Build container images from Dockerfiles without privilege
#[derive(Debug, Parser)]
#[command(name = "zuwai", version, max_term_width = 110, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build an image and write it somewhere
    ///
    /// Example: zuwai build -t registry.example/app:1 .
    Build(Box<Build>),
    /// Check a Dockerfile without building it
    ///
    /// Looks for violations of BuildKit's build checks in every stage, or in what --target needs. Ends with status 3 when
    /// there are any. docs/lint.md says what each rule is about and how one is left out.
    ///
    /// Example: zuwai lint --offline .
    Lint(Box<Inquiry>),
    /// Show the arguments, secrets, SSH agents and caches that a target takes
    ///
    /// Example: zuwai outline --target test .
    Outline(Box<Inquiry>),
    /// List the stages of a Dockerfile that can be built
    Targets(Box<Inquiry>),
    /// Show which isolation back-ends work here, which one is chosen and why
    Doctor(Doctor),
    /// Print the version
    Version,
}

/// A question about a Dockerfile; the flags are those of `build`.
#[derive(Debug, Args)]
pub struct Inquiry {
    /// Build context, as for `build`
    #[arg(value_name = "CONTEXT")]
    pub positional_context: Option<String>,
    /// Dockerfile, tried as given, then in the context; `-` is standard input
    #[arg(short = 'f', long = "file", visible_alias = "dockerfile", value_name = "PATH")]
    pub file: Option<String>,
    /// Build context, as kaniko spells it
    #[arg(short = 'c', long, value_name = "CONTEXT")]
    pub context: Option<String>,
    /// Directory within the context to use as the context
    #[arg(long, value_name = "DIR")]
    pub context_sub_path: Option<PathBuf>,
    /// More contexts for FROM and --from: a directory, `docker-image://REF`, `oci-layout://DIR[:TAG]` (can be repeated)
    #[arg(long, value_name = "NAME=CONTEXT")]
    pub build_context: Vec<String>,
    /// Set a build argument; without `=` its value comes from the environment (can be repeated)
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub build_arg: Vec<String>,
    /// Stage to look at [default: the last one; `lint` looks at all]
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    pub target: Vec<String>,
    /// Platform to build for, `os/arch[/variant]` [default: this machine's]
    #[arg(long, visible_alias = "custom-platform", value_name = "PLATFORM")]
    pub platform: Option<String>,
    #[command(flatten)]
    pub asking: Asking,
    #[command(flatten)]
    pub registry: RegistryArgs,
    /// Directory where contexts are unpacked that are no directories [default: as for `build`]
    #[arg(long, env = "ZUWAI_DIR", hide_env_values = true, value_name = "DIR")]
    pub work_dir: Option<PathBuf>,
}

/// How a question is answered.
#[derive(Clone, Copy, Debug, Args)]
pub struct Asking {
    /// Format of the answer; `json` is what BuildKit's frontend answers
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: AnswerFormat,
    /// Ask no registry; what depends on base images is then not checked, and the answer says so
    #[arg(long)]
    pub offline: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum AnswerFormat {
    Text,
    Json,
}

impl Inquiry {
    /// The build that is asked about.
    pub fn into_build(self) -> Build {
        let plain = Build::augment_args(clap::Command::new("build").no_binary_name(true));
        let mut build =
            Build::from_arg_matches(&plain.get_matches_from([""; 0])).expect("no flag of a build is required");
        build.positional_context = self.positional_context;
        build.input.file = self.file;
        build.input.context = self.context;
        build.input.context_sub_path = self.context_sub_path;
        build.input.build_context = self.build_context;
        build.input.build_arg = self.build_arg;
        build.input.target = self.target;
        build.input.platform = self.platform;
        build.registry = self.registry;
        build.run.work_dir = self.work_dir;
        // Nothing is asked of outputs then.
        build.input.dry_run = true;
        build
    }
}

#[derive(Debug, Args)]
pub struct Doctor {
    /// Directory where stages would lie [default: as for `build`]
    #[arg(long, env = "ZUWAI_DIR", hide_env_values = true, value_name = "DIR")]
    pub work_dir: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Progress {
    /// Live on a terminal, plain lines elsewhere
    Auto,
    Plain,
    Tty,
    #[value(alias = "none")]
    Quiet,
    /// One JSON object a line
    Rawjson,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum LogFormat {
    Text,
    Color,
    Json,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug, ValueEnum)]
pub enum Verbosity {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
    Fatal,
    Panic,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum ImageFormat {
    Docker,
    Oci,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum CompressionName {
    Gzip,
    Zstd,
    None,
}

/// `--flag`, `--flag=true`, `--flag=false`, as kaniko's boolean flags are written.
macro_rules! switches {
    ($(#[$outer:meta])* pub struct $name:ident { $($(#[$meta:meta])* $field:ident: $default:literal,)* }) => {
        #[derive(Debug, Args)]
        $(#[$outer])*
        pub struct $name {
            $(
                $(#[$meta])*
                #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
                      default_value = $default, hide_default_value = true, hide_possible_values = true, value_name = "BOOL")]
                pub $field: bool,
            )*
        }
    };
}

#[derive(Debug, Args)]
pub struct Build {
    /// Build context: a directory, `tar://FILE`, `tar://stdin`, `https://…/x.tar.gz`, `https://…/x.git#REF:DIR`, or `-` for a
    /// tar on standard input
    #[arg(value_name = "CONTEXT")]
    pub positional_context: Option<String>,
    #[command(flatten)]
    pub input: Input,
    #[command(flatten)]
    pub output: Output,
    #[command(flatten)]
    pub registry: RegistryArgs,
    #[command(flatten)]
    pub run: RunArgs,
    #[command(flatten)]
    pub display: Display,
    #[command(flatten)]
    pub kaniko: KanikoSwitches,
    #[command(flatten)]
    pub unsupported: Unsupported,
    #[command(flatten)]
    pub docker: docker::Given,
}

impl Command {
    /// What is said how, where that can be told.
    pub fn display(&self) -> Option<&Display> {
        match self {
            Command::Build(build) => Some(&build.display),
            Command::Lint(_) | Command::Outline(_) | Command::Targets(_) | Command::Doctor(_) | Command::Version => {
                None
            }
        }
    }
}

impl Build {
    /// Whether there will be an image, and not only an answer about one.
    pub fn builds(&self) -> bool {
        !self.input.dry_run && !self.input.check && self.input.call.as_deref().is_none_or(|call| call == "build")
    }
}

#[derive(Debug, Args)]
#[command(next_help_heading = "What to build")]
pub struct Input {
    /// Dockerfile, tried as given, then in the context; `-` is standard input
    #[arg(short = 'f', long = "file", visible_alias = "dockerfile", value_name = "PATH")]
    pub file: Option<String>,
    /// Build context, as kaniko spells it; `git://HOST/REPO#REF#COMMIT` is fetched over HTTPS
    #[arg(short = 'c', long, value_name = "CONTEXT")]
    pub context: Option<String>,
    /// How `--context git://…` is cloned: `branch=NAME`, `single-branch=BOOL`, `depth=N`, `recurse-submodules=BOOL`,
    /// `insecure-skip-tls=BOOL` (can be repeated)
    #[arg(long, value_name = "KEY=VALUE")]
    pub git: Vec<String>,
    /// Directory within the context to use as the context
    #[arg(long, value_name = "DIR")]
    pub context_sub_path: Option<PathBuf>,
    /// More contexts for FROM and --from: a directory, `docker-image://REF`, `oci-layout://DIR[:TAG]`, `https://…/x.tar.gz`,
    /// `https://…/x.git#REF:DIR` (can be repeated)
    #[arg(long, value_name = "NAME=CONTEXT")]
    pub build_context: Vec<String>,
    /// Set a build argument; without `=` its value comes from the environment (can be repeated)
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub build_arg: Vec<String>,
    /// Stage to build; of several (can be repeated, or with commas) the first is exported, the others are built as well
    /// [default: the last one]
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    pub target: Vec<String>,
    /// Platform to build for, `os/arch[/variant]` [default: this machine's]
    #[arg(long, visible_alias = "custom-platform", alias = "customPlatform", value_name = "PLATFORM")]
    pub platform: Option<String>,
    /// Offer a secret to RUN --mount=type=secret: `id=ID[,src=FILE|,env=NAME]` (can be repeated)
    #[arg(long, value_name = "SPEC")]
    pub secret: Vec<String>,
    /// Offer an SSH agent to RUN --mount=type=ssh: `default` or `ID[=SOCKET|=KEY[,KEY...]]` (can be repeated)
    ///
    /// Without a path it is the agent at `SSH_AUTH_SOCK`. A path is the socket of an agent, or a private key in OpenSSH's format or PEM
    /// without a passphrase (ed25519, ecdsa with nistp256 or nistp384, rsa of 2048 to 4096 bits), for which zuwai is the agent
    /// itself. A step can list the keys and have things signed, and no more.
    #[arg(long, value_name = "SPEC")]
    pub ssh: Vec<String>,
    /// Set a label of the image; without `=` it has no value (can be repeated)
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub label: Vec<String>,
    /// Add a host to /etc/hosts of RUN steps (can be repeated)
    #[arg(long, value_name = "HOST:ADDRESS")]
    pub add_host: Vec<String>,
    /// Answer a question instead of building, as docker spells it: `check` (see `zuwai lint`), `outline` or `targets`, with
    /// `,format=json` behind it if wanted
    #[arg(long, alias = "print", value_name = "METHOD")]
    pub call: Option<String>,
    /// The same as --call=check
    #[arg(long, conflicts_with = "call", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false", hide_default_value = true, hide_possible_values = true, value_name = "BOOL")]
    pub check: bool,
    /// Print what would be built, then stop
    #[arg(long, alias = "dryrun", alias = "plan", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false", hide_default_value = true, hide_possible_values = true, value_name = "BOOL")]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Where it goes")]
pub struct Output {
    /// Name the image; it is pushed there with --push or in kaniko's manner (can be repeated)
    #[arg(short = 't', long, value_name = "REFERENCE")]
    pub tag: Vec<String>,
    /// Push to this reference (can be repeated)
    #[arg(short = 'd', long, value_name = "REFERENCE")]
    pub destination: Vec<String>,
    /// Push to each --tag
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
          hide_default_value = true, hide_possible_values = true, value_name = "BOOL")]
    pub push: bool,
    /// Write the image: `type=oci|docker|tar|local,dest=PATH`, `type=image,name=REF,push=true`, `type=registry,name=REF`, a
    /// directory for its files, or nothing of it: `type=cacheonly`
    #[arg(short = 'o', long, value_name = "SPEC")]
    pub output: Vec<String>,
    /// Write an OCI image layout directory
    #[arg(long, value_name = "DIR")]
    pub oci_layout_path: Option<PathBuf>,
    /// Write a `docker save` archive
    #[arg(long, alias = "tarPath", value_name = "FILE")]
    pub tar_path: Option<PathBuf>,
    /// Build again, write nothing, and compare with an image: a reference, `oci-layout://DIR[:TAG]` or `docker-archive:FILE`
    ///
    /// Ends with 0 when it is the same image, to the digest, and with 7 and a list of what is different when not.
    #[arg(long, value_name = "IMAGE",
          conflicts_with_all = ["push", "destination", "output", "oci_layout_path", "tar_path"])]
    pub verify: Option<String>,
    /// Write the manifest digest to a file
    #[arg(long, value_name = "FILE")]
    pub digest_file: Option<PathBuf>,
    /// Write `REPOSITORY@DIGEST` lines to a file
    #[arg(long, value_name = "FILE")]
    pub image_name_with_digest_file: Option<PathBuf>,
    /// Write `REPOSITORY:TAG@DIGEST` lines to a file
    #[arg(long, value_name = "FILE")]
    pub image_name_tag_with_digest_file: Option<PathBuf>,
    /// Write the image ID (config digest) to a file
    #[arg(long, value_name = "FILE")]
    pub iidfile: Option<PathBuf>,
    /// Write what was built as JSON to a file
    #[arg(long, value_name = "FILE")]
    pub metadata_file: Option<PathBuf>,
    /// Set a manifest annotation (can be repeated)
    #[arg(long, value_name = "NAME=VALUE")]
    pub annotation: Vec<String>,
    /// Media types of the image [default: those of the base image]
    #[arg(long, value_name = "FORMAT")]
    pub image_format: Option<ImageFormat>,
    /// Compression of new layers [default: gzip]
    #[arg(long, value_name = "NAME")]
    pub compression: Option<CompressionName>,
    /// Compression level [default: 5 for gzip, 3 for zstd]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub compression_level: Option<i32>,
    /// Leave a path out of every layer (can be repeated)
    #[arg(long, value_name = "PATH")]
    pub ignore_path: Vec<PathBuf>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Registries")]
pub struct RegistryArgs {
    /// Registry that is spoken to over plain HTTP (can be repeated)
    #[arg(long, value_name = "HOST")]
    pub insecure_registry: Vec<String>,
    /// Registry whose certificate is not checked (can be repeated)
    #[arg(long, value_name = "HOST")]
    pub skip_tls_verify_registry: Vec<String>,
    /// CA certificates for a registry (can be repeated)
    #[arg(long, value_name = "HOST=FILE")]
    pub registry_certificate: Vec<String>,
    /// Client certificate for a registry (can be repeated)
    #[arg(long, value_name = "HOST=CERT,KEY")]
    pub registry_client_cert: Vec<String>,
    /// Pull from elsewhere: `FROM=TO[;FROM=TO…]` (can be repeated)
    #[arg(long, env = "KANIKO_REGISTRY_MAP", hide_env_values = true, value_name = "MAP")]
    pub registry_map: Vec<String>,
    /// Mirror of Docker Hub (can be repeated)
    #[arg(long, env = "KANIKO_REGISTRY_MIRROR", hide_env_values = true, value_name = "HOST")]
    pub registry_mirror: Vec<String>,
    /// How often a failed request is tried again [default: 4]
    #[arg(long, value_name = "N")]
    pub push_retry: Option<u32>,
    /// The same as --push-retry; the larger of the two counts [default: 4]
    #[arg(long, value_name = "N")]
    pub image_download_retry: Option<u32>,
    /// How often unpacking a base image is tried again; here a failed download is resumed instead
    #[arg(long, value_name = "N", hide = true)]
    pub image_fs_extract_retry: Option<u32>,
    /// Credential helpers to use besides the docker config: `env` or none
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub credential_helpers: Option<Vec<String>>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "How it runs")]
pub struct RunArgs {
    /// Isolation back-end: auto, namespace, inplace or emulate (see `zuwai doctor`)
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub isolation: String,
    /// Directory for rootfs trees, layers on their way and cache mounts [default: /zuwai in a container, else a cache
    /// directory]
    #[arg(long, env = "ZUWAI_DIR", hide_env_values = true, visible_alias = "kaniko-dir", value_name = "DIR")]
    pub work_dir: Option<PathBuf>,
    /// How many steps run, and how many processors work on files and compress layers [default: number of processors, and at
    /// least 8 steps]
    #[arg(long, value_name = "N")]
    pub jobs: Option<usize>,
    /// Build without cache; there is none yet
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
          hide_default_value = true, hide_possible_values = true, value_name = "BOOL")]
    pub no_cache: bool,
    /// Ask the registry for base images, as is always done
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true",
          hide_default_value = true, hide_possible_values = true, value_name = "BOOL", hide = true)]
    pub pull: bool,
    /// Network of RUN steps that say nothing of it: default, host (both the network of zuwai itself) or none
    #[arg(long, value_name = "MODE")]
    pub network: Option<String>,
    /// Size of /dev/shm in RUN steps, such as 64m or 1g
    #[arg(long, value_name = "SIZE")]
    pub shm_size: Option<String>,
    /// What to do when a RUN fails: `shell` (on a terminal: a shell in its rootfs), `keep` (keep its files),
    /// `export=DIR`, `export=FILE.tar`, or `push=REFERENCE` (its rootfs as an image)
    #[arg(long, value_name = "WHAT")]
    pub on_failure: Option<String>,
    /// Bound of what one layer of a base image may unpack to, in GiB
    #[arg(long, value_name = "GIB", default_value_t = 256)]
    pub layer_limit: u64,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "What it shows")]
pub struct Display {
    /// How progress is shown
    #[arg(long, value_name = "HOW", default_value = "auto")]
    pub progress: Progress,
    /// Print only the digest and errors
    #[arg(short = 'q', long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false", hide_default_value = true, hide_possible_values = true, value_name = "BOOL")]
    pub quiet: bool,
    /// Least severity to show
    #[arg(short = 'v', long, value_name = "LEVEL", default_value = "info", ignore_case = true)]
    pub verbosity: Verbosity,
    /// Format of messages
    #[arg(long, value_name = "FORMAT", default_value = "color", ignore_case = true)]
    pub log_format: LogFormat,
}

switches! {
    #[command(next_help_heading = "kaniko switches")]
    pub struct KanikoSwitches {
        /// Do not push to --destination
        no_push: "false",
        /// Speak plain HTTP to the registries of the destinations
        insecure: "false",
        /// Speak plain HTTP to any registry that has no HTTPS
        insecure_pull: "false",
        /// Do not check the certificates of the destinations' registries
        skip_tls_verify: "false",
        /// Do not check any registry's certificate
        skip_tls_verify_pull: "false",
        /// Do not fall back to the registry of the image when no mirror has it
        skip_default_registry_fallback: "false",
        /// Do not check before the build that the destination can be pushed to
        skip_push_permission_check: "false",
        /// End well when a tag is immutable and already there
        push_ignore_immutable_tag_errors: "false",
        /// Clamp times in new layers to SOURCE_DATE_EPOCH (0 where unset) and write it as the creation time
        reproducible: "false",
        /// Show times in messages
        log_timestamp: "false",
        /// Let `--isolation=inplace` take over `/` without a sign that this is a container
        force: "false",
        /// Nothing to clean before: every stage has a rootfs of its own
        #[arg(hide = true)]
        pre_cleanup: "false",
        /// Remove the files of the build also where they go with the container
        #[arg(hide = true)]
        cleanup: "false",
        /// The context is never touched
        #[arg(hide = true)]
        preserve_context: "false",
        /// Changes are always found exactly
        #[arg(hide = true)]
        use_new_run: "false",
        /// Layers are always compressed as they stream
        #[arg(hide = true)]
        compressed_caching: "true",
        /// The builder's /var/run is never in a layer; the image's own always is what the steps made it
        #[arg(hide = true, alias = "whitelist-var-run")]
        ignore_var_run: "true",
        /// Always done
        #[arg(hide = true)]
        force_build_metadata: "false",
        /// Always done
        #[arg(hide = true)]
        skip_unused_stages: "false",
    }
}

/// Flags that parse and have no effect yet: giving one is an error that says so.
#[derive(Debug, Args)]
#[command(next_help_heading = "Not supported yet (an error when given)")]
pub struct Unsupported {
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide = true)]
    pub cache: Option<bool>,
    #[arg(long, value_name = "REPOSITORY", hide = true)]
    pub cache_repo: Option<String>,
    #[arg(long, value_name = "DIR", hide = true)]
    pub cache_dir: Option<String>,
    #[arg(long, value_name = "DURATION", hide = true)]
    pub cache_ttl: Option<String>,
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide = true)]
    pub cache_copy_layers: Option<bool>,
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide = true)]
    pub cache_run_layers: Option<bool>,
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide = true)]
    pub no_push_cache: Option<bool>,
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide = true)]
    pub single_snapshot: Option<bool>,
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide = true)]
    pub materialize: Option<bool>,
    #[arg(short = 'b', long, value_name = "BUCKET", hide = true)]
    pub bucket: Option<String>,
    #[arg(long, value_name = "FILE", hide = true)]
    pub azure_container_registry_config: Option<String>,
    /// Any of kaniko's modes: changes are always found exactly, which is what `full` promises.
    #[arg(long, alias = "snapshotMode", value_name = "MODE", value_parser = ["full", "redo", "time"], hide = true)]
    pub snapshot_mode: Option<String>,
}

impl Unsupported {
    /// The first flag that was given and would have no effect.
    pub fn first(&self) -> Option<&'static str> {
        let given = [
            (self.cache == Some(true), "--cache (the layer cache)"),
            (self.cache_repo.is_some(), "--cache-repo (the layer cache)"),
            (self.cache_dir.is_some(), "--cache-dir (the base image cache)"),
            (self.cache_copy_layers == Some(true), "--cache-copy-layers (the layer cache)"),
            (self.single_snapshot == Some(true), "--single-snapshot"),
            (self.materialize == Some(true), "--materialize"),
            (self.bucket.is_some(), "--bucket (contexts in object stores)"),
            (self.azure_container_registry_config.is_some(), "--azure-container-registry-config (cloud credentials)"),
        ];
        given.into_iter().find(|(given, _)| *given).map(|(_, name)| name)
    }
}
