//! What an ELF program says it needs: interpreter and libraries (System V ABI, "Program Loading and Dynamic
//! Linking"; elf(5)). Little-endian programs of both classes; anything that is damaged is no program.

/// Most program headers that are looked at.
const SEGMENTS_MAX: u16 = 256;
/// Most bytes of a dynamic section that are looked at.
const DYNAMIC_MAX: u64 = 64 << 10;
/// Longest string, its NUL included: `PATH_MAX`.
const STRING_MAX: usize = 4096;
/// Most libraries that one file names.
const NEEDED_MAX: usize = 512;

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_RPATH: u64 = 15;
const DT_RUNPATH: u64 = 29;

/// For which processor and word size a program is made; libraries must agree with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Machine {
    /// `EI_CLASS`: 1 is 32 bits, 2 is 64.
    pub class: u8,
    /// `e_machine`.
    pub number: u16,
}

/// A program or a library.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Program {
    pub machine: Machine,
    /// `PT_INTERP`.
    pub interpreter: Option<Vec<u8>>,
    /// `DT_NEEDED`, in order.
    pub needed: Vec<Vec<u8>>,
    /// Directories of `DT_RUNPATH`, or else of `DT_RPATH`, as they stand: `$ORIGIN` is not replaced.
    pub search: Vec<Vec<u8>>,
}

/// Reads up to so many bytes at an offset of the file; fewer at its end only.
pub(super) type Read<'a> = dyn Fn(u64, usize) -> Option<Vec<u8>> + 'a;

/// One program header.
struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    size: u64,
}

/// Parses the file behind `read`; `None` when it is no ELF file, or one that no loader would take.
pub(super) fn parse(read: &Read<'_>) -> Option<Program> {
    let header = read(0, 64)?;
    if header.get(..4)? != b"\x7fELF" || header.get(5) != Some(&1) {
        return None;
    }
    let class = *header.get(4)?;
    let wide = match class {
        1 => false,
        2 => true,
        _ => return None,
    };
    let machine = Machine { class, number: word16(&header, 18)? };
    let segments = segments(read, &header, wide)?;
    let interpreter = segments.iter().find(|segment| segment.kind == PT_INTERP);
    let interpreter = interpreter.and_then(|segment| string(read, segment.offset));
    let mut program = Program { machine, interpreter, needed: Vec::new(), search: Vec::new() };
    let Some(dynamic) = segments.iter().find(|segment| segment.kind == PT_DYNAMIC) else { return Some(program) };
    let entries = dynamic_entries(&read(dynamic.offset, dynamic.size.min(DYNAMIC_MAX) as usize)?, wide);

    let value = |tag| entries.iter().find(|entry| entry.0 == tag).map(|entry| entry.1);
    // Without a string table nothing is needed: a static-pie program.
    let Some(strings) = value(DT_STRTAB).and_then(|address| file_offset(&segments, address)) else {
        return Some(program);
    };
    let text = |at: u64| string(read, strings.checked_add(at)?);
    let needed = entries.iter().filter(|entry| entry.0 == DT_NEEDED).take(NEEDED_MAX);
    program.needed = needed.filter_map(|entry| text(entry.1)).collect();
    if let Some(list) = value(DT_RUNPATH).or_else(|| value(DT_RPATH)).and_then(text) {
        program.search = list.split(|byte| *byte == b':').filter(|part| !part.is_empty()).map(<[u8]>::to_vec).collect();
    }
    Some(program)
}

fn segments(read: &Read<'_>, header: &[u8], wide: bool) -> Option<Vec<Segment>> {
    let (offset, size, count, least) = if wide {
        (word64(header, 32)?, word16(header, 54)?, word16(header, 56)?, 56)
    } else {
        (word32(header, 28)?.into(), word16(header, 42)?, word16(header, 44)?, 32)
    };
    if size < least {
        return None;
    }
    let table = read(offset, usize::from(size) * usize::from(count.min(SEGMENTS_MAX)))?;
    let parse = |entry: &[u8]| {
        let kind = word32(entry, 0)?;
        Some(if wide {
            Segment { kind, offset: word64(entry, 8)?, address: word64(entry, 16)?, size: word64(entry, 32)? }
        } else {
            let wide = |at| word32(entry, at).map(u64::from);
            Segment { kind, offset: wide(4)?, address: wide(8)?, size: wide(16)? }
        })
    };
    table.chunks_exact(size.into()).map(parse).collect()
}

/// Tags and values, up to the tag that ends them.
fn dynamic_entries(bytes: &[u8], wide: bool) -> Vec<(u64, u64)> {
    let parse = |entry: &[u8]| {
        if wide {
            Some((word64(entry, 0)?, word64(entry, 8)?))
        } else {
            Some((word32(entry, 0)?.into(), word32(entry, 4)?.into()))
        }
    };
    bytes.chunks_exact(if wide { 16 } else { 8 }).map_while(parse).take_while(|(tag, _)| *tag != 0).collect()
}

/// Where in the file an address of the program lies.
fn file_offset(segments: &[Segment], address: u64) -> Option<u64> {
    let loaded = segments.iter().filter(|segment| segment.kind == PT_LOAD);
    let mut loaded = loaded.filter_map(|segment| {
        let within = address.checked_sub(segment.address).filter(|within| *within < segment.size)?;
        segment.offset.checked_add(within)
    });
    loaded.next()
}

/// The string at `offset`, without its NUL; empty ones mean nothing anywhere.
fn string(read: &Read<'_>, offset: u64) -> Option<Vec<u8>> {
    let mut bytes = read(offset, STRING_MAX)?;
    let end = bytes.iter().position(|byte| *byte == 0)?;
    bytes.truncate(end);
    Some(bytes).filter(|bytes| !bytes.is_empty())
}

fn word16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_le_bytes)
}

fn word32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

fn word64(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A 64-bit program with these dynamic entries (tag and string) and interpreter.
    pub fn program(interpreter: Option<&str>, dynamic: &[(u64, &str)]) -> Vec<u8> {
        const BASE: u64 = 0x40_0000;
        let (headers, table) = (64 + 3 * 56, (dynamic.len() as u64 + 2) * 16);
        let strings_at = headers + table;
        let (mut strings, mut entries) = (vec![0], Vec::new());
        for (tag, text) in dynamic {
            entries.extend([*tag, strings.len() as u64]);
            strings.extend([text.as_bytes(), b"\0"].concat());
        }
        entries.extend([DT_STRTAB, BASE + strings_at, 0, 0]);
        let interpreter_at = strings_at + strings.len() as u64;
        strings.extend([interpreter.unwrap_or_default().as_bytes(), b"\0"].concat());
        let end = strings_at + strings.len() as u64;

        let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
        bytes.resize(16, 0);
        for word in [3u16, 62] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.resize(32, 0);
        bytes.extend(64u64.to_le_bytes());
        bytes.resize(54, 0);
        for word in [56u16, 3, 0, 0, 0] {
            bytes.extend(word.to_le_bytes());
        }
        let third = if interpreter.is_some() { PT_INTERP } else { 0 };
        for (kind, offset, size) in [(PT_LOAD, 0, end), (PT_DYNAMIC, headers, table), (third, interpreter_at, 1)] {
            bytes.extend(kind.to_le_bytes());
            bytes.extend([0; 4]);
            for word in [offset, BASE + offset, 0, size, size, 0] {
                bytes.extend(word.to_le_bytes());
            }
        }
        bytes.extend(entries.iter().flat_map(|word: &u64| word.to_le_bytes()));
        bytes.extend(strings);
        bytes
    }

    fn parsed(bytes: &[u8]) -> Option<Program> {
        parse(&|offset, len| {
            let rest = bytes.get(usize::try_from(offset).ok()?..)?;
            Some(rest[..rest.len().min(len)].to_vec())
        })
    }

    #[test]
    fn needs_are_read() {
        let bytes = program(Some("/lib/ld.so"), &[(DT_NEEDED, "libc.so"), (DT_RPATH, "/old"), (DT_NEEDED, "libm.so")]);
        let program_ = parsed(&bytes).unwrap();
        assert_eq!(program_.machine, Machine { class: 2, number: 62 });
        assert_eq!(program_.interpreter.as_deref(), Some(&b"/lib/ld.so"[..]));
        assert_eq!(program_.needed, [b"libc.so", b"libm.so"]);
        assert_eq!(program_.search, [b"/old"]);
        let both = program(None, &[(DT_RPATH, "/old"), (DT_RUNPATH, "$ORIGIN/a::/b")]);
        assert_eq!(parsed(&both).unwrap().search, [&b"$ORIGIN/a"[..], b"/b"]);
        assert_eq!(parsed(&program(None, &[])).unwrap().needed, Vec::<Vec<u8>>::new());
    }

    #[test]
    fn the_running_program_can_be_read() {
        assert!(parsed(&std::fs::read("/proc/self/exe").unwrap()).is_some());
    }

    /// Nothing that is cut off or changed panics or goes on forever.
    #[test]
    fn damage_is_survived() {
        let bytes = program(Some("/lib/ld.so"), &[(DT_NEEDED, "libc.so"), (DT_RUNPATH, "/a:/b")]);
        for len in 0..bytes.len() {
            let _ = parsed(&bytes[..len]);
        }
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut changed = bytes.clone();
                changed[at] = value;
                let _ = parsed(&changed);
            }
        }
        assert_eq!(parsed(b"\x7fELF"), None);
        assert_eq!(parsed(b"#!/bin/sh\n"), None);
    }
}
