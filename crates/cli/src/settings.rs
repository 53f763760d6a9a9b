//! What was typed, as values: made once, from flags and environment; nobody asks for a flag after this.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use auth::Secret;
use context::GitScheme;
use dockerfile::lint::Checks;
use dockerfile::{Dockerfile, Network};
use net::{Proxies, Settings, SystemCertificates};
use oci::media_type::Compression;
use oci::{Flavor, Platform, Reference};
use ssh::{Agent, Key, KeyError};

use crate::Manner;
use crate::args::{Build, CompressionName, ImageFormat, Input, Output, RegistryArgs};
use crate::labels::{fields, pair};
use crate::report::Failure;

/// Build arguments; a bare name takes the environment's value, and is left out where that has none (as docker does).
pub fn build_args(words: &[String]) -> BTreeMap<String, String> {
    let value = |word: &String| match word.split_once('=') {
        Some((name, value)) => Some((name.to_owned(), value.to_owned())),
        None => std::env::var(word).ok().map(|value| (word.clone(), value)),
    };
    words.iter().filter_map(value).collect()
}

/// The build argument `BUILDKIT_DOCKERFILE_CHECK`, which replaces a `# check=` directive.
pub fn checks(build_args: &BTreeMap<String, String>) -> Result<Option<Checks>, Failure> {
    let given = build_args.get("BUILDKIT_DOCKERFILE_CHECK");
    given.map(|text| Checks::parse(text)).transpose().map_err(Failure::usage)
}

pub fn pairs(flag: &str, words: &[String]) -> Result<Vec<(String, String)>, Failure> {
    words.iter().map(|w| pair(flag, w).map(|(n, v)| (n.to_owned(), v.to_owned()))).collect()
}

/// As docker has it, a name alone is a label without a value.
pub fn labels(words: &[String]) -> Result<Vec<(String, String)>, Failure> {
    let label = |word: &String| match word.split_once('=') {
        None if !word.is_empty() => Ok((word.clone(), String::new())),
        _ => pair("--label", word).map(|(name, value)| (name.to_owned(), value.to_owned())),
    };
    words.iter().map(label).collect()
}

/// The network of RUN steps that say nothing of it. `host` is what `default` is: steps share the network of zuwai itself.
pub fn run_network(word: Option<&str>) -> Result<Network, Failure> {
    match word {
        None | Some("" | "default") => Ok(Network::Default),
        Some("host") => Ok(Network::Host),
        Some("none") => Ok(Network::None),
        Some(other) => Err(Failure::Usage {
            message: format!("`--network={other}`: there is no daemon that has networks"),
            hint: Some("there are default and host, the network of zuwai itself, and none".to_owned()),
        }),
    }
}

/// `64m`, `1.5GB`, `1048576`, as docker counts; 0 is the size that there is anyway.
pub fn shm_bytes(word: Option<&str>) -> Result<Option<u64>, Failure> {
    let Some(word) = word.filter(|word| !word.is_empty()) else { return Ok(None) };
    let bytes = dockerfile::size_bytes(word.trim())
        .ok_or_else(|| Failure::usage(format!("`--shm-size={word}`: expected a size such as 64m or 1g")))?;
    Ok(Some(bytes).filter(|bytes| *bytes > 0))
}

/// The name of a target. In kaniko's manner it may be a stage's number; BuildKit, and docker with it, takes names only.
pub fn target(word: &str, file: &Dockerfile, manner: Manner) -> String {
    let stage = |number: usize| Some((number, &file.stages.get(number)?.from));
    match word.parse().ok().filter(|_| manner == Manner::Kaniko).and_then(stage) {
        Some((number, from)) => from.name.as_ref().map_or_else(|| format!("#{number}"), |name| name.text.clone()),
        None => word.to_owned(),
    }
}

pub fn platform(input: &Input) -> Result<Option<Platform>, Failure> {
    match &input.platform {
        None => Ok(None),
        Some(several) if several.contains(',') => {
            Err(Failure::usage("not supported yet: several values of --platform"))
        }
        Some(text) => Platform::parse(text).map(Some).map_err(|e| Failure::usage(format!("--platform: {e}"))),
    }
}

/// `HOST:ADDRESS` or `HOST=ADDRESS` words.
pub fn extra_hosts(words: &[String]) -> Result<Vec<(String, String)>, Failure> {
    let split = |word: &String| {
        let (host, address) = word.split_once(['=', ':'])?;
        let address = address.trim_start_matches('[').trim_end_matches(']');
        address.parse::<std::net::IpAddr>().ok().map(|a| (host.to_owned(), a.to_string()))
    };
    let failed = |word: &String| match word.strip_suffix("host-gateway") {
        Some(_) => Failure::Usage {
            message: format!("`--add-host {word}`: there is no daemon that has a gateway"),
            hint: Some("steps are in the network of zuwai itself: give the address as it is known there".to_owned()),
        },
        None => Failure::usage(format!("`--add-host {word}`: expected HOST:ADDRESS")),
    };
    words.iter().map(|w| split(w).ok_or_else(|| failed(w))).collect()
}

/// `id=ID[,src=FILE][,env=NAME][,type=file|env]`, read now: the files may be out of reach later.
///
/// Without src and env the variable named like the id is taken, else the file of that name (kaniko and docker).
pub fn secrets(words: &[String]) -> Result<BTreeMap<String, Secret<Vec<u8>>>, Failure> {
    let mut secrets = BTreeMap::new();
    for word in words {
        let (id, secret) = secret(word)?;
        if secrets.insert(id.clone(), secret).is_some() {
            return Err(Failure::usage(format!("secret `{id}` is given twice")));
        }
    }
    Ok(secrets)
}

fn secret(word: &str) -> Result<(String, Secret<Vec<u8>>), Failure> {
    let (mut id, mut src, mut env, mut kind) = (None, None, None, None);
    for (key, value) in fields(word) {
        match key.as_str() {
            "id" => id = Some(value),
            "src" | "source" => src = Some(value),
            "env" => env = Some(value),
            "type" => kind = Some(value),
            other => return Err(Failure::usage(format!("`--secret {word}`: unknown key `{other}`"))),
        }
    }
    let id = id.filter(|i| !i.is_empty()).ok_or_else(|| Failure::usage(format!("`--secret {word}`: no `id`")))?;
    match kind.as_deref() {
        None | Some("file") => {}
        Some("env") => env = env.or(src.take()).or_else(|| Some(id.clone())),
        Some(other) => {
            return Err(Failure::usage(format!("`--secret {word}`: type `{other}` is neither file nor env")));
        }
    }
    if env.is_none() && src.is_none() {
        match std::env::var_os(&id) {
            Some(_) => env = Some(id.clone()),
            None => src = Some(id.clone()),
        }
    }
    use std::os::unix::ffi::OsStringExt;
    let bytes = match (env, src) {
        (Some(name), _) => std::env::var_os(&name)
            .map(OsStringExt::into_vec)
            .ok_or_else(|| Failure::usage(format!("secret `{id}`: variable `{name}` is not set")))?,
        (None, Some(path)) => {
            let read = read_at_most(Path::new(&path), SECRET_MAX_BYTES);
            read.map_err(|e| Failure::usage(format!("secret `{id}`: could not read `{path}`: {e}")))?
        }
        (None, None) => Vec::new(),
    };
    Ok((id, Secret::new(bytes)))
}

/// `default` or `ID[=PATH[,PATH...]]`, as `docker buildx build --ssh` and `buildctl` have it. Keys are read now, and sockets found:
/// they may be out of reach later.
pub fn agents(words: &[String], own: Option<&Path>) -> Result<BTreeMap<String, Agent>, Failure> {
    let mut agents = BTreeMap::new();
    for word in words {
        let (id, paths) = word.split_once('=').unwrap_or((word, ""));
        let id = if id.is_empty() { "default" } else { id };
        let agent = agent(paths, own)
            .map_err(|(problem, hint)| Failure::Usage { message: format!("SSH agent `{id}`: {problem}"), hint })?;
        if agents.insert(id.to_owned(), agent).is_some() {
            return Err(Failure::usage(format!("SSH agent `{id}` is given twice")));
        }
    }
    Ok(agents)
}

/// What is wrong, and what helps.
type Problem = (String, Option<String>);

fn agent(paths: &str, own: Option<&Path>) -> Result<Agent, Problem> {
    let plain = |problem: String| (problem, None);
    if let Some(raw) = paths.split(',').find(|path| path.starts_with("raw=")) {
        return Err(plain(format!("not supported yet: `{raw}` (a socket of which every byte is passed on)")));
    }
    let paths: Vec<&Path> = match paths {
        "" => vec![own.ok_or_else(|| {
            let hint = "start an agent (`eval $(ssh-agent)`, `ssh-add`), or name a private key: `--ssh default=FILE`";
            ("`SSH_AUTH_SOCK` is not set".to_owned(), Some(hint.to_owned()))
        })?],
        paths => paths.split(',').map(Path::new).collect(),
    };
    let failed = |path: &Path, error: std::io::Error| plain(format!("could not open `{}`: {error}", path.display()));
    let mut keys = Vec::new();
    for path in &paths {
        let kind = std::fs::metadata(path).map_err(|error| failed(path, error))?.file_type();
        if kind.is_socket() {
            return match paths.len() {
                1 => Agent::at_socket(path).map_err(|error| failed(path, error)),
                _ => Err(plain("one socket, or keys, and not both".to_owned())),
            };
        }
        let text = read_at_most(path, KEY_MAX_BYTES).map_err(|error| failed(path, error))?;
        keys.push(Key::parse(&text).map_err(|error| {
            let hint = match error {
                KeyError::Encrypted => Some("add it to an agent (`ssh-add FILE`), and pass that: `--ssh default`"),
                KeyError::NoKey => Some("a private key is needed, not the public one (`.pub`)"),
                KeyError::Malformed | KeyError::Kind(_) | KeyError::Rejected(_) => None,
            };
            (format!("`{}`: {error}", path.display()), hint.map(str::to_owned))
        })?);
    }
    Ok(Agent::of_keys(keys))
}

/// As much as BuildKit reads of a key (`sshprovider`, toDialer).
const KEY_MAX_BYTES: u64 = 100 * 1024;

/// Logins and wishes for a build context from git.
pub struct Git {
    pub settings: git::Settings,
    /// `--git=insecure-skip-tls=true`
    pub skip_verify: bool,
}

/// `--git`, kaniko's variables, BuildKit's secrets and build arguments.
pub fn git(
    input: &Input,
    secrets: &BTreeMap<String, Secret<Vec<u8>>>,
    build_args: &BTreeMap<String, String>,
) -> Result<Git, Failure> {
    let logins = secrets.iter().filter(|(name, _)| name.starts_with("GIT_AUTH_"));
    let auth = git::Auth {
        secrets: logins.map(|(name, secret)| (name.clone(), secret.clone())).collect(),
        user: git_user(&|name| std::env::var(name).ok().filter(|value| !value.is_empty())),
    };
    let (clone, skip_verify) = clone_settings(&input.git)?;
    let settings = git::Settings {
        auth,
        keep_git_dir: build_args.get("BUILDKIT_CONTEXT_KEEP_GIT_DIR").is_some_and(|text| truth(text) == Some(true)),
        commit_times: build_args.get("SOURCE_DATE_EPOCH").is_some_and(|text| !text.is_empty()),
        clone,
    };
    Ok(Git { settings, skip_verify })
}

/// kaniko `getGitAuth`: a token takes the place of the user.
fn git_user(variable: &dyn Fn(&str) -> Option<String>) -> Option<(Secret, Secret)> {
    if let Some(token) = variable("GIT_TOKEN") {
        return Some((Secret::new(token), Secret::new("")));
    }
    let (user, password) = (variable("GIT_USERNAME"), variable("GIT_PASSWORD"));
    (user.is_some() || password.is_some())
        .then(|| (Secret::new(user.unwrap_or_default()), Secret::new(password.unwrap_or_default())))
}

/// What kaniko's `git://` stands for: any other value of `GIT_PULL_METHOD` means HTTPS, as there.
pub fn git_scheme() -> GitScheme {
    match std::env::var("GIT_PULL_METHOD").as_deref() {
        Ok("http") => GitScheme::Http,
        _ => GitScheme::Https,
    }
}

fn clone_settings(words: &[String]) -> Result<(git::CloneSettings, bool), Failure> {
    let (mut clone, mut skip_verify) = (git::CloneSettings::default(), false);
    for word in words {
        for (key, value) in fields(word) {
            let bad = |expected: &str| Failure::usage(format!("`--git {word}`: `{key}` is {expected}"));
            let switch = || truth(&value).ok_or_else(|| bad("true or false"));
            match key.as_str() {
                "branch" => clone.branch = Some(value).filter(|branch| !branch.is_empty()),
                "single-branch" => clone.single_branch = switch()?,
                "depth" => {
                    let depth = value.parse().map_err(|_| bad("a number of commits, 0 for all"))?;
                    clone.depth = Some(depth).filter(|depth| *depth > 0);
                }
                "recurse-submodules" => clone.submodules = switch()?,
                "insecure-skip-tls" => skip_verify = switch()?,
                _ => {
                    let known = "branch, single-branch, depth, recurse-submodules and insecure-skip-tls";
                    return Err(Failure::usage(format!("`--git {word}`: unknown key `{key}`; known are {known}")));
                }
            }
        }
    }
    Ok((clone, skip_verify))
}

/// As much as BuildKit takes (`secretsprovider.MaxSecretSize`): a larger file is hardly a secret, and may have no end.
const SECRET_MAX_BYTES: u64 = 500 * 1024;

pub fn read_at_most(path: &Path, most: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(std::io::Error::other(format!("larger than {} KiB", most >> 10)));
    }
    Ok(bytes)
}

pub fn flavor(output: &Output) -> Result<Option<Flavor>, Failure> {
    let flavor = output.image_format.map(|format| match format {
        ImageFormat::Docker => Flavor::Docker,
        ImageFormat::Oci => Flavor::Oci,
    });
    if flavor == Some(Flavor::Docker) && output.compression == Some(CompressionName::Zstd) {
        return Err(Failure::usage("--image-format=docker has no media type for --compression=zstd"));
    }
    Ok(flavor)
}

pub fn compression(output: &Output) -> Compression {
    match output.compression {
        None | Some(CompressionName::Gzip) => Compression::Gzip,
        Some(CompressionName::Zstd) => Compression::Zstd,
        Some(CompressionName::None) => Compression::None,
    }
}

/// kaniko counts only levels above 0 and lets -1 mean the default.
pub fn compression_level(output: &Output) -> Result<Option<u32>, Failure> {
    let level = output.compression_level.and_then(|level| u32::try_from(level).ok()).filter(|level| *level > 0);
    let compression = store::LayerCompression { kind: compression(output), level, threads: 1 };
    compression.check().map_err(|error| Failure::usage(error.to_string()))?;
    Ok(level)
}

/// The variable of the environment that is a build argument without being asked for, as buildx passes it on.
pub const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// The build arguments that were typed, and [`EPOCH`] of the environment.
pub fn build_args_and_epoch(words: &[String]) -> BTreeMap<String, String> {
    let mut args = build_args(words);
    if let Some(epoch) = std::env::var(EPOCH).ok().filter(|text| !text.is_empty()) {
        args.entry(EPOCH.to_owned()).or_insert(epoch);
    }
    args
}

/// [`EPOCH`] of the build arguments.
pub fn source_date_epoch(args: &BTreeMap<String, String>) -> Result<Option<i64>, Failure> {
    let given = args.get(EPOCH).filter(|text| !text.is_empty());
    let parse = |text: &String| {
        text.parse().map_err(|_| Failure::usage(format!("{EPOCH} `{text}` is not a number of seconds")))
    };
    given.map(parse).transpose()
}

/// Where images are pushed: every --destination, every --tag with --push, and every --output that says so.
pub fn destinations(build: &Build) -> Result<Vec<Reference>, Failure> {
    let mut texts: Vec<String> = Vec::new();
    if !no_push(build)? {
        texts.extend_from_slice(&build.output.destination);
    }
    if build.output.push {
        texts.extend_from_slice(&build.output.tag);
    }
    for spec in &build.output.output {
        if !is_push(spec, build.output.push)? {
            continue;
        }
        let named = match output_fields(spec).get("name") {
            Some(names) => names.split(',').map(str::to_owned).collect(),
            None => [&build.output.destination[..], &build.output.tag].concat(),
        };
        if named.is_empty() {
            return Err(Failure::usage(format!("`--output {spec}`: no `name`, and no --tag")));
        }
        texts.extend(named);
    }
    references(texts.iter().collect())
}

/// One `--output` by its keys; without any it is a directory for the files, or `-` for a tar of them.
pub fn output_fields(spec: &str) -> BTreeMap<String, String> {
    if spec.contains('=') {
        return fields(spec).into_iter().collect();
    }
    let kind = if spec == "-" { "tar" } else { "local" };
    [("type", kind), ("dest", spec)].map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// Whether an `--output` goes to standard output.
pub fn is_to_stdout(spec: &str) -> bool {
    output_fields(spec).get("dest").is_some_and(|dest| dest == "-")
}

/// Whether an `--output` asks for `rewrite-timestamp=true`, which is --reproducible in docker's spelling. Layers are made once,
/// for all outputs: two that contradict each other cannot both be right.
pub fn rewrites_timestamps(output: &Output) -> Result<bool, Failure> {
    let mut asked = None;
    for spec in &output.output {
        let Some(text) = output_fields(spec).remove("rewrite-timestamp") else { continue };
        let Some(wanted) = truth(&text) else {
            return Err(Failure::usage(format!("`--output {spec}`: rewrite-timestamp is neither true nor false")));
        };
        if asked.replace(wanted).is_some_and(|before| before != wanted) {
            return Err(Failure::usage("one --output has rewrite-timestamp=true and another one false"));
        }
    }
    Ok(asked == Some(true))
}

/// Whether an `--output` means a registry. `type=registry` is docker's word for `type=image,push=true`, and `--push` says that of
/// every `type=image` that does not say otherwise.
pub fn is_push(spec: &str, push: bool) -> Result<bool, Failure> {
    let fields = output_fields(spec);
    let unsaid = match fields.get("type").map(String::as_str) {
        Some("registry") => true,
        Some("image") => push,
        _ => return Ok(false),
    };
    match fields.get("push").map(String::as_str) {
        None => Ok(unsaid),
        Some("") => Ok(true),
        Some(text) => {
            let neither = || Failure::usage(format!("`--output {spec}`: push is neither true nor false"));
            truth(text).ok_or_else(neither)
        }
    }
}

pub fn no_push(build: &Build) -> Result<bool, Failure> {
    Ok(build.kaniko.no_push || env_flag("KANIKO_NO_PUSH")?)
}

/// Every name the image was given, pushed or not.
pub fn names(build: &Build) -> Result<Vec<Reference>, Failure> {
    references(build.output.destination.iter().chain(&build.output.tag).collect())
}

fn references(texts: Vec<&String>) -> Result<Vec<Reference>, Failure> {
    let mut found: Vec<Reference> = Vec::new();
    for text in texts {
        let reference = Reference::parse(text).map_err(|e| Failure::usage(e.to_string()))?;
        if reference.digest.is_some() {
            return Err(Failure::usage(format!("`{text}`: an image cannot be pushed to a digest, give a tag")));
        }
        if !found.contains(&reference) {
            found.push(reference);
        }
    }
    Ok(found)
}

fn env_flag(name: &str) -> Result<bool, Failure> {
    match std::env::var(name) {
        Err(_) => Ok(false),
        Ok(text) if text.is_empty() => Ok(false),
        Ok(text) => {
            let neither = || Failure::usage(format!("variable `{name}` is `{text}`, neither true nor false"));
            truth(&text).ok_or_else(neither)
        }
    }
}

/// What Go's `ParseBool` takes, in any mixture of cases.
pub fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "t" | "true" => Some(true),
        "0" | "f" | "false" => Some(false),
        _ => None,
    }
}

/// How hosts are reached.
pub fn network(build: &Build, destinations: &[Reference], cancelled: &Arc<AtomicBool>) -> Result<Settings, Failure> {
    let args = &build.registry;
    let mut settings = Settings::new(&user_agent());
    settings.plain_http.clone_from(&args.insecure_registry);
    if build.kaniko.insecure {
        settings.plain_http.extend(destinations.iter().map(|d| d.registry.clone()));
    }
    settings.plain_http_all = build.kaniko.insecure_pull;
    settings.skip_verify.clone_from(&args.skip_tls_verify_registry);
    if build.kaniko.skip_tls_verify {
        settings.skip_verify.extend(destinations.iter().map(|d| d.registry.clone()));
    }
    settings.skip_verify_all = build.kaniko.skip_tls_verify_pull;
    for word in &args.registry_certificate {
        let (host, file) = pair("--registry-certificate", word)?;
        settings.certificates.push((host.to_owned(), PathBuf::from(file)));
    }
    for word in &args.registry_client_cert {
        let (host, files) = pair("--registry-client-cert", word)?;
        let Some((certificate, key)) = files.split_once(',') else {
            return Err(Failure::usage(format!("`--registry-client-cert {word}`: expected HOST=CERT,KEY")));
        };
        settings.client_certificates.push((host.to_owned(), certificate.into(), key.into()));
    }
    settings.system_certificates = system_certificates();
    if let Some(retries) = args.push_retry.into_iter().chain(args.image_download_retry).max() {
        settings.retries = retries;
    }
    settings.proxies = proxies();
    settings.cancel = cancelled.clone();
    Ok(settings)
}

fn user_agent() -> String {
    let kind = std::env::var("UPSTREAM_CLIENT_TYPE").ok().filter(|kind| !kind.is_empty());
    let suffix = kind.map(|kind| format!(",{kind}")).unwrap_or_default();
    format!("zuwai/{}{suffix}", env!("CARGO_PKG_VERSION"))
}

/// `SSL_CERT_FILE` and `SSL_CERT_DIR`, which may name several directories, as Go's clients read them.
fn system_certificates() -> SystemCertificates {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    SystemCertificates {
        file: variable("SSL_CERT_FILE").map(PathBuf::from),
        dirs: variable("SSL_CERT_DIR").map(|dirs| std::env::split_paths(&dirs).collect()),
    }
}

/// Upper case first, as Go's clients have it.
fn proxies() -> Proxies {
    let either = |lower: &str| {
        let upper = lower.to_ascii_uppercase();
        [&upper, lower].into_iter().find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()))
    };
    Proxies {
        http: either("http_proxy"),
        https: either("https_proxy"),
        all: either("all_proxy"),
        no_proxy: either("no_proxy"),
    }
}

/// `--registry-map from=to;from=to` and `--registry-mirror`, in order.
pub fn registry_maps(args: &RegistryArgs) -> Result<Vec<(String, String)>, Failure> {
    let mut maps = Vec::new();
    for word in args.registry_map.iter().flat_map(|words| words.split(';')).filter(|w| !w.is_empty()) {
        let (from, to) = pair("--registry-map", word)?;
        let from = if from == "index.docker.io" { "docker.io" } else { from };
        maps.push((from.to_owned(), to.to_owned()));
    }
    maps.extend(args.registry_mirror.iter().map(|mirror| ("docker.io".to_owned(), mirror.clone())));
    Ok(maps)
}

/// Where trees, layers and cache mounts lie: told, else `/zuwai` for root in a container, else a cache directory, else one
/// below the temporary directory (a pod's random user has no home it may write to).
pub fn work_root(told: Option<&PathBuf>) -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(told) = told.cloned().or_else(|| variable("KANIKO_DIR")) {
        return told;
    }
    let user = rustix::process::geteuid();
    if user.is_root() {
        return PathBuf::from(if in_container() { "/zuwai" } else { "/var/cache/zuwai" });
    }
    let cache = variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
    let usable = |dir: &PathBuf| {
        std::fs::create_dir_all(dir).is_ok() && rustix::fs::access(dir, rustix::fs::Access::WRITE_OK).is_ok()
    };
    match cache.map(|cache| cache.join("zuwai")).filter(usable) {
        Some(cache) => cache,
        None => std::env::temp_dir().join(format!("zuwai-{}", user.as_raw())),
    }
}

/// Files and a root file system as container runtimes leave them.
pub fn in_container() -> bool {
    const OVERLAYFS_SUPER_MAGIC: u64 = 0x794c_7630;
    ["/.dockerenv", "/run/.containerenv", "/kaniko"].iter().any(|f| Path::new(f).exists())
        || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
        || rustix::fs::statfs("/").is_ok_and(|fs| u64::try_from(fs.f_type) == Ok(OVERLAYFS_SUPER_MAGIC))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_from_words() {
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        std::fs::write(&file, "hush").expect("written");
        let word = format!("id=a,src={}", file.path().display());
        let (id, secret) = secret(&word).expect("valid");
        assert_eq!((id.as_str(), secret.reveal().as_slice()), ("a", &b"hush"[..]));
        for bad in [
            "src=x",
            "id=a,src=/dev/zero",
            "id=a,src=/no/such/file",
            "id=a,env=NO_SUCH_VARIABLE_HERE",
            "id=a,colour=red",
            "id=a,type=x",
        ] {
            assert!(super::secret(bad).is_err(), "{bad}");
        }
        assert!(secrets(&[word.clone(), word]).is_err(), "twice");
    }

    #[test]
    fn how_git_contexts_are_cloned() {
        let words = ["branch=main,depth=3", "single-branch=true", "recurse-submodules=1", "insecure-skip-tls=t"];
        let (clone, skip_verify) = clone_settings(&words.map(str::to_owned)).expect("valid");
        assert_eq!((clone.branch.as_deref(), clone.depth), (Some("main"), Some(3)));
        assert!(clone.single_branch && clone.submodules && skip_verify);
        assert_eq!(clone_settings(&["depth=0".to_owned()]).expect("valid").0.depth, None);
        assert_eq!(clone_settings(&["branch".to_owned()]).expect("valid").0.branch, None);
        for bad in ["colour=red", "depth=x", "depth=-1", "single-branch=perhaps"] {
            assert!(clone_settings(&[bad.to_owned()]).is_err(), "{bad}");
        }
        let user = |pairs: &[(&str, &str)]| {
            let pairs: BTreeMap<&str, &str> = pairs.iter().copied().collect();
            git_user(&|name| pairs.get(name).map(|value| (*value).to_owned()))
        };
        let owned = |user: &str, password: &str| Some((Secret::new(user), Secret::new(password)));
        assert_eq!(user(&[("GIT_TOKEN", "t"), ("GIT_PASSWORD", "p")]), owned("t", ""));
        assert_eq!(user(&[("GIT_USERNAME", "u"), ("GIT_PASSWORD", "p")]), owned("u", "p"));
        assert_eq!(user(&[]), None);
    }

    #[test]
    fn sizes_as_docker_writes_them() {
        for (word, want) in [
            ("67108864", Some(64 << 20)),
            ("64m", Some(64 << 20)),
            ("64MB", Some(64 << 20)),
            ("1.5g", Some(3 << 29)),
            ("1GiB", Some(1 << 30)),
            ("2 k", Some(2 << 10)),
            ("100b", Some(100)),
            ("0", None),
            ("", None),
        ] {
            assert_eq!(shm_bytes(Some(word)).expect(word), want, "{word}");
        }
        for bad in ["x", "-1", "1x", "m", "1e", "inf", "nan", "1mm", "1kbb", "1bb"] {
            assert!(shm_bytes(Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn outputs_that_are_pushed() {
        for (spec, push, want) in [
            ("type=registry", false, true),
            ("type=registry,push=false", true, false),
            ("type=image", false, false),
            ("type=image", true, true),
            ("type=image,push=false", true, false),
            ("type=image,push=true", false, true),
            ("type=image,push=1", false, true),
            ("type=image,push", false, true),
            ("type=oci,push=true", true, false),
            ("directory", true, false),
        ] {
            assert_eq!(is_push(spec, push).expect(spec), want, "{spec} {push}");
        }
        assert!(is_push("type=image,push=perhaps", false).is_err());
    }

    #[test]
    fn hosts() {
        let got = extra_hosts(&["a:1.2.3.4".into(), "b=[::1]".into(), "c:::1".into()]).expect("valid");
        let want = [("a", "1.2.3.4"), ("b", "::1"), ("c", "::1")].map(|(h, a)| (h.to_owned(), a.to_owned()));
        assert_eq!(got, want);
        assert!(extra_hosts(&["nothing".into()]).is_err());
    }
}
