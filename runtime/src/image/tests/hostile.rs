//! Cut, flipped and forged images: always a clear error, never a panic, never the wrong configuration.

use super::*;

fn read_format(bytes: Vec<u8>) -> Result<Option<Contents>, FormatError> {
    read(&bytes).map_err(|error| match error {
        ReadError::Format(error) => error,
        ReadError::Io(error) => panic!("bytes in memory cannot fail: {error}"),
    })
}

/// An image whose slots are both in use, and its contents.
fn changed_image() -> (Vec<u8>, Contents) {
    let (_directory, path) = image();
    update(&path, |config| {
        config.name.push('2');
        Ok::<_, Error>(())
    })
    .unwrap();
    let bytes = bytes_of(&path);
    let contents = read_format(bytes.clone()).unwrap().unwrap();
    assert_eq!((contents.generation, contents.slot), (2, SlotName::B));
    (bytes, contents)
}

/// Replaces the body of slot A and makes slot B unusable.
fn with_body(bytes: &mut [u8], contents: &Contents, version: u32, body: &[u8]) {
    let [a, b] = contents.superblock.slots.map(|offset| offset as usize);
    let slot = slot::encode(9, version, body, 4096).unwrap();
    bytes[a..b + 4096].fill(0xee);
    bytes[a..a + slot.len()].copy_from_slice(&slot);
}

#[test]
fn every_cut_is_an_error() {
    let (_directory, path) = image();
    let bytes = bytes_of(&path);
    let edges = (4096..bytes.len()).step_by(4096).flat_map(|page| [page - 1, page, page + 1]);
    for len in (0..9000).chain(edges).chain([bytes.len() - 1]) {
        let error = read_format(bytes[..len].to_vec()).unwrap_err();
        let expected = match len {
            0..4 => matches!(error, FormatError::NotElf),
            4..64 => matches!(error, FormatError::Elf(_)),
            _ => matches!(error, FormatError::Truncated { .. }),
        };
        assert!(expected, "{len}: {error}");
    }
}

#[test]
fn a_program_without_payload_is_not_an_image() {
    assert_eq!(read_format(program()).unwrap(), None);
    let mut padded = program();
    padded.resize(4096, 0);
    assert_eq!(read_format(padded.clone()).unwrap(), None);
    padded.push(1);
    assert!(matches!(read_format(padded), Err(FormatError::Truncated { .. })));
    let mut followed = program();
    followed.resize(9000, 0);
    assert!(matches!(read_format(followed), Err(FormatError::NoSuperblock(4096))));
}

#[test]
fn sections_count_for_the_end_unless_they_have_no_bytes() {
    let mut elf = program();
    elf.resize(5000, 1);
    let section = |kind: u32, offset: u64, size: u64| {
        let mut header = vec![0; 64];
        header[4..8].copy_from_slice(&kind.to_le_bytes());
        header[24..32].copy_from_slice(&offset.to_le_bytes());
        header[32..40].copy_from_slice(&size.to_le_bytes());
        header
    };
    elf[40..48].copy_from_slice(&4500u64.to_le_bytes());
    elf[60..62].copy_from_slice(&3u16.to_le_bytes());
    elf.splice(4500..4692, [section(0, 0, 0), section(8, 100, 1 << 60), section(1, 4000, 900)].concat());
    assert_eq!(elf::program_end(&elf).unwrap(), 4900);
    elf.splice(4628..4692, section(1, 4000, 100));
    assert_eq!(elf::program_end(&elf).unwrap(), 4692);
    elf.splice(4628..4692, section(1, u64::MAX, 100));
    assert!(matches!(elf::program_end(&elf), Err(FormatError::Elf(_))));
    elf.splice(4628..4692, section(1, 4000, 5000));
    assert!(matches!(elf::program_end(&elf), Err(FormatError::Truncated { need: 9000, .. })));
    assert_eq!(
        read_format(elf).unwrap_err().to_string().split(';').next(),
        Some("it is truncated: the program ends at byte 9000, the file has 5000")
    );
}

#[test]
fn no_flip_of_the_program_panics() {
    let (bytes, _) = changed_image();
    for at in 0..200 {
        for flip in [1, 0x80, 0xff] {
            let mut bytes = bytes.clone();
            bytes[at] ^= flip;
            // Many bits of a program mean nothing here; whatever is read must be the right thing.
            if let Ok(contents) = read_format(bytes) {
                assert_eq!(contents.unwrap().config.name, "Zoë2");
            }
        }
    }
}

#[test]
fn every_flip_of_the_superblock_is_an_error() {
    let (bytes, contents) = changed_image();
    let at = contents.superblock.offset() as usize;
    for byte in (at..at + 128).chain(at + 4000..at + 4096) {
        let mut bytes = bytes.clone();
        bytes[byte] ^= 4;
        let error = read_format(bytes).unwrap_err();
        assert!(matches!(error, FormatError::NoSuperblock(_) | FormatError::SuperblockDigest), "{byte}: {error}");
    }
}

#[test]
fn every_flip_of_a_slot_leaves_the_other() {
    let (bytes, contents) = changed_image();
    let len = 64 + body::encode(&contents.config).unwrap().len();
    for byte in 0..len {
        let [mut newer, mut both] = [bytes.clone(), bytes.clone()];
        let [a, b] = contents.superblock.slots.map(|offset| offset as usize + byte);
        newer[b] ^= 0x10;
        let fallback = read_format(newer).unwrap().unwrap();
        assert_eq!((fallback.generation, fallback.config.name.as_str()), (1, "Zoë"), "{byte}");
        // Without its magic the newer slot is still missed, because a change must have filled it.
        if byte < 64 {
            assert!(fallback.slot_fault.is_some(), "{byte}");
        }
        (both[a], both[b]) = (both[a] ^ 1, both[b] ^ 1);
        if byte < len - 1 {
            assert!(matches!(read_format(both), Err(FormatError::BothSlots { .. })), "{byte}");
        }
    }
}

#[test]
fn a_damaged_older_slot_is_reported() {
    let (mut bytes, contents) = changed_image();
    bytes[contents.superblock.slots[0] as usize] ^= 1;
    let read = read_format(bytes).unwrap().unwrap();
    assert_eq!((read.generation, read.slot_fault), (2, Some(SlotFault::Magic)));
}

#[test]
fn newer_versions_ask_for_a_newer_program() {
    let (bytes, contents) = changed_image();
    let mut superblock = contents.superblock.clone();
    let at = superblock.offset() as usize;
    let mut with = |version, min_reader| {
        (superblock.version, superblock.min_reader) = (version, min_reader);
        let mut bytes = bytes.clone();
        bytes[at..at + 4096].copy_from_slice(&superblock.to_bytes());
        read_format(bytes)
    };
    assert!(with(2, 2).unwrap_err().to_string().ends_with("this one reads up to 1: use a newer fim"));
    assert_eq!(with(2, 1).unwrap().unwrap().config, contents.config);
    let mut bytes = bytes.clone();
    with_body(&mut bytes, &contents, CONFIG_VERSION + 1, b"what a newer fim wrote");
    let error = read_format(bytes).unwrap_err();
    assert!(matches!(error, FormatError::NewerConfig { slot: SlotName::A, version: 4, known: 3 }));
}

#[test]
fn a_forged_superblock_is_refused() {
    let (bytes, contents) = changed_image();
    let good = contents.superblock.clone();
    let at = good.offset() as usize;
    let forge = |change: fn(&mut Superblock)| {
        let (mut superblock, mut bytes) = (good.clone(), bytes.clone());
        change(&mut superblock);
        bytes[at..at + 4096].copy_from_slice(&superblock.to_bytes());
        read_format(bytes).unwrap_err().to_string()
    };
    assert!(forge(|s| s.elf_len = 201).contains("the program has a different length"));
    assert!(forge(|s| s.elf_len = u64::MAX).contains("the program has a different length"));
    assert!(forge(|s| s.slots[0] = u64::MAX - 4095).contains("a slot lies behind"));
    assert!(forge(|s| s.slots[1] = s.slots[0]).contains("the slots overlap"));
    assert!(forge(|s| s.slots[0] = 4096).contains("overlaps the superblock"));
    assert!(forge(|s| s.slots[0] += 1).contains("not a multiple of 4096"));
    assert!(forge(|s| s.slot_capacity = u64::MAX - 4095).contains("capacity is out of range"));
    assert!(forge(|s| s.slot_capacity = 0).contains("capacity is out of range"));
    assert!(forge(|s| s.payload = u64::MAX - 4095).contains("1 TiB"));
    assert!(forge(|s| s.payload = s.slots[1]).contains("slot B overlaps"));
    assert!(forge(|s| s.payload = 1 << 30).contains("truncated"));
    assert!(forge(|s| s.version = 0).contains("contradict"));
}

#[test]
fn forged_bodies_never_panic_and_never_allocate_much() {
    let (bytes, contents) = changed_image();
    let valid = body::encode(&contents.config).unwrap();
    let read_body = |body: &[u8]| {
        let mut bytes = bytes.clone();
        with_body(&mut bytes, &contents, CONFIG_VERSION, body);
        read_format(bytes)
    };
    assert!(read_body(&valid).is_ok());
    assert!(read_body(&[&valid[..], &[0]].concat()).unwrap_err().to_string().contains("1 bytes follow"));
    for len in 0..valid.len() {
        assert!(read_body(&valid[..len]).is_err(), "{len}");
    }
    // A length of 2^64 - 1, in every place where one may stand.
    for at in 0..valid.len() {
        let mut body = valid.clone();
        body.splice(at..=at, [0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        assert!(at > 0 || body::decode(CONFIG_VERSION, &body).is_err(), "the length of the name");
        // Elsewhere the bytes may be text; what counts is that this returns.
        let _ = body::decode(CONFIG_VERSION, &body);
        for flip in 1..=255 {
            let mut body = valid.clone();
            body[at] ^= flip;
            let _ = body::decode(CONFIG_VERSION, &body);
        }
    }
    assert!(body::decode(7, &valid).unwrap_err().contains("never existed"));
}

#[test]
fn a_slot_header_with_hostile_numbers_is_refused() {
    let mut header = slot::encode(1, 1, b"", 4096).unwrap();
    header[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(slot::SlotHeader::parse(&header, 4096), Err(SlotFault::Header("the body is longer than the slot")));
    header[8..20].fill(0);
    assert_eq!(slot::SlotHeader::parse(&header, 4096), Err(SlotFault::Header("generation 0")));
    assert_eq!(slot::SlotHeader::parse(&header[..63], 4096), Err(SlotFault::Header("it is cut")));
}
