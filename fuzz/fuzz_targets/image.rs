//! The image format: program headers, superblock, slots, config body, index, verified reading.
//!
//! The first byte of an input chooses the parser. Digests would keep a fuzzer outside, so the modes that need
//! it put the right ones in.

#![no_main]

use libfuzzer_sys::fuzz_target;
use runtime::image::{FormatError, Superblock, VerifiedSource, body, elf, page_align, read, slot, superblock};
use runtime::source::ByteSource;

fuzz_target!(|input: &[u8]| {
    let Some((mode, bytes)) = input.split_first() else { return };
    match mode {
        0 => image(bytes.to_vec()),
        1 => image(resealed(bytes)),
        2 => config(bytes),
        3 => drop(elf::program_end(bytes)),
        4 => drop(slot::SlotHeader::parse(bytes, 4096)),
        _ => {}
    }
});

/// A whole file: what it says about itself, then reads of every layer.
fn image(bytes: Vec<u8>) {
    let Ok(Some(contents)) = read(&bytes) else { return };
    for (index, entry) in contents.config.layers.iter().enumerate() {
        let Ok(source) = VerifiedSource::new(bytes.clone(), entry, index) else { continue };
        let len = usize::try_from(source.len()).expect("read() checked that the layer lies inside the input");
        let whole = source.read_exact_at(&mut vec![0; len], 0).is_ok();
        let last = source.read_exact_at(&mut [0], source.len() - 1).is_ok();
        assert!(last || !whole);
        assert!(source.read_exact_at(&mut [0], source.len()).is_err());
    }
}

/// A config body: what decodes must survive being written again.
fn config(bytes: &[u8]) {
    if let Ok(config) = body::decode(1, bytes) {
        let again = body::encode(&config).expect("a decoded config can be encoded");
        assert_eq!(body::decode(1, &again).as_ref(), Ok(&config));
    }
}

/// The input with the digests of its superblock and slots put right, as far as it has them.
fn resealed(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let _ = reseal(&mut bytes);
    bytes
}

fn reseal(bytes: &mut [u8]) -> Result<(), FormatError> {
    let at = page_align(elf::program_end(bytes)?).ok_or(FormatError::Generation)?;
    let start = at as usize;
    let Some(page) = bytes.get_mut(start..start + superblock::LEN) else { return Ok(()) };
    let digest = blake3::hash(&page[..superblock::DIGEST_OFFSET]);
    page[superblock::DIGEST_OFFSET..].copy_from_slice(digest.as_bytes());
    let superblock = Superblock::parse(page, at)?;
    for offset in superblock.slots {
        let Some(slot) = bytes.get_mut(offset as usize..(offset + superblock.slot_capacity) as usize) else { continue };
        let Ok(header) = slot::SlotHeader::parse(slot, superblock.slot_capacity) else { continue };
        let body = &slot[slot::HEADER_LEN..slot::HEADER_LEN + header.body_len as usize];
        let Ok(sealed) = slot::encode(header.generation, header.config_version, body, superblock.slot_capacity) else {
            continue;
        };
        slot[..sealed.len()].copy_from_slice(&sealed);
    }
    Ok(())
}
