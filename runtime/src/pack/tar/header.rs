//! Members of a tar, one after another: POSIX.1-2017 `pax` ("ustar" and "pax" interchange formats) and the
//! GNU tar manual ("Basic Tar Format").
//!
//! Fields are parsed by the `tar` crate. The walk is ours: that crate splits pax records at newlines, which
//! binary attributes contain, and does not know sparse files in pax format.

use super::pax::Records;
use super::reader::Reader;
use super::sparse;
use crate::pack::clamp_time;
use crate::source::FileRange;
use crate::squashfs::Time;
use crate::squashfs::write::Xattrs;
use std::io::{self, Read};
use tar::Header;

const BLOCK: usize = 512;
/// Longest extended header (attributes and long names) in bytes.
const MAX_EXTENSION: u64 = 16 << 20;

/// The types of member that can be packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    File,
    Link,
    Symlink,
    Char,
    Block,
    Directory,
    Fifo,
}

/// One member, all extensions applied.
#[derive(Debug)]
pub struct Member {
    pub path: Vec<u8>,
    pub kind: Type,
    /// Target of a link.
    pub link: Vec<u8>,
    /// Bytes of the file, holes included.
    pub size: u64,
    /// Bytes of the file that are in the archive.
    pub stored: u64,
    /// Ranges of the file that these bytes are: offset and length.
    pub data: sparse::Map,
    /// Where the bytes begin in the archive.
    pub at: u64,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    /// Major and minor number.
    pub device: (u32, u32),
    pub xattrs: Xattrs,
}

/// Whether `start` begins with the header of a tar: its checksum is right, or it is the end of an empty one.
pub fn is_header(start: &[u8]) -> bool {
    match start.get(..BLOCK) {
        Some(block) if block.iter().all(|&byte| byte == 0) => {
            start.len() > BLOCK && start.iter().all(|&byte| byte == 0)
        }
        Some(block) => checksum_is_right(Header::from_byte_slice(block)),
        None => false,
    }
}

fn checksum_is_right(header: &Header) -> bool {
    let bytes = header.as_bytes();
    let sum = |value: fn(u8) -> i64| -> i64 {
        // The field itself counts as eight spaces.
        bytes[..148].iter().chain(&[b' '; 8]).chain(&bytes[156..]).map(|&byte| value(byte)).sum()
    };
    // Some old programs added signed bytes.
    let known = header.cksum().map(i64::from);
    known.is_ok_and(|known| known == sum(i64::from) || known == sum(|byte| i64::from(byte.cast_signed())))
}

fn bad(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}

/// Reads the members of an archive.
pub struct Archive {
    input: Reader,
    global: Records,
    /// Bytes of the current member's data and its padding, which are not read here.
    left: u64,
    /// Whether a member is given although its data is cut off.
    incomplete: bool,
}

/// What extension headers said about the next member.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: Option<Records>,
}

impl Archive {
    /// The archive that is all of `range`.
    pub fn new(range: FileRange) -> Self {
        Self { input: Reader::new(range), global: Records::default(), left: 0, incomplete: false }
    }

    /// The same, to learn the names in an archive of which only the beginning is there.
    pub fn naming(range: FileRange) -> Self {
        Self { incomplete: true, ..Self::new(range) }
    }

    fn skip(&mut self, count: u64) -> io::Result<()> {
        self.input.skip(count).map_err(cut_off)
    }

    /// The next member, or `None` at the end.
    ///
    /// # Errors
    /// When the archive is damaged, cut off, or uses what cannot be packed.
    pub fn next(&mut self) -> io::Result<Option<Member>> {
        let left = std::mem::take(&mut self.left);
        self.skip(left)?;
        let mut extensions = Extensions::default();
        loop {
            let Some(header) = self.header()? else {
                let unused = extensions.path.is_some() || extensions.link.is_some() || extensions.records.is_some();
                return if unused { Err(cut_off(io::ErrorKind::UnexpectedEof.into())) } else { Ok(None) };
            };
            let size = header.entry_size().map_err(|_| bad("a size that is not a number"))?;
            match header.entry_type().as_byte() {
                b'x' => {
                    let records = Records::parse(&self.extension(size)?)?;
                    extensions.records.get_or_insert_default().extend(&records);
                }
                b'g' => {
                    let records = Records::parse(&self.extension(size)?)?;
                    self.global.extend(&records);
                }
                b'L' => extensions.path = Some(until_nul(self.extension(size)?)),
                b'K' => extensions.link = Some(until_nul(self.extension(size)?)),
                // The name of a volume.
                b'V' => self.skip(padded(size)?)?,
                _ => return self.member(&header, extensions).map(Some),
            }
        }
    }

    /// The next header; `None` at the end, which two zero blocks mark, and which a missing mark does not hide.
    fn header(&mut self) -> io::Result<Option<Header>> {
        let mut header = Header::new_old();
        let bytes = header.as_mut_bytes();
        let mut filled = 0;
        while filled < BLOCK {
            match self.input.read(&mut bytes[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(cut_off(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if bytes.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        if checksum_is_right(&header) {
            Ok(Some(header))
        } else {
            Err(bad("what should be the next header has a wrong checksum: the archive is damaged, or no tar"))
        }
    }

    fn extension(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > MAX_EXTENSION {
            return Err(bad(format!("an extended header of {size} bytes (at most {MAX_EXTENSION} are possible)")));
        }
        let mut data = Vec::new();
        (&mut self.input).take(size).read_to_end(&mut data)?;
        if data.len() as u64 != size {
            return Err(cut_off(io::ErrorKind::UnexpectedEof.into()));
        }
        self.skip(padded(size)? - size)?;
        Ok(data)
    }

    fn member(&mut self, header: &Header, extensions: Extensions) -> io::Result<Member> {
        let mut records = self.global.clone();
        records.extend(&extensions.records.unwrap_or_default());
        let field = |name: &str| bad(format!("the header's {name} is not a number"));
        let owner = |keyword: &str, known: io::Result<u64>| -> io::Result<u32> {
            let id = records.number(keyword)?.map_or(known, Ok).map_err(|_| field(keyword))?;
            u32::try_from(id).map_err(|_| bad(format!("the {keyword} {id} is above 4294967295")))
        };
        let old_sparse = header.entry_type().is_gnu_sparse();
        let path = records.get("GNU.sparse.name").or(records.get("path")).map(<[u8]>::to_vec);
        let path = path.or(extensions.path).unwrap_or_else(|| header.path_bytes().into_owned());
        let link = records.get("linkpath").map(<[u8]>::to_vec).or(extensions.link);
        let link = link.or_else(|| header.link_name_bytes().map(|link| link.into_owned())).unwrap_or_default();
        let kind = kind(header, &path)?;
        // Of the other types, a size is a hint or nonsense: no data follows.
        let stored = match (kind, records.number("size")?) {
            (Type::File, Some(size)) => size,
            (Type::File | Type::Link, None) => header.entry_size().map_err(|_| field("size"))?,
            (Type::Link, Some(size)) => size,
            _ => 0,
        };
        if kind == Type::Link && stored > 0 {
            return Err(bad("a hard link with data"));
        }
        self.left = padded(stored)?;
        let mut member = Member {
            kind,
            size: stored,
            stored,
            data: vec![(0, stored)],
            at: self.input.position(),
            // Type bits in it mean nothing.
            mode: (header.mode().map_err(|_| field("mode"))? & 0o7777) as u16,
            uid: owner("uid", header.uid())?,
            gid: owner("gid", header.gid())?,
            // A negative number is stored in base 256 as its two's complement.
            mtime: match records.time("mtime")? {
                Some((seconds, nanoseconds)) => clamp_time(seconds, nanoseconds),
                None => clamp_time(header.mtime().map_err(|_| field("time"))?.cast_signed(), 0),
            },
            device: (0, 0),
            xattrs: xattrs(&records),
            path,
            link,
        };
        if matches!(kind, Type::Block | Type::Char) {
            let number = |known: io::Result<Option<u32>>| known.map(Option::unwrap_or_default);
            let (major, minor) = (number(header.device_major()), number(header.device_minor()));
            member.device = (major.map_err(|_| field("major number"))?, minor.map_err(|_| field("minor number"))?);
        }
        if kind == Type::File {
            self.sparse(&mut member, header, old_sparse, &records)?;
        }
        // What cannot be read later is found now.
        if !self.incomplete {
            self.input.holds(member.stored).map_err(cut_off)?;
        }
        Ok(member)
    }

    /// Replaces size and ranges by those of a sparse file, if it is one.
    fn sparse(&mut self, member: &mut Member, header: &Header, old: bool, records: &Records) -> io::Result<()> {
        let stored = member.stored;
        if old {
            let header = header.as_gnu().ok_or_else(|| bad("a sparse file without a GNU header"))?;
            member.data = sparse::old(header, &mut self.input).map_err(cut_off)?;
            member.at = self.input.position();
            member.size = header.real_size().map_err(|_| bad("a sparse file without a size"))?;
            return sparse::check(&member.data, member.size, stored);
        }
        let real = match records.number("GNU.sparse.realsize")? {
            Some(size) => Some(size),
            None => records.number("GNU.sparse.size")?,
        };
        let map = if records.number("GNU.sparse.major")? == Some(1) {
            let mut data = (&mut self.input).take(stored);
            let (map, taken) = sparse::from_data(&mut data).map_err(cut_off)?;
            self.left -= taken;
            member.stored -= taken;
            member.at += taken;
            Some(map)
        } else {
            sparse::from_records(records)?
        };
        if let Some(map) = map {
            member.size = real.ok_or_else(|| bad("a sparse file without a size"))?;
            member.data = map;
            sparse::check(&member.data, member.size, member.stored)?;
        }
        Ok(())
    }
}

/// An end in the middle, in words.
fn cut_off(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => io::Error::new(error.kind(), "the archive is cut off"),
        _ => error,
    }
}

fn padded(size: u64) -> io::Result<u64> {
    let padded = size.checked_next_multiple_of(BLOCK as u64);
    padded.filter(|&size| size < 1 << 62).ok_or_else(|| bad(format!("an impossible size of {size} bytes")))
}

fn until_nul(mut name: Vec<u8>) -> Vec<u8> {
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    name.truncate(end);
    name
}

fn kind(header: &Header, path: &[u8]) -> io::Result<Type> {
    Ok(match header.entry_type().as_byte() {
        // Before POSIX, a directory was a file with a slash at the end.
        0 | b'0' if header.as_ustar().is_none() && header.as_gnu().is_none() && path.ends_with(b"/") => Type::Directory,
        0 | b'0' | b'7' | b'S' => Type::File,
        b'1' => Type::Link,
        b'2' => Type::Symlink,
        b'3' => Type::Char,
        b'4' => Type::Block,
        b'5' => Type::Directory,
        b'6' => Type::Fifo,
        other => {
            let (name, other) = (path.escape_ascii(), char::from(other));
            return Err(bad(format!("the entry \"{name}\" has the type {other:?}, which cannot be packed")));
        }
    })
}

/// `SCHILY.xattr.NAME=VALUE`, as star, GNU tar and bsdtar write them.
fn xattrs(records: &Records) -> Xattrs {
    let named = records.iter().filter_map(|(key, value)| Some((key.strip_prefix(b"SCHILY.xattr.")?, value)));
    let mut xattrs: Xattrs = Vec::new();
    for (name, value) in named {
        xattrs.retain(|(known, _)| **known != *name);
        xattrs.push((name.into(), value.into()));
    }
    xattrs
}
