//! A disk without room: what may go goes, and the message names the disk.

use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statvfs::statvfs;
use tempfile::TempDir;

use crate::not_tested::not_tested;
use crate::site::{BRISK, Sample, Site, built};

/// Disks of their own, which only this test and its children see, in this directory.
struct Disks(TempDir);

impl Drop for Disks {
    fn drop(&mut self) {
        // What is mounted could not be removed.
        for place in fs::read_dir(self.0.path()).into_iter().flatten().flatten() {
            let _ = umount2(&place.path(), MntFlags::MNT_DETACH);
        }
    }
}

impl Disks {
    /// None: mounting needs root.
    fn new() -> Option<Disks> {
        if !nix::unistd::Uid::effective().is_root() {
            not_tested("a full disk", "mounting one needs root");
            return None;
        }
        let directory = tempfile::Builder::new().prefix("cutover-disk-").tempdir().unwrap();
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let nothing: Option<&Path> = None;
        mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).unwrap();
        Some(Disks(directory))
    }

    fn mounted(&self, place: &Path, limits: &str) {
        fs::create_dir_all(place).unwrap();
        mount(Some("none"), place, Some("tmpfs"), MsFlags::empty(), Some(limits)).unwrap();
    }

    /// A site on a disk with room for what install lays and for this many bytes more.
    fn site(&self, room: u64, extra: &str) -> Site {
        let place = self.0.path().join("disk");
        self.mounted(&place, "size=1g");
        let site = Site::new_in(&place, Sample::Static, extra);
        self.leave(room);
        site
    }

    fn ballast(&self) -> PathBuf {
        self.0.path().join("disk/ballast")
    }

    /// Fills the disk but for this many bytes.
    fn leave(&self, room: u64) {
        let _ = fs::remove_file(self.ballast());
        let usage = statvfs(&self.0.path().join("disk")).unwrap();
        let free = usage.blocks_available() * usage.fragment_size();
        fs::write(self.ballast(), vec![b'.'; (free - room) as usize]).unwrap();
    }
}

/// How large the sample app is, in bytes.
fn app() -> u64 {
    fs::metadata(built().join("examples/static-app")).unwrap().len()
}

/// A build that makes this many megabytes.
fn building(megabytes: u64) -> String {
    format!("[build]\ncommand = \"head -c {megabytes}000000 /dev/zero >built\"\n{BRISK}")
}

#[track_caller]
fn deploys(site: &Site, version: &str) {
    site.commit(version, "");
    site.run("deploy", &[]).ok();
    assert_eq!(site.get("/"), (200, format!("{version}\n")));
}

#[test]
fn releases_that_the_next_one_pushes_out_make_room_for_it() {
    let Some(disks) = Disks::new() else { return };
    // Five are kept, and there is room for five and a half, with what git keeps.
    let site = disks.site(5 * (10_000_000 + app()) + app() + 6_000_000, &building(10));
    for number in 1..=8 {
        deploys(&site, &format!("v{number}"));
    }
    let releases = site.releases().len();
    assert!((4..=5).contains(&releases), "{releases}");
    // By hand as well, and from a path.
    site.commit("v9", "");
    site.run("update-instance", &[]).ok();
    site.run("deploy", &["--from", "source"]).ok();
    assert_eq!(site.get("/"), (200, "v9\n".to_owned()));
}

#[test]
fn a_disk_that_is_full_all_the_same_is_named_and_the_service_is_as_it_was() {
    let Some(disks) = Disks::new() else { return };
    let site = disks.site(100_000_000, &building(10)).with_standby();
    disks.leave(app() + 5_000_000);
    let releases = site.home.join("releases");
    let what = format!(
        " kB are free in {}: make room there, or lower keep_releases, which is 5, in [deploy]",
        releases.display()
    );
    for tool in ["deploy", "update-instance"] {
        site.commit("v3", "");
        let ran = site.run(tool, &[]);
        ran.fails(3, &["cannot build ", "exit status 1", "; the disk is full, 0.0", &what]);
        assert_eq!(site.get("/"), (200, "v2\n".to_owned()));
        assert_eq!(site.releases().len(), 2, "something is left of it, or what instances have is gone");
    }
    // Not even what git fetches has room.
    disks.leave(0);
    site.run("deploy", &[]).fails(3, &["; the disk is full, 0.0 kB are free in "]);
    assert_eq!(site.run("rollback", &[]).code, 0);
    assert_eq!(site.get("/"), (200, "v1\n".to_owned()));
    fs::remove_file(disks.ballast()).unwrap();
    deploys(&site, "v4");
}

#[test]
fn a_disk_without_inodes_is_named_and_old_releases_make_room() {
    let Some(disks) = Disks::new() else { return };
    let place = disks.0.path().join("disk");
    disks.mounted(&place, "size=1g,nr_inodes=3000");
    let many = format!("[build]\ncommand = \"mkdir many && cd many && seq 400 | xargs touch\"\n{BRISK}");
    let site = Site::new_in(&place, Sample::Static, &many);
    for number in 1..=9 {
        deploys(&site, &format!("v{number}"));
    }
    let ballast = place.join("files");
    fs::create_dir(&ballast).unwrap();
    let mut number = 0;
    while fs::File::create(ballast.join(number.to_string())).is_ok() {
        number += 1;
    }
    (0..60).for_each(|number| fs::remove_file(ballast.join(number.to_string())).unwrap());
    site.reconfigure("[deploy]\n", "[deploy]\nkeep_releases = 100\n");
    site.commit("v10", "");
    site.run("deploy", &[])
        .fails(3, &["; the disk can hold no more files, there is no inode left in ", "keep_releases, which is 100"]);
    assert_eq!(site.get("/"), (200, "v9\n".to_owned()));
}

#[test]
fn another_disk_that_a_build_needs_is_named() {
    let Some(disks) = Disks::new() else { return };
    disks.mounted(Path::new("/var/tmp"), "size=3m");
    let build = "[build]\ncommand = \"head -c 5000000 /dev/zero >/var/tmp/built\"\n";
    let site = Site::new(Sample::Static, &format!("{build}{BRISK}"));
    site.run("deploy", &[]).fails(3, &["No space left on device", "; the disk is full, 0.0 kB are free in /var/tmp"]);
    // A build that clears up behind itself leaves no trace but its words.
    site.reconfigure(">/var/tmp/built", ">/var/tmp/built || { rm /var/tmp/built; exit 1; }");
    fs::remove_file("/var/tmp/built").unwrap();
    site.run("deploy", &[]).fails(3, &["; the disk was full, and ", " are free now in "]);
    // One that fails for another reason does not blame the disk.
    site.reconfigure("head -c 5000000", "no-such-program");
    let ran = site.run("deploy", &[]);
    ran.fails(3, &["exit status 1"]);
    assert!(!ran.stderr.contains("disk"), "{ran:?}");
}
