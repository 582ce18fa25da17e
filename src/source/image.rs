//! Releases that are images: bringing one here, remembering it by its digest, and removing those that no release is.
//!
//! A release holds `image.json` and nothing else. What was pulled for one is written down before the pull, so that a tool
//! that is killed leaves no image which nobody removes; images that were here before are never removed.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::releases;
use crate::app::{App, ReleaseId, config::Pull};
use crate::bounded::{self, Links};
use crate::compose::Project;
use crate::deadline::Deadline;
use crate::docker;
use crate::durable;
use crate::outcome::{exit_of, failure, usage};

/// The permission bits of what is written here.
const MODE: u32 = 0o640;
/// The longest tag that Docker takes, in bytes.
const LONGEST_TAG: usize = 128;
/// How much of a digest people are shown, in bytes: `sha256:` and twelve digits.
const SHORT_DIGEST: usize = 19;

/// An image, as a release remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Image {
    /// What was asked for: `user/app:v1`.
    pub reference: String,
    /// The engine's id of it, `sha256:…`.
    pub id: String,
    /// The registry's digest of it, `sha256:…`; None: no registry has it under this name.
    pub digest: Option<String>,
}

impl Image {
    /// The name that means exactly this image, here and at the registry. The tag in it is for people.
    pub fn exact(&self) -> String {
        match &self.digest {
            Some(digest) if self.reference.ends_with(digest) => self.reference.clone(),
            Some(digest) => format!("{}@{digest}", self.reference),
            None => self.id.clone(),
        }
    }

    /// The tag, or the short digest, for people.
    pub fn version(&self) -> &str {
        let name = self.reference.rsplit('/').next().unwrap_or_default();
        match name.split_once('@') {
            Some((_, digest)) => digest.get(..SHORT_DIGEST).unwrap_or(digest),
            None => name.split_once(':').map_or(name, |(_, tag)| tag),
        }
    }

    /// The digits of its id.
    pub fn hash(&self) -> &str {
        self.id.strip_prefix("sha256:").unwrap_or(&self.id)
    }

    /// What the engine has under a reference; None: nothing.
    fn of(project: &Project, reference: &str) -> Result<Option<Image>> {
        let found = project.engine.image(reference)?;
        Ok(found.map(|image| Image::from(project, reference, image)))
    }

    /// The image that a container runs which somebody else has started; None: the engine does not have it any more.
    pub fn of_container(project: &Project, container: &docker::Container) -> Result<Option<Image>> {
        let name = &project.settings.image;
        let asked = container.config.image.split('@').next().unwrap_or_default();
        let reference = if asked.starts_with(name.as_str()) { asked } else { name };
        let image = project.engine.image(&container.image)?;
        Ok(image.map(|image| Image::from(project, reference, image)))
    }

    fn from(project: &Project, reference: &str, image: docker::Image) -> Image {
        let name = &project.settings.image;
        let digests = image.repo_digests.iter().filter_map(|digest| digest.split_once('@'));
        let ours = digests.filter(|(repository, _)| repository == name);
        // Of several, which differ in packing only, the one that was asked for.
        let digest = ours.max_by_key(|(_, digest)| reference.ends_with(digest)).map(|(_, digest)| digest.to_owned());
        Image { reference: reference.to_owned(), id: image.id, digest }
    }
}

/// Brings the image of a tag or digest here, as the configuration says.
pub fn wanted(app: &App, tag: &str, deadline: Deadline) -> Result<Image> {
    let project = Project::of(app)?;
    let reference = reference(&project.settings.image, tag)?;
    project.check(deadline)?;
    let present = Image::of(&project, &reference)?;
    match (project.settings.pull, &present) {
        (Pull::Missing | Pull::Never, Some(image)) => return Ok(image.clone()),
        (Pull::Never, None) => {
            bail!("cannot find image {reference} on this machine, and pull = \"never\" in [compose]")
        }
        (Pull::Build, _) if reference.contains('@') => {
            return Err(usage(format!("cannot build {reference}: with pull = \"build\" in [compose], name a tag")));
        }
        (Pull::Always | Pull::Build, Some(_)) => {}
        (Pull::Always | Pull::Missing | Pull::Build, None) => note(app, &reference, None)?,
    }
    let brought = match project.settings.pull {
        Pull::Build => project.build(&reference, deadline),
        _ => project.pull(&reference, deadline),
    };
    brought.or_else(|error| {
        if present.is_none() {
            // Whatever gets this name later is somebody else's.
            forget(app, &reference)?;
        }
        Err(error)
    })?;
    // A tag that moved has left another image without a name: an older release's, or one that was to become a release.
    keep_names(app, &project)?;
    if let Some(left) = present.and_then(|image| project.engine.image(&image.id).transpose()).transpose()?
        && left.repo_tags.is_empty()
        && pulled(app)?.iter().any(|one| one.reference == reference)
    {
        // The next deploy tries again.
        let _ = project.engine.untag(&left.id);
    }
    let image = Image::of(&project, &reference)?.ok_or_else(|| not_brought(&reference))?;
    if pulled(app)?.iter().any(|one| one.reference == reference) {
        note(app, &reference, Some(&image.id))?;
    }
    Ok(image)
}

/// The reference of a tag or a digest of an image.
fn reference(image: &str, tag: &str) -> Result<String> {
    if let Some(digest) = tag.strip_prefix("sha256:") {
        let is_digest =
            digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        return match is_digest {
            true => Ok(format!("{image}@{tag}")),
            false => Err(usage(format!("cannot use {tag:?} as an image's digest: expected sha256: and 64 digits"))),
        };
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.' || byte == b'-';
    let begins_well = !tag.starts_with(['.', '-']);
    match !tag.is_empty() && begins_well && tag.len() <= LONGEST_TAG && tag.bytes().all(plain) {
        true => Ok(format!("{image}:{tag}")),
        false => {
            let expected = format!("expected letters, digits, _, . and -, at most {LONGEST_TAG}");
            Err(usage(format!("cannot use {tag:?} as an image's tag: {expected}")))
        }
    }
}

/// Writes down what a release in the making is.
pub fn lay_out(image: &Image, directory: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(image).context("cannot describe an image")?;
    durable::write(&directory.join(App::IMAGE_FILE), text.as_bytes(), MODE)
}

/// The image that a release is; None: it is none.
pub fn of_release(app: &App, id: &ReleaseId) -> Result<Option<Image>> {
    let path = app.release(id).join(App::IMAGE_FILE);
    let text = match bounded::read(&path, Links::Refused, bounded::SMALL) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.with_context(|| format!("cannot read {}", path.display()))?,
    };
    serde_json::from_slice(&text).map(Some).with_context(|| format!("cannot understand {}", path.display()))
}

/// A release's image, found in the engine.
pub struct Present {
    /// A name under which the engine has exactly this image.
    pub name: String,
    /// The engine's id of it. It differs from the recorded one when the engine's image store was exchanged since.
    pub id: String,
}

/// Makes sure that the engine has a release's image, from the registry if need be.
pub fn ensure(app: &App, project: &Project, release: &ReleaseId, image: &Image, deadline: Deadline) -> Result<Present> {
    let exact = image.exact();
    if let Some(present) = present(app, project, release, image)? {
        // Together with its tag it may have lost its digest.
        let is_known = project.engine.image(&exact)?.is_some_and(|named| named.id == present.id);
        let name = match (is_known && image.digest.is_some(), &project.settings.tag_variable) {
            (true, _) => exact,
            (false, None) => present.id.clone(),
            // No tag stands for an id.
            (false, Some(_)) => {
                keep_name(app, project, release, &present)?;
                own_name(app, project, release)
            }
        };
        return Ok(Present { name, id: present.id });
    }
    let remedy = format!("`docker load` it as {}, or deploy", own_name(app, project, release));
    let gone = format!("image {} ({}) is gone from this machine: {remedy}", image.reference, image.id);
    if image.digest.is_none() || matches!(project.settings.pull, Pull::Never | Pull::Build) {
        bail!("{gone}");
    }
    note(app, &exact, None)?;
    let pulled = project.pull(&exact, deadline);
    pulled.map_err(|error| failure(exit_of(&error), format!("{gone}; {error:#}")))?;
    let pulled = project.engine.image(&exact)?.ok_or_else(|| not_brought(&exact))?;
    note(app, &exact, Some(&pulled.id))?;
    Ok(Present { name: exact, id: pulled.id })
}

/// A release's image as the engine has it; None: it does not have it. The recorded id is found only in the image store that
/// has given it; the digest, and the tag of our own, are found in each.
pub fn present(app: &App, project: &Project, release: &ReleaseId, image: &Image) -> Result<Option<docker::Image>> {
    let exact = image.digest.is_some().then(|| image.exact());
    let names = std::iter::once(image.id.clone()).chain(exact).chain([own_name(app, project, release)]);
    for name in names {
        if let Some(present) = project.engine.image(&name)? {
            return Ok(Some(present));
        }
    }
    Ok(None)
}

/// Why there is no image after a pull that went well, as Compose's does with a service that it could build.
fn not_brought(reference: &str) -> anyhow::Error {
    let remedy = "where it is built here, set pull = \"build\" in [compose]";
    usage(format!("cannot find image {reference}, although Compose has pulled it: {remedy}"))
}

/// The images of all releases.
fn retained(app: &App) -> Result<Vec<(ReleaseId, Image)>> {
    let mut retained = Vec::new();
    for id in releases(app)? {
        if let Some(image) = of_release(app, &id)? {
            retained.push((id, image));
        }
    }
    Ok(retained)
}

/// Gives each release's image a tag of our own: others may move theirs or take them away, and Docker's own clearing up
/// removes what has none.
fn keep_names(app: &App, project: &Project) -> Result<()> {
    for (id, image) in retained(app)? {
        if let Some(present) = present(app, project, &id, &image)? {
            keep_name(app, project, &id, &present)?;
        }
    }
    Ok(())
}

fn keep_name(app: &App, project: &Project, release: &ReleaseId, present: &docker::Image) -> Result<()> {
    match present.repo_tags.contains(&own_name(app, project, release)) {
        true => Ok(()),
        false => project.engine.tag(&present.id, &project.settings.image, &format!("{}{release}", own_tag(app))),
    }
}

/// How the tags begin that are given here.
pub fn own_tag(app: &App) -> String {
    format!("cutover-{}-", app.name())
}

/// The name of our own that a release's image has.
fn own_name(app: &App, project: &Project, release: &ReleaseId) -> String {
    format!("{}:{}{release}", project.settings.image, own_tag(app))
}

/// Removes the images that were pulled for releases which are no more. What was here before, what has been given another
/// name, and what a container needs stays.
pub fn prune(app: &App) -> Result<()> {
    let project = Project::of(app)?;
    keep_names(app, &project)?;
    remove_others(app, &project, &retained(app)?)
}

/// Removes all images that were pulled for releases.
pub fn remove_all(app: &App) -> Result<()> {
    remove_others(app, &Project::of(app)?, &[])
}

fn remove_others(app: &App, project: &Project, retained: &[(ReleaseId, Image)]) -> Result<()> {
    let repository = &project.settings.image;
    let own = own_tag(app);
    for image in project.engine.images(&format!("{repository}:{own}*"))? {
        for tag in image.repo_tags {
            let release = tag.rsplit_once(&own).map(|(_, release)| release);
            let is_kept = retained.iter().any(|(id, _)| Some(id.as_str()) == release);
            if release.is_some_and(|release| release.parse::<ReleaseId>().is_ok()) && !is_kept {
                project.engine.untag(&tag)?;
            }
        }
    }
    let mut kept = BTreeSet::new();
    for (id, image) in retained {
        kept.extend(present(app, project, id, image)?.map(|present| present.id));
    }
    let mut left = Vec::new();
    for one in pulled(app)? {
        let Some(present) = project.engine.image(&one.reference)? else { continue };
        let is_ours = one.id.as_ref().is_none_or(|id| *id == present.id);
        if is_ours && (kept.contains(&present.id) || !project.engine.untag(&one.reference)?) {
            left.push(one);
        }
    }
    note_all(app, &left)
}

/// What was pulled here, and may be removed as long as it is the same.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pulled {
    reference: String,
    /// The id of the image; None: whoever pulled it was killed meanwhile.
    id: Option<String>,
}

fn pulled(app: &App) -> Result<Vec<Pulled>> {
    let path = app.pulled();
    let text = match bounded::read_text(&path, Links::Refused, bounded::LARGE) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        read => read.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let understand = |line: &str| {
        let mut words = line.split_whitespace().map(str::to_owned);
        words.next().map(|reference| Pulled { reference, id: words.next() })
    };
    Ok(text.lines().filter_map(understand).collect())
}

/// Writes down that a reference is pulled here, and what it has turned out to be.
fn note(app: &App, reference: &str, id: Option<&str>) -> Result<()> {
    let mut all = pulled(app)?;
    all.retain(|one| one.reference != reference);
    all.push(Pulled { reference: reference.to_owned(), id: id.map(str::to_owned) });
    note_all(app, &all)
}

fn forget(app: &App, reference: &str) -> Result<()> {
    let mut all = pulled(app)?;
    all.retain(|one| one.reference != reference);
    note_all(app, &all)
}

fn note_all(app: &App, all: &[Pulled]) -> Result<()> {
    if all == pulled(app)? {
        return Ok(());
    }
    let line = |one: &Pulled| format!("{} {}\n", one.reference, one.id.as_deref().unwrap_or_default());
    let text: String = all.iter().map(line).collect();
    durable::write(&app.pulled(), text.as_bytes(), MODE)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn image(reference: &str, digest: Option<&str>) -> Image {
        Image { reference: reference.to_owned(), id: "sha256:77".to_owned(), digest: digest.map(str::to_owned) }
    }

    #[test]
    fn an_image_is_named_exactly_and_for_people() {
        let tagged = image("127.0.0.1:5000/team/app:v1", Some(DIGEST));
        assert_eq!(tagged.exact(), format!("127.0.0.1:5000/team/app:v1@{DIGEST}"));
        assert_eq!(tagged.version(), "v1");
        let by_digest = image(&format!("user/app@{DIGEST}"), Some(DIGEST));
        assert_eq!(by_digest.exact(), format!("user/app@{DIGEST}"));
        assert_eq!(by_digest.version(), "sha256:0123456789ab");
        assert_eq!(image("app:v1", None).exact(), "sha256:77");
    }

    #[test]
    fn what_is_no_tag_is_refused() {
        assert_eq!(reference("user/app", "v1.2_3-x").unwrap(), "user/app:v1.2_3-x");
        assert_eq!(reference("user/app", DIGEST).unwrap(), format!("user/app@{DIGEST}"));
        for odd in ["", "-v1", ".v1", "a b", "a/b", "a:b", "ä", "sha256:12", &"x".repeat(129)] {
            reference("user/app", odd).unwrap_err();
        }
    }
}
