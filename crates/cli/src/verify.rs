//! `--verify IMAGE`: the build is done again, and its result compared with an image that is somewhere already.

use std::path::Path;

use build::Event;
use build::compare::{Comparison, Difference, compare};
use oci::{OciError, Platform, Reference};
use store::{Archive, Image, ImageSource as _, LayoutSource, StoreError};

use crate::report::{Failure, visible};
use crate::wire::Wired;

/// The exit code of a comparison that found differences (`docs/exit-codes.md`).
const DIFFERENT: u8 = 7;

/// An image to be compared with.
pub struct Verification<'a> {
    spec: &'a str,
    found: Image,
}

impl Verification<'_> {
    /// Finds the image, and asks for one that can be the same: of its media types, and with its time of creation where
    /// `SOURCE_DATE_EPOCH` is not given.
    pub fn prepare<'a>(spec: &'a str, wired: &mut Wired) -> Result<Verification<'a>, Failure> {
        let found = find(spec, wired).map_err(|error| not_found(spec, error))?;
        let request = &mut wired.request;
        if found.digest.is_some() {
            request.spec.flavor = request.spec.flavor.or(Some(found.flavor));
        }
        if request.spec.source_date_epoch.is_none()
            && !build::plan::declares_epoch(&request.spec.dockerfile)
            && let Some(epoch) = created(&found)
        {
            let seconds = epoch.as_second();
            let message = format!("SOURCE_DATE_EPOCH is not given: it is {seconds}, when `{spec}` was created");
            request.control.observer.event(&Event::Warning { message });
            request.spec.source_date_epoch = Some(seconds);
            // A whole second was an epoch, which the steps may have seen; any other time was a clock's.
            if epoch.subsec_nanosecond() == 0 {
                request.spec.build_args.insert(crate::settings::EPOCH.to_owned(), seconds.to_string());
            }
        }
        Ok(Verification { spec, found })
    }

    /// Compares, and says what is different; `print` writes to standard output.
    pub fn finish(
        self,
        built: &Image,
        wired: &Wired,
        print: &dyn Fn(&str) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut unprinted = None;
        let mut tell = |difference: &Difference| {
            print(&format!("{}\n", visible(&difference.to_string()))).map_err(|failure| {
                unprinted = Some(failure);
                std::io::ErrorKind::Other.into()
            })
        };
        let compared = compare(&self.found, built, &mut tell);
        if let Some(failure) = unprinted {
            return Err(failure);
        }
        match compared.map_err(|error| wired.failure(error))? {
            Comparison::Same => print(&format!("the same image: {}\n", built.encode().manifest_descriptor.digest)),
            Comparison::Different { only_times } => Err(self.different(only_times, wired)),
        }
    }

    fn different(&self, only_times: bool, wired: &Wired) -> Failure {
        let hint = match only_times {
            true if !wired.request.spec.clamp_modified => {
                "only times differ: build both with --reproducible and the same SOURCE_DATE_EPOCH".to_owned()
            }
            _ => "docs/reproducible.md says what can differ and why".to_owned(),
        };
        let error = anyhow::anyhow!(
            "`{}` is not what these inputs build (above: what the image has → what was built)",
            self.spec
        );
        Failure::Other { error, code: DIFFERENT, hint: Some(hint) }
    }
}

/// `oci-layout://DIR[:TAG][@DIGEST]`, `docker-archive:FILE[:REFERENCE]`, or a reference in a registry.
fn find(spec: &str, wired: &Wired) -> anyhow::Result<Image> {
    let request = &wired.request;
    let platform = request.spec.platform.clone().unwrap_or_else(Platform::host);
    if let Some(layout) = spec.strip_prefix("oci-layout://") {
        // The reference is not looked at: the layout's own is in the text.
        return Ok(LayoutSource::open(layout)?.image(&Reference::parse("layout")?, &platform)?);
    }
    if let Some(text) = spec.strip_prefix("docker-archive:") {
        let (file, name) = match text.split_once(':') {
            Some((file, name)) if !Path::new(text).exists() => (file, Some(name)),
            _ => (text, None),
        };
        return Ok(Archive::open(Path::new(file))?.find(name, &platform)?);
    }
    let reference = Reference::parse(spec.strip_prefix("docker-image://").unwrap_or(spec))?;
    Ok(request.backends.images.image(&reference, &platform)?)
}

fn not_found(spec: &str, error: anyhow::Error) -> Failure {
    let (code, hint) = match error.downcast_ref() {
        Some(StoreError::Remote { hint, .. }) => (5, hint.clone()),
        _ if error.is::<OciError>() => (2, None),
        _ => (5, None),
    };
    Failure::Other { error: error.context(format!("could not find `{spec}`, which is to be verified")), code, hint }
}

/// When an image says it was created.
fn created(image: &Image) -> Option<jiff::Timestamp> {
    image.config.created.as_deref()?.parse().ok()
}
