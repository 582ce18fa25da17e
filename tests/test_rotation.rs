//! A log loses nothing of what was written, whatever the disk refuses later, and whatever somebody does to its files.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use cutover::logfile::{Backwards, ROTATE_AT, Writer};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::not_tested::not_tested;
use crate::site::{BRISK, Sample, Site, eventually};
use crate::torture::disk::{Disk, Trouble};

/// A line of a thousand bytes that holds a number.
fn line(number: u64) -> Vec<u8> {
    format!("{number:0>999}\n").into_bytes()
}

/// A log whose present file is nearly full, with all the files that are kept before it.
fn nearly_full(directory: &Path) -> (PathBuf, Writer) {
    let path = directory.join("A.log");
    for number in 1..=5 {
        fs::write(directory.join(format!("A.log.{number}")), format!("precious {number}\n")).unwrap();
    }
    let mut writer = Writer::open(&path).unwrap();
    (0..ROTATE_AT / 1000 - 1).for_each(|number| writer.append(&line(number)));
    (path, writer)
}

/// The numbers in all lines of a log, the oldest first.
fn numbers(path: &Path) -> Vec<u64> {
    let lines = Backwards::of(path).unwrap().map(|line| line.unwrap());
    let mut numbers: Vec<u64> = lines.filter(|line| line.len() == 999).filter_map(|line| line.parse().ok()).collect();
    numbers.reverse();
    numbers
}

fn precious(directory: &Path) -> Vec<u64> {
    let kept = |number: &u64| {
        (1..=5).any(|place| {
            let text = fs::read_to_string(directory.join(format!("A.log.{place}"))).unwrap_or_default();
            text == format!("precious {number}\n")
        })
    };
    (1..=5).filter(kept).collect()
}

fn small_disk() -> Option<Disk> {
    let disk = Disk::of_size(60 << 20);
    if disk.is_none() {
        not_tested("a disk of its own", "this is not root");
    }
    disk
}

#[test]
fn a_disk_without_inodes_costs_neither_old_lines_nor_new_ones() {
    let Some(disk) = small_disk() else { return };
    let directory = disk.directory.path().to_owned();
    let (path, mut writer) = nearly_full(&directory);
    disk.go_bad(Trouble::OutOfInodes);
    let first = ROTATE_AT / 1000 - 1;
    (first..first + 3000).for_each(|number| writer.append(&line(number)));
    assert_eq!(precious(&directory), [1, 2, 3, 4, 5]);
    assert_eq!(numbers(&path), (0..first + 3000).collect::<Vec<u64>>());
    disk.recover(Trouble::OutOfInodes);
    (first + 3000..first + 5000).for_each(|number| writer.append(&line(number)));
    assert_eq!(numbers(&path), (0..first + 5000).collect::<Vec<u64>>());
    // One rotation: of the old files the oldest one has gone.
    assert_eq!(precious(&directory), [1, 2, 3, 4]);
}

#[test]
fn a_full_disk_costs_new_lines_which_are_counted_and_no_old_ones() {
    let Some(disk) = small_disk() else { return };
    let directory = disk.directory.path().to_owned();
    let (path, mut writer) = nearly_full(&directory);
    disk.go_bad(Trouble::Full);
    let first = ROTATE_AT / 1000 - 1;
    (first..first + 3000).for_each(|number| writer.append(&line(number)));
    assert_eq!(precious(&directory), [1, 2, 3, 4, 5]);
    let kept = numbers(&path).into_iter().filter(|number| *number < first).count();
    assert_eq!(kept as u64, first);
    let whole = numbers(&path).len() as u64;
    disk.recover(Trouble::Full);
    writer.append(&line(7));
    let lines: Vec<String> = Backwards::of(&path).unwrap().take(2).map(Result::unwrap).collect();
    assert_eq!(lines[0], format!("{:0>999}", 7));
    let lost = first + 3000 - whole;
    let told = lines[1].split_once(" supervise ").unwrap().1;
    assert!(told.starts_with(&format!("{lost} lines of output lost (")), "{told}");
    assert!(told.ends_with(" bytes): the log could not be written"), "{told}");
    // It is told once.
    writer.append(&line(8));
    assert_eq!(Backwards::of(&path).unwrap().next().unwrap().unwrap(), format!("{:0>999}", 8));
}

#[test]
fn a_log_that_was_moved_deleted_or_emptied_goes_on_under_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("A.log");
    let moved = directory.path().join("moved");
    let mut writer = Writer::open(&path).unwrap();
    writer.append(b"one\n");
    fs::rename(&path, &moved).unwrap();
    writer.append(b"two\n");
    assert_eq!(fs::read_to_string(&moved).unwrap(), "one\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), "two\n");
    // As logrotate does it: what comes next has the name already.
    fs::rename(&path, &moved).unwrap();
    fs::write(&path, "").unwrap();
    writer.append(b"three\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
    fs::remove_file(&path).unwrap();
    writer.append(b"four\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), "four\n");
    // copytruncate
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
    writer.append(b"five\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), "five\n");
    // What was emptied is not full.
    (0..ROTATE_AT / 1000 - 1).for_each(|number| writer.append(&line(number)));
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
    (0..9).for_each(|number| writer.append(&line(number)));
    assert!(!directory.path().join("A.log.1").exists());
    fs::remove_dir_all(directory.path()).unwrap();
    writer.append(b"nobody reads this\n");
    fs::create_dir(directory.path()).unwrap();
    writer.append(b"six\n");
    assert!(fs::read_to_string(&path).unwrap().ends_with("six\n"));
}

#[test]
fn a_log_that_was_deleted_comes_back_on_a_disk_without_inodes() {
    let Some(disk) = small_disk() else { return };
    let path = disk.directory.path().join("A.log");
    let mut writer = Writer::open(&path).unwrap();
    writer.append(b"one\n");
    disk.go_bad(Trouble::OutOfInodes);
    fs::remove_file(&path).unwrap();
    // ext4 may not give the inode of a file that was deleted a moment ago.
    eventually("the log is there again", || {
        writer.append(b"two\n");
        path.exists()
    });
    assert!(fs::read_to_string(&path).unwrap().ends_with("two\n"));
}

#[test]
fn what_is_in_the_place_of_a_log_is_moved_aside() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("A.log");
    let elsewhere = directory.path().join("elsewhere");
    fs::write(&elsewhere, "somebody's\n").unwrap();
    let mut writer = Writer::open(&path).unwrap();
    let obstacles: [fn(&Path, &Path); 3] = [
        |path, _| fs::create_dir_all(path.join("full")).unwrap(),
        |path, elsewhere| symlink(elsewhere, path).unwrap(),
        |path, _| mkfifo(path, Mode::S_IRWXU).unwrap(),
    ];
    for (number, lay) in (1..).zip(obstacles) {
        fs::remove_file(&path).unwrap();
        lay(&path, &elsewhere);
        writer.append(b"while it runs\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "while it runs\n");
        assert!(fs::symlink_metadata(directory.path().join(format!("A.log.aside.{}", 2 * number - 1))).is_ok());
        fs::remove_file(&path).unwrap();
        lay(&path, &elsewhere);
        writer = Writer::open(&path).unwrap();
        writer.append(b"as it starts\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "as it starts\n");
        assert!(fs::symlink_metadata(directory.path().join(format!("A.log.aside.{}", 2 * number))).is_ok());
    }
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "somebody's\n");
}

#[test]
fn a_directory_in_the_place_of_an_old_file_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("A.log");
    for place in [2, 5] {
        fs::create_dir_all(directory.path().join(format!("A.log.{place}/full"))).unwrap();
    }
    let mut writer = Writer::open(&path).unwrap();
    let count = 3 * ROTATE_AT / 1000 + 100;
    (0..count).for_each(|number| writer.append(&line(number)));
    assert_eq!(numbers(&path), (0..count).collect::<Vec<u64>>());
    let is_file = |place: &u32| directory.path().join(format!("A.log.{place}")).is_file();
    assert_eq!((1..=6).filter(is_file).collect::<Vec<u32>>(), [1, 3, 4]);
}

/// The same of a running app, which knows nothing of its log.
#[test]
fn the_log_of_a_running_app_may_be_moved_deleted_or_linked() {
    let run = "[run]\ncommand = \"(while sleep 0.05; do echo tick; done) & exec ./app\"\nstop_timeout = \"2s\"\n";
    let site = Site::new(Sample::Static, &format!("{BRISK}{run}"));
    site.run("deploy", &[]).ok();
    let log = site.home.join("logs/A.log");
    let goes_on = || {
        eventually("the log goes on", || {
            fs::symlink_metadata(&log).is_ok_and(|meta| meta.is_file())
                && fs::read_to_string(&log).unwrap_or_default().contains(" tick\n")
        });
        assert!(site.run("logs", &["A", "-n", "1"]).ok().ends_with("tick\n"));
    };
    goes_on();
    fs::rename(&log, site.home.join("logs/kept")).unwrap();
    goes_on();
    fs::remove_file(&log).unwrap();
    goes_on();
    fs::remove_file(&log).unwrap();
    symlink("/dev/full", &log).unwrap();
    goes_on();
    site.run("stop-instance", &["A", "--force"]).ok();
    fs::remove_file(&log).unwrap();
    symlink("/nowhere/at/all", &log).unwrap();
    site.run("start-instance", &["A"]).ok();
    goes_on();
}
