//! Two images beside each other: whether they are the same, and what is different when not.
//!
//! Layers are read as streams, both at a time. Entries that come in the same order need no memory; what one layer has and the
//! other has not (yet) waits, up to a bound, and of the content of files only the digest.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, Read};
use std::path::PathBuf;

use oci::{Digest, Hasher};
use rootfs::{Entries, LayerEntry};
use serde_json::Value;
use store::{Image, Layer, StoreError, Verified};

use crate::BuildError;

/// Entries without a counterpart that wait for it at a time. Layers that differ more are not listed to their end.
const MAX_WAITING: usize = 50_000;
/// What may follow the end of a layer's tar: writers fill their last record.
const MAX_PADDING_BYTES: u64 = 1 << 20;
/// More of a value is not shown.
const MAX_SHOWN: usize = 120;

/// What a comparison came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Comparison {
    Same,
    Different {
        /// Nothing but times: of files, of the image, of its history.
        only_times: bool,
    },
}

/// Something that is one way in the image that was found and another in the one that was built.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Difference {
    /// A value in the manifest or the config; none where it is missing.
    Value { name: String, found: Option<String>, built: Option<String> },
    /// What follows is about this layer; counted from 1 at the bottom.
    Layer { number: usize, title: String },
    /// The same files, but other bytes: another compression or another compressor.
    Stored { number: usize, found: String, built: String },
    /// One of the two has no such layer.
    OnlyLayer { number: usize, title: String, is_built: bool },
    /// A path that one of the two layers does not have.
    Only { path: PathBuf, is_built: bool },
    /// What is different at a path, in words.
    Changed { path: PathBuf, what: Vec<String>, only_time: bool },
    /// Too many differences to list the rest of a layer.
    More,
    /// The documents hold the same, but were written by another program.
    Bytes,
}

impl Difference {
    fn is_time(&self) -> bool {
        match self {
            Difference::Value { name, .. } => name.ends_with("created"),
            Difference::Changed { only_time, .. } => *only_time,
            Difference::Layer { .. } => true,
            _ => false,
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whose = |is_built: bool| if is_built { "only rebuilt" } else { "only in the image" };
        match self {
            Difference::Value { name, found: Some(found), built: Some(built) } => {
                write!(f, "{name}: {found} → {built}")
            }
            Difference::Value { name, found: Some(value), .. } => write!(f, "{name}: {}: {value}", whose(false)),
            Difference::Value { name, built, .. } => {
                write!(f, "{name}: {}: {}", whose(true), built.as_deref().unwrap_or_default())
            }
            Difference::Layer { number, title } => write!(f, "layer {number}{title}:"),
            Difference::Stored { number, found, built } => {
                write!(f, "layer {number}: the same files, stored otherwise: {found} → {built}")
            }
            Difference::OnlyLayer { number, title, is_built } => {
                write!(f, "layer {number}{title}: {}", whose(*is_built))
            }
            Difference::Only { path, is_built } => write!(f, "  {}: {}", shown(path), whose(*is_built)),
            Difference::Changed { path, what, .. } => write!(f, "  {}: {}", shown(path), what.join(", ")),
            Difference::More => f.write_str("  … and more"),
            Difference::Bytes => {
                f.write_str("manifest or config: the same values in other bytes: another program wrote them")
            }
        }
    }
}

/// A path without what a terminal would obey.
fn shown(path: &std::path::Path) -> String {
    let text = path.display().to_string();
    if text.is_empty() { "/".to_owned() } else { harmless(&text) }
}

fn harmless(text: &str) -> String {
    let escaped = |c: char| if c.is_control() { c.escape_default().collect() } else { c.to_string() };
    text.chars().map(escaped).collect()
}

/// Compares an image that was found somewhere with one that was built, and tells each difference as it comes.
///
/// They are the same when the manifest of `built` has the digest under which the other was found, or, where there is none (an
/// archive of `docker save`), when their configs have the same digest: that is the image ID, and covers the files.
///
/// # Errors
/// A layer that cannot be read; [`BuildError::Io`] when `tell` fails.
pub fn compare(
    found: &Image,
    built: &Image,
    tell: &mut dyn FnMut(&Difference) -> io::Result<()>,
) -> Result<Comparison, BuildError> {
    if are_same(found, built) {
        if found.digest.is_none() {
            found.layers.iter().try_for_each(check_content)?;
        }
        return Ok(Comparison::Same);
    }
    let (mut is_told, mut only_times) = (false, true);
    let mut note = |difference: Difference| {
        is_told = true;
        only_times &= difference.is_time();
        tell(&difference).map_err(untold)
    };
    documents(found, built, &mut note)?;
    layers(found, built, &mut note)?;
    if !is_told {
        only_times = false;
        tell(&Difference::Bytes).map_err(untold)?;
    }
    Ok(Comparison::Different { only_times })
}

fn untold(source: io::Error) -> BuildError {
    BuildError::Io { action: "could not say what is different".to_owned(), source }
}

type Tell<'a> = dyn FnMut(Difference) -> Result<(), BuildError> + 'a;

fn are_same(found: &Image, built: &Image) -> bool {
    let built = built.encode();
    match &found.digest {
        Some(digest) => *digest == built.manifest_descriptor.digest,
        None => found.encode().config_descriptor.digest == built.config_descriptor.digest,
    }
}

/// Where no digest of stored bytes binds a layer to its image, its plain bytes must have the diff ID of the config.
fn check_content(layer: &Layer) -> Result<(), BuildError> {
    let failed = |source| unreadable_layer(layer, source);
    let plain = store::decode(layer.content.open(&layer.descriptor).map_err(failed)?);
    let plain = plain.map_err(|error| failed(StoreError::from_read(error)))?;
    let copied = io::copy(&mut Verified::new(plain, &layer.diff_id.0, None), &mut io::sink());
    copied.map(drop).map_err(|error| failed(StoreError::from_read(error)))
}

fn unreadable_layer(layer: &Layer, source: StoreError) -> BuildError {
    BuildError::Store { action: format!("could not read layer `{}`", layer.descriptor.digest), place: None, source }
}

fn documents(found: &Image, built: &Image, tell: &mut Tell<'_>) -> Result<(), BuildError> {
    let families = [found, built].map(|image| format!("{:?}", image.written_flavor()));
    // Docker's archives have no manifest.
    if found.digest.is_some() {
        value("media types", Some(&families[0].clone().into()), Some(&families[1].clone().into()), tell)?;
        let annotations = [found, built].map(|image| serde_json::to_value(&image.annotations).unwrap_or_default());
        value("annotations", Some(&annotations[0]), Some(&annotations[1]), tell)?;
    }
    let [found, built] = [found, built].map(|image| {
        let mut config = serde_json::to_value(&image.config).unwrap_or_default();
        // The layers have a part of their own.
        config.as_object_mut().map(|config| config.remove("rootfs"));
        config
    });
    value("", Some(&found), Some(&built), tell)
}

/// Goes down to where the two differ.
fn value(name: &str, found: Option<&Value>, built: Option<&Value>, tell: &mut Tell<'_>) -> Result<(), BuildError> {
    if found == built {
        return Ok(());
    }
    match (found, built) {
        (Some(Value::Object(found)), Some(Value::Object(built))) => {
            let keys = found.keys().chain(built.keys().filter(|key| !found.contains_key(*key)));
            let dot = if name.is_empty() { "" } else { "." };
            keys.into_iter()
                .try_for_each(|key| value(&format!("{name}{dot}{key}"), found.get(key), built.get(key), tell))
        }
        (Some(Value::Array(found)), Some(Value::Array(built))) => (0..found.len().max(built.len()))
            .try_for_each(|at| value(&format!("{name}[{at}]"), found.get(at), built.get(at), tell)),
        _ => {
            let text = |value: &Value| shortened(&harmless(&value.to_string()));
            tell(Difference::Value { name: harmless(name), found: found.map(text), built: built.map(text) })
        }
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// Layers that are the same at the bottom and at the top are passed over; those between are compared one by one.
fn layers(found: &Image, built: &Image, tell: &mut Tell<'_>) -> Result<(), BuildError> {
    let (left, right) = (&found.layers, &built.layers);
    let is_same = |pair: &(&Layer, &Layer)| pair.0.diff_id == pair.1.diff_id;
    let below = std::iter::zip(left, right).take_while(is_same).count();
    let most = left.len().min(right.len()) - below;
    let above = std::iter::zip(left.iter().rev(), right.iter().rev()).take(most).take_while(is_same).count();
    for number in 0..below {
        stored(number + 1, &left[number], &right[number], tell)?;
    }
    let (left_end, right_end) = (left.len() - above, right.len() - above);
    for at in below..left_end.max(right_end) {
        let pair = (left.get(at).filter(|_| at < left_end), right.get(at).filter(|_| at < right_end));
        let number = at + 1;
        match pair {
            (Some(left), Some(right)) if left.diff_id == right.diff_id => stored(number, left, right, tell)?,
            (Some(left), Some(right)) => {
                tell(Difference::Layer { number, title: title(built, at) })?;
                files(left, right, tell)?;
            }
            (Some(_), None) => tell(Difference::OnlyLayer { number, title: title(found, at), is_built: false })?,
            (None, _) => tell(Difference::OnlyLayer { number, title: title(built, at), is_built: true })?,
        }
    }
    for (number, (left, right)) in (right_end + 1..).zip(std::iter::zip(&left[left_end..], &right[right_end..])) {
        stored(number, left, right, tell)?;
    }
    Ok(())
}

/// Layers with the same files.
fn stored(number: usize, left: &Layer, right: &Layer, tell: &mut Tell<'_>) -> Result<(), BuildError> {
    // Docker's archives are often made of plain layers whatever a registry has: only a digest binds them.
    if left.descriptor.digest == right.descriptor.digest {
        return Ok(());
    }
    let [found, built] = [left, right].map(|layer| {
        let descriptor = &layer.descriptor;
        let kind = oci::media_type::layer_compression(&descriptor.media_type);
        let kind = kind.map_or_else(|| "unknown".to_owned(), |kind| format!("{kind:?}").to_ascii_lowercase());
        format!("{kind}, {} bytes", descriptor.size)
    });
    tell(Difference::Stored { number, found, built })
}

/// What made a layer, by the history of its image.
fn title(image: &Image, layer: usize) -> String {
    let made = image.config.history.iter().filter(|entry| !entry.empty_layer).nth(layer);
    let made = made.and_then(|entry| entry.created_by.as_deref()).unwrap_or_default();
    let made = made.strip_suffix("# buildkit").unwrap_or(made).trim();
    if made.is_empty() { String::new() } else { format!(" ({})", harmless(&shortened(made))) }
}

/// An entry and the digest of its content.
struct Noted {
    entry: LayerEntry,
    content: Option<Digest>,
}

/// A layer that is being read.
struct Stream<'a>(Entries<Box<dyn Read + Send + 'a>>);

impl Stream<'_> {
    fn open(layer: &Layer) -> Result<Stream<'_>, BuildError> {
        let failed = |source| unreadable_layer(layer, source);
        let stored = layer.content.open(&layer.descriptor).map_err(failed)?;
        let plain = store::decode(Verified::blob(stored, &layer.descriptor));
        Ok(Stream(Entries::new(plain.map_err(|error| failed(StoreError::from_read(error)))?)))
    }

    fn next(&mut self) -> Result<Option<Noted>, BuildError> {
        let Some(entry) = self.0.next_entry().map_err(unreadable)? else { return Ok(None) };
        let mut hasher = Hasher::new();
        let copied = io::copy(&mut self.0, &mut hasher);
        let count = copied.map_err(|error| unreadable(rootfs::RootfsError::Read(error)))?;
        Ok(Some(Noted { entry, content: (count > 0).then(|| hasher.finish()) }))
    }
}

fn unreadable(source: rootfs::RootfsError) -> BuildError {
    BuildError::Rootfs { action: "could not read a layer to compare it".to_owned(), place: None, source }
}

fn files(left: &Layer, right: &Layer, tell: &mut Tell<'_>) -> Result<(), BuildError> {
    let (mut left, mut right) = (Stream::open(left)?, Stream::open(right)?);
    // What has been read of one layer and not yet of the other.
    let mut waiting: [BTreeMap<PathBuf, Noted>; 2] = Default::default();
    loop {
        let pair = (left.next()?, right.next()?);
        match pair {
            (None, None) => break,
            (Some(one), Some(other)) if one.entry.path == other.entry.path => changed(&one, &other, tell)?,
            (one, other) => {
                if let Some(one) = one {
                    match waiting[1].remove(&one.entry.path) {
                        Some(other) => changed(&one, &other, tell)?,
                        None => drop(waiting[0].insert(one.entry.path.clone(), one)),
                    }
                }
                if let Some(other) = other {
                    match waiting[0].remove(&other.entry.path) {
                        Some(one) => changed(&one, &other, tell)?,
                        None => drop(waiting[1].insert(other.entry.path.clone(), other)),
                    }
                }
            }
        }
        if waiting[0].len() + waiting[1].len() > MAX_WAITING {
            return tell(Difference::More);
        }
    }
    for stream in [left, right] {
        stream.0.finish(MAX_PADDING_BYTES).map_err(unreadable)?;
    }
    let only = |is_built: bool, paths: BTreeMap<PathBuf, Noted>| {
        paths.into_keys().map(move |path| Difference::Only { path, is_built })
    };
    let [found, built] = waiting;
    only(false, found).chain(only(true, built)).try_for_each(tell)
}

/// Tells what is different at a path that both have.
fn changed(found: &Noted, built: &Noted, tell: &mut Tell<'_>) -> Result<(), BuildError> {
    let (one, other) = (&found.entry, &built.entry);
    let mut what = Vec::new();
    let mut differs = |name: &str, one: String, other: String| {
        if one != other {
            what.push(format!("{name} {one} → {other}"));
        }
    };
    differs("kind", one.kind.to_owned(), other.kind.to_owned());
    differs("mode", format!("{:04o}", one.mode), format!("{:04o}", other.mode));
    differs("owner", format!("{}:{}", one.uid, one.gid), format!("{}:{}", other.uid, other.gid));
    differs("size", one.size_bytes.to_string(), other.size_bytes.to_string());
    let [link, other_link] = [one, other].map(|entry| format!("`{}`", harmless(&String::from_utf8_lossy(&entry.link))));
    differs("target", link, other_link);
    let device = |entry: &LayerEntry| format!("{}:{}", entry.device.0, entry.device.1);
    differs("device", device(one), device(other));
    for name in attributes(one, other) {
        differs(
            &format!("attribute {}", harmless(&name.to_string_lossy())),
            attribute(one, &name),
            attribute(other, &name),
        );
    }
    if found.content != built.content || one.pieces != other.pieces {
        what.push("content".to_owned());
    }
    let only_time = what.is_empty();
    if one.modified != other.modified {
        what.push(format!("time {} → {}", time(one.modified), time(other.modified)));
    }
    if what.is_empty() {
        return Ok(());
    }
    tell(Difference::Changed { path: one.path.clone(), what, only_time })
}

/// The names of attributes that either has, each once.
fn attributes(one: &LayerEntry, other: &LayerEntry) -> Vec<OsString> {
    let mut names: Vec<OsString> = one.xattrs.iter().chain(&other.xattrs).map(|(name, _)| name.clone()).collect();
    names.sort();
    names.dedup();
    names
}

/// An attribute's value in hexadecimal digits, or `none`.
fn attribute(entry: &LayerEntry, name: &OsString) -> String {
    let value = entry.xattrs.iter().find(|(found, _)| found == name).map(|(_, value)| value);
    let digits = |value: &Vec<u8>| value.iter().take(32).map(|byte| format!("{byte:02x}")).collect();
    value.map_or_else(|| "none".to_owned(), digits)
}

/// RFC 3339 where there is such a time.
fn time((seconds, nanoseconds): (i64, u32)) -> String {
    let stamp = i32::try_from(nanoseconds).ok().and_then(|nano| jiff::Timestamp::new(seconds, nano).ok());
    stamp.map_or_else(|| seconds.to_string(), |stamp| stamp.to_string())
}
