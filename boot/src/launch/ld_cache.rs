//! The cache of the host's dynamic loader (`/etc/ld.so.cache`, written by ldconfig(8)): where libraries lie.
//!
//! The layout is that of glibc's `sysdeps/generic/dl-cache.h`, `struct cache_file_new`, without the older one before it,
//! which glibc stopped writing in 2.32. Integers are little-endian.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
/// Length of the header in bytes.
const HEADER: usize = 48;
/// Length of an entry in bytes.
const ENTRY: usize = 24;
/// Flags of an x86-64 library of glibc (`FLAG_ELF_LIBC6 | FLAG_X8664_LIB64`).
const X86_64: u32 = 0x0303;

/// Name and path of every x86-64 library in a cache, each name once. Whatever is damaged is passed over.
#[must_use]
pub fn libraries(cache: &[u8]) -> Vec<(String, PathBuf)> {
    if !cache.starts_with(MAGIC) {
        return Vec::new();
    }
    let count = number(cache, 20).unwrap_or(0) as usize;
    let entries = cache.get(HEADER..).unwrap_or_default().chunks_exact(ENTRY).take(count);
    let mut found: Vec<(String, PathBuf)> = Vec::new();
    for entry in entries {
        let text = |at: usize| string(cache, number(entry, at)? as usize);
        let (Some(X86_64), Some(name), Some(path)) = (number(entry, 0), text(4), text(8)) else { continue };
        let Ok(name) = std::str::from_utf8(name) else { continue };
        // The first is the one that the loader takes.
        if !name.contains('/') && path.starts_with(b"/") && !found.iter().any(|(other, _)| other == name) {
            found.push((name.to_owned(), PathBuf::from(OsStr::from_bytes(path))));
        }
    }
    found
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The text at an offset, up to its NUL.
fn string(cache: &[u8], at: usize) -> Option<&[u8]> {
    let rest = cache.get(at..)?;
    let len = rest.iter().position(|&byte| byte == 0)?;
    (len > 0).then(|| &rest[..len])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cache with these entries: flags, name, path.
    fn cache(entries: &[(u32, &str, &str)]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend((entries.len() as u32).to_le_bytes());
        bytes.resize(HEADER, 0);
        let mut strings = Vec::new();
        let base = HEADER + entries.len() * ENTRY;
        for (flags, name, path) in entries {
            let mut put = |text: &str| {
                let at = (base + strings.len()) as u32;
                strings.extend(text.bytes().chain([0]));
                at
            };
            let (name, path) = (put(name), put(path));
            bytes.extend([*flags, name, path, 0, 0, 0].iter().flat_map(|number| number.to_le_bytes()));
        }
        [bytes, strings].concat()
    }

    #[test]
    fn the_first_library_of_a_name_counts() {
        let bytes = cache(&[
            (X86_64, "libcuda.so.1", "/usr/lib/libcuda.so.1"),
            (0x0003, "libcuda.so.1", "/usr/lib32/libcuda.so.1"),
            (X86_64, "libcuda.so.1", "/opt/libcuda.so.1"),
            (X86_64, "a/b", "/x"),
            (X86_64, "relative", "x"),
        ]);
        assert_eq!(libraries(&bytes), [("libcuda.so.1".to_owned(), PathBuf::from("/usr/lib/libcuda.so.1"))]);
    }

    #[test]
    fn damage_is_passed_over() {
        let bytes = cache(&[(X86_64, "liba.so", "/a"), (X86_64, "libb.so", "/b")]);
        for len in 0..bytes.len() {
            assert!(libraries(&bytes[..len]).len() < 2, "{len}");
        }
        for at in 0..bytes.len() {
            for flip in [1, 0x80, 0xff] {
                let mut bytes = bytes.clone();
                bytes[at] ^= flip;
                assert!(libraries(&bytes).len() <= 2);
            }
        }
        assert!(libraries(b"").is_empty());
    }

    #[test]
    fn the_cache_of_this_host_is_read() {
        let bytes = std::fs::read("/etc/ld.so.cache").expect("this test needs /etc/ld.so.cache; run ldconfig");
        assert!(libraries(&bytes).iter().any(|(name, _)| name == "libc.so.6"));
    }
}
