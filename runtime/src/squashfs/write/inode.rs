//! Inodes as squashfs 4.0 stores them, except directories (libsquashfs makes those with their index).
//!
//! Layout: <https://dr-emann.github.io/squashfs/> ("Inode Table"), kernel `fs/squashfs/squashfs_fs.h`.
//! All numbers little-endian. Changing this breaks the format.

/// "No fragment", "no extended attributes".
pub const NONE: u32 = u32::MAX;

/// What every inode begins with.
#[derive(Debug, Clone, Copy)]
pub struct Common {
    /// Permission bits, 0o7777.
    pub mode: u16,
    /// Index into the id table.
    pub uid: u16,
    /// Index into the id table.
    pub gid: u16,
    /// Seconds since the epoch.
    pub mtime: u32,
    /// Number of the inode, from 1.
    pub number: u32,
    /// Names of the inode.
    pub nlink: u32,
    /// Index into the xattr id table, or [`NONE`].
    pub xattr: u32,
}

/// Where the bytes of a regular file are.
#[derive(Debug, Clone, Copy)]
pub struct Data<'a> {
    /// Size in bytes.
    pub size: u64,
    /// Offset of the first block from the start of the archive.
    pub start: u64,
    /// Bytes left out because their blocks are zero.
    pub sparse: u64,
    /// Fragment block, or [`NONE`].
    pub fragment: u32,
    /// Offset in the unpacked fragment block, or [`NONE`].
    pub offset: u32,
    /// Stored size of each block; bit 24: uncompressed; 0: a hole.
    pub blocks: &'a [u32],
}

/// The part that depends on the type.
#[derive(Debug, Clone, Copy)]
pub enum Special<'a> {
    /// Symbolic link with its target.
    Symlink(&'a [u8]),
    /// Block device with its number as [`device`] packs it.
    Block(u32),
    /// Character device, likewise.
    Char(u32),
    /// Named pipe.
    Fifo,
    /// UNIX socket.
    Socket,
}

/// Packs a device number the way the kernel's `new_encode_dev` does: 12 bits major, 20 bits minor.
/// `None` when a part does not fit.
pub fn device(major: u32, minor: u32) -> Option<u32> {
    (major <= 0xfff && minor <= 0xf_ffff).then_some((minor & 0xff) | (major << 8) | ((minor & !0xff) << 12))
}

fn common(out: &mut Vec<u8>, kind: u16, common: &Common) {
    out.clear();
    for word in [kind, common.mode, common.uid, common.gid] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    words(out, &[common.mtime, common.number]);
}

fn words(out: &mut Vec<u8>, words: &[u32]) {
    for word in words {
        out.extend_from_slice(&word.to_le_bytes());
    }
}

/// Writes the inode of a regular file into `out`, in the short form where it can hold the values.
pub fn file(out: &mut Vec<u8>, meta: &Common, data: &Data<'_>) {
    let short = (u32::try_from(data.start), u32::try_from(data.size));
    match short {
        (Ok(start), Ok(size)) if meta.nlink == 1 && meta.xattr == NONE && data.sparse == 0 => {
            common(out, 2, meta);
            words(out, &[start, data.fragment, data.offset, size]);
        }
        _ => {
            common(out, 9, meta);
            for value in [data.start, data.size, data.sparse] {
                out.extend_from_slice(&value.to_le_bytes());
            }
            words(out, &[meta.nlink, data.fragment, data.offset, meta.xattr]);
        }
    }
    words(out, data.blocks);
}

/// Writes the inode of anything that is neither a file nor a directory into `out`.
pub fn special(out: &mut Vec<u8>, meta: &Common, special: &Special<'_>) {
    let kind = match special {
        Special::Symlink(_) => 3,
        Special::Block(_) => 4,
        Special::Char(_) => 5,
        Special::Fifo => 6,
        Special::Socket => 7,
    };
    let extended = meta.xattr != NONE;
    common(out, if extended { kind + 7 } else { kind }, meta);
    words(out, &[meta.nlink]);
    match special {
        Special::Symlink(target) => {
            // The tree refuses targets above 4095 bytes.
            words(out, &[target.len() as u32]);
            out.extend_from_slice(target);
        }
        Special::Block(number) | Special::Char(number) => words(out, &[*number]),
        Special::Fifo | Special::Socket => {}
    }
    if extended {
        words(out, &[meta.xattr]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const META: Common = Common { mode: 0o644, uid: 1, gid: 2, mtime: 3, number: 4, nlink: 1, xattr: NONE };
    const DATA: Data<'_> = Data { size: 5, start: 96, sparse: 0, fragment: 7, offset: 8, blocks: &[0x0100_0009] };

    #[test]
    fn golden_short_file() {
        let mut out = vec![0xff];
        file(&mut out, &META, &DATA);
        let golden = [
            2, 0, 0xa4, 1, 1, 0, 2, 0, 3, 0, 0, 0, 4, 0, 0, 0, 96, 0, 0, 0, 7, 0, 0, 0, 8, 0, 0, 0, 5, 0, 0, 0, 9, 0,
            0, 1,
        ];
        assert_eq!(out, golden);
    }

    #[test]
    fn long_form_when_a_value_needs_it() {
        let mut out = Vec::new();
        for (meta, data) in [
            (Common { nlink: 2, ..META }, DATA),
            (Common { xattr: 0, ..META }, DATA),
            (META, Data { sparse: 1, ..DATA }),
            (META, Data { size: 1 << 32, ..DATA }),
            (META, Data { start: 1 << 32, ..DATA }),
        ] {
            file(&mut out, &meta, &data);
            assert_eq!((out[0], out.len()), (9, 16 + 40 + 4));
        }
    }

    #[test]
    fn golden_symlink_with_xattr() {
        let mut out = Vec::new();
        special(&mut out, &Common { xattr: 6, ..META }, &Special::Symlink(b"ab"));
        assert_eq!(out[..2], [10, 0]);
        assert_eq!(out[16..], [1, 0, 0, 0, 2, 0, 0, 0, b'a', b'b', 6, 0, 0, 0]);
    }

    #[test]
    fn devices_are_packed_like_the_kernel_does() {
        assert_eq!(device(1, 3), Some(0x103));
        assert_eq!(device(0xfff, 0xf_ffff), Some(u32::MAX));
        assert_eq!(device(0x1000, 0), None);
        assert_eq!(device(0, 0x10_0000), None);
    }
}
