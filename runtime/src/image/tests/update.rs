//! Changing an image: atomic, serialised, also while it is executed.

use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::update::next_slot;
use super::*;
use crate::source::ByteSource;

fn set_name(path: &Path, name: &str) -> Result<(), Error> {
    update(path, |config| {
        config.name = name.to_owned();
        Ok(())
    })
}

fn inode(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().ino()
}

#[test]
fn a_change_is_seen_and_alternates_the_slots() {
    let (_directory, path) = image();
    for (generation, slot) in [(2, SlotName::B), (3, SlotName::A), (4, SlotName::B)] {
        set_name(&path, &format!("name {generation}")).unwrap();
        let image = open(&path);
        assert_eq!((image.generation, image.slot, image.slot_fault), (generation, slot, None));
        assert_eq!(image.config.name, format!("name {generation}"));
    }
}

#[test]
fn an_image_of_an_older_config_version_is_read_and_upgraded_by_the_next_change() {
    let (_directory, path) = image();
    let contents = read(&bytes_of(&path)).unwrap().unwrap();
    let newest = body::encode(&contents.config).unwrap();
    // Version 1 ends before the start-up set.
    let body = &newest[..newest.len() - DECLARED_LEN - STARTUP_LEN];
    let slot = slot::encode(contents.generation, 1, body, 4096).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    for offset in contents.superblock.slots {
        file.write_all_at(&slot, offset).unwrap();
    }
    drop(file);
    let old = open(&path);
    assert!(old.config.startup.is_empty() && old.config.name == contents.config.name && old.slot_fault.is_none());
    set_name(&path, "new").unwrap();
    let new = open(&path);
    assert_eq!((new.config.name.as_str(), new.generation), ("new", old.generation + 1));
    assert_eq!(new.config, Config { name: "new".to_owned(), ..old.config });
    // Slot B has the newest version, slot A still version 1: both can be read.
    let versions = contents.superblock.slots.map(|offset| bytes_of(&path)[offset as usize + 20]);
    assert_eq!(versions, [1, CONFIG_VERSION as u8]);
}

#[test]
fn nothing_is_written_when_nothing_changes_or_the_change_fails() {
    let (_directory, path) = image();
    let before = bytes_of(&path);
    update(&path, |_| Ok::<_, Error>(())).unwrap();
    let refused = update(&path, |config| {
        config.name.clear();
        Err::<(), _>(Error::NoPayload { path: PathBuf::new() })
    });
    assert!(refused.is_err());
    assert!(bytes_of(&path) == before);
}

#[test]
fn a_config_that_does_not_fit_names_the_limit() {
    let (_directory, path) = image();
    let before = bytes_of(&path);
    let error = set_name(&path, &"x".repeat(5000)).unwrap_err();
    assert!(chain(&error).contains("the image has room for 4032"), "{}", chain(&error));
    assert!(bytes_of(&path) == before);
    update(&path, |config| -> Result<(), Error> {
        config.name.clear();
        let room = 4032 - body::encode(config).unwrap().len() - 2;
        config.name = "x".repeat(room);
        Ok(())
    })
    .unwrap();
    assert_eq!(open(&path).generation, 2);
}

#[test]
fn a_write_cut_or_torn_anywhere_leaves_the_old_or_the_new_config() {
    let (_directory, path) = image();
    let long = |seed| noise(seed, 1200).iter().map(|byte| char::from(b'a' + byte % 26)).collect::<String>();
    set_name(&path, &long(1)).unwrap();
    set_name(&path, &long(2)).unwrap();
    let before = bytes_of(&path);
    let contents = read(&before).unwrap().unwrap();
    let mut config = contents.config.clone();
    config.name = long(3);
    let (new, offset) = next_slot(&contents, &config).unwrap();
    let place = offset as usize..offset as usize + new.len();
    let old = before[place.clone()].to_vec();
    let mut image = before;
    let mut read_with = |slot: &[u8]| {
        image[place.clone()].copy_from_slice(slot);
        let read = read(&image).unwrap().unwrap();
        assert!(read.config == contents.config || read.config == config);
        read.generation
    };
    for cut in 0..=new.len() {
        let slot = [&new[..cut], &old[cut..]].concat();
        assert_eq!(read_with(&slot) == 4, slot == new, "{cut}");
        let slot = [&new[..cut], &noise(cut as u64, new.len() - cut)[..]].concat();
        assert_eq!(read_with(&slot) == 4, slot == new, "{cut}");
    }
    // Every set of sectors that a device may have written.
    let sectors = new.len().div_ceil(512);
    for written in 0..1_u32 << sectors {
        let sector = |at: usize| if written & (1 << (at / 512)) != 0 { new[at] } else { old[at] };
        let slot: Vec<u8> = (0..new.len()).map(sector).collect();
        assert_eq!(read_with(&slot) == 4, slot == new, "{written:b}");
    }
}

#[test]
fn a_slot_of_a_newer_version_is_never_overwritten() {
    let (_directory, path) = image();
    let mut contents = read(&bytes_of(&path)).unwrap().unwrap();
    let config = Config { layers: contents.config.layers.clone(), ..Config::default() };
    contents.other_version = Some(CONFIG_VERSION + 1);
    assert!(matches!(next_slot(&contents, &config), Err(FormatError::NewerConfig { slot: SlotName::B, .. })));
    contents.other_version = None;
    contents.superblock.version = 2;
    assert!(matches!(next_slot(&contents, &config), Err(FormatError::NewerFormat { .. })));
    contents.superblock.version = 1;
    contents.generation = u64::MAX;
    assert!(matches!(next_slot(&contents, &config), Err(FormatError::Generation)));
}

#[test]
fn fifty_writers_and_a_reader_at_once() {
    let (_directory, path) = image();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                assert!(open(&path).slot_fault.is_none());
            }
        });
        let writers: Vec<_> = (0..50)
            .map(|writer: u32| {
                let path = &path;
                scope.spawn(move || {
                    update(path, |config| -> Result<(), Error> {
                        config.env.push((writer.to_string().into_bytes(), Vec::new()));
                        Ok(())
                    })
                    .unwrap();
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    });
    let image = open(&path);
    assert_eq!((image.generation, image.config.env.len()), (51, 52));
}

/// An image that sleeps when it is executed.
fn sleeper() -> (tempfile::TempDir, PathBuf) {
    use std::os::unix::fs::PermissionsExt;
    let (directory, path) = image_with(&bytes_of(Path::new("/bin/sleep")), &config());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    (directory, path)
}

/// Executes the image; another test's fork may hold a descriptor of it for a moment.
fn execute(path: &Path, seconds: &str) -> std::process::Child {
    loop {
        match Command::new(path).arg(seconds).spawn() {
            Ok(child) => return child,
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ExecutableFileBusy),
        }
    }
}

#[test]
fn a_writer_waits_for_a_start_and_then_writes_in_place() {
    let (_directory, path) = sleeper();
    let before = inode(&path);
    let mut child = execute(&path, "0.05");
    set_name(&path, "changed").unwrap();
    assert_eq!((open(&path).config.name.as_str(), inode(&path)), ("changed", before));
    assert!(child.wait().unwrap().success());
}

#[test]
fn an_image_that_stays_busy_is_replaced_and_keeps_its_attributes() {
    let (directory, path) = sleeper();
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let (before, mode) = (inode(&path), std::fs::metadata(&path).unwrap().mode());
    let mut child = execute(&path, "1000");
    set_name(&link, "changed").unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(open(&path).config.name, "changed");
    assert!(inode(&path) != before && std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(std::fs::metadata(&path).unwrap().mode(), mode);
    assert!(verify(&open(&path), &mut |_, _| {}).unwrap().is_sound());
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2, "no copy stays behind");
}

#[test]
fn what_is_no_image_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bare");
    assert!(chain(&set_name(&path, "x").unwrap_err()).contains("bare: No such file"));
    std::fs::write(&path, program()).unwrap();
    assert!(matches!(set_name(&path, "x"), Err(Error::NoPayload { .. })));
    std::fs::write(&path, "text").unwrap();
    assert!(chain(&set_name(&path, "x").unwrap_err()).contains("it is not an ELF program"));
}

#[test]
fn a_layer_is_appended_and_garbage_of_an_interrupted_append_is_reclaimed() {
    let (_directory, path) = image();
    let len = bytes_of(&path).len() as u64;
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&noise(8, 300_000), len).unwrap();
    drop(file);
    let data = noise(7, 70_000);
    let entry = append_layer(&path, &mut &data[..], FACTS).unwrap();
    assert_eq!((entry.offset, entry.digest), (len, Digest::of(&data)));
    let image = open(&path);
    assert_eq!((image.generation, image.config.layers.len()), (2, 3));
    assert_eq!(image.root_layers().collect::<Vec<_>>(), [0, 2]);
    assert!(verify(&image, &mut |_, _| {}).unwrap().is_sound());
    let error = append_layer(&path, &mut std::io::empty(), FACTS).unwrap_err();
    assert!(chain(&error).contains("it has no bytes"));
    assert_eq!(open(&path).generation, 2);
}

#[test]
fn an_append_that_fails_leaves_the_image_as_it_was() {
    struct Breaks(usize);
    impl Read for Breaks {
        fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
            self.0 = self.0.checked_sub(1).ok_or(std::io::ErrorKind::StorageFull)?;
            buf.fill(7);
            Ok(buf.len())
        }
    }
    let (_directory, path) = image();
    let before = bytes_of(&path);
    for pieces in [0, 1, 3] {
        let error = append_layer(&path, &mut Breaks(pieces), FACTS).unwrap_err();
        assert!(matches!(error, Error::Source { .. }), "{error}");
        assert!(bytes_of(&path) == before, "after {pieces} pieces");
    }
}

#[test]
fn a_layer_is_removed_while_others_go_on_reading_it() {
    let (directory, path) = image();
    let plain = bytes_of(&path);
    append_layer(&path, &mut &noise(7, 70_000)[..], FACTS).unwrap();
    let running = open(&path);
    let removed = remove_layer(&path, |_| Ok::<_, Error>(2)).unwrap();
    assert_eq!(removed, running.config.layers[2]);
    let image = open(&path);
    assert_eq!((image.generation, image.config.layers.len(), image.file_len), (3, 2, plain.len() as u64));
    assert_eq!(image.config, read(&plain).unwrap().unwrap().config);
    let mut bytes = vec![0; 70_000];
    running.layer_source(2).unwrap().read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == noise(7, 70_000), "who has the old image open reads something else");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no copy stays behind");
}

#[test]
fn the_place_of_a_layer_below_others_becomes_a_hole() {
    let (_directory, path) = image();
    let before = open(&path);
    remove_layer(&path, |_| Ok::<_, Error>(0)).unwrap();
    let image = open(&path);
    assert_eq!(image.config.layers, before.config.layers[1..]);
    assert_eq!(image.config.icon.as_ref().map(|icon| icon.layer), Some(0), "the icon is another entry now");
    assert!(verify(&image, &mut |_, _| {}).unwrap().is_sound());
    let (from, to) = (before.config.layers[0].offset as usize, before.config.layers[0].end() as usize);
    assert!(bytes_of(&path)[from..to].iter().all(|byte| *byte == 0));
}

#[test]
fn what_cannot_be_removed_changes_nothing() {
    let (_directory, path) = image();
    let before = bytes_of(&path);
    assert!(chain(&remove_layer(&path, |_| Ok::<_, Error>(2)).unwrap_err()).contains("no such entry"));
    assert!(remove_layer(&path, |_| Err::<usize, _>(Error::NoPayload { path: PathBuf::new() })).is_err());
    assert!(bytes_of(&path) == before);
}
