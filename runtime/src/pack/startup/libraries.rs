//! Where the dynamic linker looks for libraries (ld.so(8), ldconfig(8)).

use std::collections::HashSet;

use super::elf::{Machine, Program};
use super::view::{File, View, file, joined, resolve};

/// Longest configuration file that is read, in bytes.
const CONF_MAX: usize = 64 << 10;
/// Most configuration files that are read.
const CONFS_MAX: usize = 256;

/// The directories of /etc/ld.so.conf and what it includes.
pub(super) fn configured(view: &dyn View) -> Vec<Vec<u8>> {
    let (mut directories, mut seen) = (Vec::new(), HashSet::new());
    let mut waiting = vec![b"etc/ld.so.conf".to_vec()];
    while let Some(path) = waiting.pop() {
        let Some(File { path, .. }) = file(view, &path).filter(|_| seen.len() < CONFS_MAX) else { continue };
        if !seen.insert(path.clone()) {
            continue;
        }
        let text = view.read(&path, 0, CONF_MAX).unwrap_or_default();
        let mut included = Vec::new();
        for line in text.split(|byte| *byte == b'\n') {
            let line = line.split(|byte| *byte == b'#').next().unwrap_or_default().trim_ascii();
            match line.strip_prefix(b"include").filter(|rest| rest.first().is_some_and(u8::is_ascii_whitespace)) {
                Some(pattern) => included.extend(matching(view, pattern.trim_ascii())),
                None if line.first() == Some(&b'/') => directories.push(line.to_vec()),
                None => {}
            }
        }
        waiting.extend(included.into_iter().rev());
    }
    directories
}

/// Files whose path is `pattern`, with at most one `*` in its last part; relative to /etc.
fn matching(view: &dyn View, pattern: &[u8]) -> Vec<Vec<u8>> {
    let pattern = if pattern.first() == Some(&b'/') { pattern.to_vec() } else { joined(b"etc", pattern) };
    let slash = pattern.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    let (directory, name) = (&pattern[..slash], &pattern[slash..]);
    let name = name.strip_prefix(b"/").unwrap_or(name);
    let Some(star) = name.iter().position(|byte| *byte == b'*') else { return vec![pattern] };
    let (begin, end) = (&name[..star], &name[star + 1..]);
    let Some((directory, _)) = resolve(view, directory) else { return Vec::new() };
    let fits = |name: &[u8]| {
        name.len() >= begin.len() + end.len() && name.starts_with(begin) && name.ends_with(end) && name[0] != b'.'
    };
    view.names(&directory).iter().filter(|name| fits(name)).map(|name| joined(&directory, name)).collect()
}

/// Directories in which a library of `program`, which lies in `origin`, is looked for.
pub(super) fn search(program: &Program, origin: &[u8], configured: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let own = program.search.iter().map(|directory| replaced(directory, origin));
    let own: Vec<_> = own.collect();
    own.into_iter().chain(configured.iter().cloned()).chain(standard(program.machine)).collect()
}

/// `$ORIGIN` and `${ORIGIN}` become the directory of the file that says so.
fn replaced(directory: &[u8], origin: &[u8]) -> Vec<u8> {
    for variable in [&b"$ORIGIN"[..], b"${ORIGIN}"] {
        if let Some(rest) = directory.strip_prefix(variable) {
            return [origin, rest].concat();
        }
    }
    directory.to_vec()
}

/// Directories that glibc and musl of any distribution know without being told.
fn standard(machine: Machine) -> Vec<Vec<u8>> {
    // e_machine of elf.h, and Debian's name for it.
    let triple = match (machine.number, machine.class) {
        (3, _) => "i386-linux-gnu",
        (40, _) => "arm-linux-gnueabihf",
        (62, 1) => "x86_64-linux-gnux32",
        (62, _) => "x86_64-linux-gnu",
        (183, _) => "aarch64-linux-gnu",
        (243, _) => "riscv64-linux-gnu",
        _ => "",
    };
    let wide = if machine.class == 2 { "64" } else { "32" };
    let directories = [
        format!("lib/{triple}"),
        format!("usr/lib/{triple}"),
        format!("lib{wide}"),
        format!("usr/lib{wide}"),
        "lib".to_owned(),
        "usr/lib".to_owned(),
        "usr/local/lib".to_owned(),
    ];
    directories.into_iter().map(String::into_bytes).collect()
}
