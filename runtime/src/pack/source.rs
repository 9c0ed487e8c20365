//! What can be packed, recognised by content and never by name.

use super::Error;
use super::appimage;
use super::container::Container;
use super::tar::is_header;
use crate::image::elf;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Something that can be packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A directory tree.
    Directory(PathBuf),
    /// A directory that is an OCI image layout.
    Layout(PathBuf),
    /// A tar, plain or compressed with gzip, xz or zstd: of a root file system, of an OCI image layout, or made by
    /// `docker save`.
    Tar(PathBuf),
    /// A squashfs, which is copied as it is.
    Squashfs(PathBuf),
    /// An AppImage of type 2: a program and a squashfs behind it.
    AppImage(PathBuf),
    /// An image of ours.
    Image(PathBuf),
}

/// How a stream is compressed, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Xz,
    Zstd,
}

impl Compression {
    /// Magic numbers: RFC 1952, the .xz file format 1.2.0 and RFC 8878 (frames and skippable frames).
    pub(super) fn detect(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }
}

impl Source {
    /// Looks at `path` (through symbolic links) and says what it is.
    ///
    /// # Errors
    /// When it cannot be read, or is nothing that can be packed.
    pub fn detect(path: &Path) -> Result<Self, Error> {
        let metadata = path.metadata().map_err(Error::read("read", path))?;
        if metadata.is_dir() {
            let layout = Container::is_layout(path);
            return Ok(if layout { Self::Layout(path.to_owned()) } else { Self::Directory(path.to_owned()) });
        }
        let other = |found: &str| Error::NotASource { path: path.to_owned(), found: found.to_owned() };
        if !metadata.is_file() {
            return Err(other("neither a directory nor a regular file"));
        }
        let mut start = Vec::new();
        let file = File::open(path).map_err(Error::read("open", path))?;
        file.take(1024).read_to_end(&mut start).map_err(Error::read("read", path))?;
        if start.starts_with(b"hsqs") {
            return Ok(Self::Squashfs(path.to_owned()));
        }
        if elf::is_marked(&start) {
            return Ok(Self::Image(path.to_owned()));
        }
        match appimage::kind(&start) {
            Some(2) => return Ok(Self::AppImage(path.to_owned())),
            Some(1) => return Err(other("an AppImage of type 1, which holds an ISO 9660 file system")),
            _ => {}
        }
        if Compression::detect(&start) != Compression::None || is_header(&start) {
            return Ok(Self::Tar(path.to_owned()));
        }
        Err(other(match &start[..] {
            [] => "an empty file",
            [0x7f, b'E', b'L', b'F', ..] => "an ELF program",
            [b'P', b'K', 3 | 5, ..] => "a zip archive",
            [b'B', b'Z', b'h', ..] => "compressed with bzip2",
            [b's', b'q', b's', b'h', ..] => "a big-endian squashfs",
            _ => "a file of another kind",
        }))
    }

    /// The path it was detected at.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Directory(path)
            | Self::Layout(path)
            | Self::Tar(path)
            | Self::Squashfs(path)
            | Self::AppImage(path)
            | Self::Image(path) => path,
        }
    }
}

/// Whether `path`, which need not exist, lies inside the directory `source` (or is it), after all symbolic links:
/// an output there would be packed into itself.
///
/// # Errors
/// When `source` or the directory of `path` does not exist.
pub fn contains(source: &Path, path: &Path) -> io::Result<bool> {
    let source = source.canonicalize()?;
    if let Ok(path) = path.canonicalize() {
        return Ok(path.starts_with(&source));
    }
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    Ok(parent.canonicalize()?.starts_with(&source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compression_is_seen_in_the_first_bytes() {
        let cases: [(&[u8], _); 6] = [
            (b"\x1f\x8b\x08", Compression::Gzip),
            (b"\xfd7zXZ\0", Compression::Xz),
            (b"\x28\xb5\x2f\xfd", Compression::Zstd),
            (b"\x5e\x2a\x4d\x18", Compression::Zstd),
            (b"", Compression::None),
            (b"\x1f", Compression::None),
        ];
        for (start, expected) in cases {
            assert_eq!(Compression::detect(start), expected);
        }
    }

    #[test]
    fn an_output_inside_the_source_is_seen_through_links() {
        let base = tempfile::tempdir().unwrap();
        let source = base.path().join("source");
        std::fs::create_dir_all(source.join("sub")).unwrap();
        std::os::unix::fs::symlink("source/sub", base.path().join("link")).unwrap();
        assert!(contains(&source, &source.join("new")).unwrap());
        assert!(contains(&source, &base.path().join("link/new")).unwrap());
        assert!(!contains(&source, &base.path().join("source-2")).unwrap());
        assert!(contains(&source, &base.path().join("missing/new")).is_err());
    }

    #[test]
    fn what_cannot_be_packed_is_named() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("file.tar");
        for (content, found) in [(&b""[..], "an empty file"), (b"PK\x03\x04", "a zip archive"), (b"x", "another kind")]
        {
            std::fs::write(&path, content).unwrap();
            let error = Source::detect(&path).unwrap_err().to_string();
            assert!(error.contains(found) && error.contains("file.tar") && error.contains("a squashfs"), "{error}");
        }
        assert!(matches!(Source::detect(&base.path().join("none")), Err(Error::Read { .. })));
        assert_eq!(Source::detect(base.path()).unwrap(), Source::Directory(base.path().to_owned()));
    }
}
