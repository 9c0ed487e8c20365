//! The set of trees that stand in a table.

use super::elf::tests::program;
use super::resolve;
use super::{Entry, First, Names, Startup, View, find, shell};
use std::collections::BTreeMap;

const NEEDED: u64 = 1;
const RUNPATH: u64 = 29;

#[derive(Default)]
struct Table(BTreeMap<Vec<u8>, (Entry, Vec<u8>)>);

impl Table {
    fn file(mut self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        let content = content.into();
        self.put(path, Entry::File(content.len() as u64), content);
        self
    }

    fn link(mut self, path: &str, target: &str) -> Self {
        self.put(path, Entry::Symlink(target.into()), Vec::new());
        self
    }

    fn put(&mut self, path: &str, entry: Entry, content: Vec<u8>) {
        for (at, _) in path.match_indices('/') {
            self.0.entry(path[..at].into()).or_insert((Entry::Directory, Vec::new()));
        }
        self.0.insert(path.into(), (entry, content));
    }

    fn found(&self, command: &str, budget: u64) -> Vec<String> {
        let first = self.first(command, &[], budget).into_iter();
        first.map(|first| first.path.into_os_string().into_string().unwrap()).collect()
    }

    fn first(&self, command: &str, read: &[&str], budget: u64) -> Vec<First> {
        let path = vec![b"/opt/bin".into(), b"/usr/bin".into()];
        let read = read.iter().map(|path| path.as_bytes().to_vec()).collect();
        find(self, &Startup { command: Some(command.into()), path, read }, budget, &mut |_, size| size)
    }
}

impl Names for Table {
    fn entry(&self, path: &[u8]) -> Option<Entry> {
        self.0.get(path).map(|(entry, _)| entry.clone())
    }
}

impl View for Table {
    fn names(&self, path: &[u8]) -> Vec<Vec<u8>> {
        let prefix = [path, b"/"].concat();
        let below = self.0.keys().filter_map(|path| path.strip_prefix(&prefix[..]));
        below.filter(|name| !name.contains(&b'/')).map(<[u8]>::to_vec).collect()
    }

    fn read(&self, path: &[u8], offset: u64, len: usize) -> Option<Vec<u8>> {
        let rest = self.0.get(path)?.1.get(usize::try_from(offset).ok()?..)?;
        Some(rest[..rest.len().min(len)].to_vec())
    }
}

/// A merged-usr system with glibc.
fn system() -> Table {
    let libc = program(Some("/lib64/ld.so"), &[(NEEDED, "ld.so")]);
    Table::default()
        .link("bin", "usr/bin")
        .link("lib", "usr/lib")
        .link("lib64", "/usr/lib64")
        .file("usr/lib64/ld.so", program(None, &[]))
        .link("usr/lib/x86_64-linux-gnu/libc.so.6", "libc-2.so")
        .file("usr/lib/x86_64-linux-gnu/libc-2.so", libc)
        .file("usr/bin/dash", program(Some("/lib64/ld.so"), &[(NEEDED, "libc.so.6")]))
        .link("usr/bin/sh", "dash")
        .file("etc/passwd", "root:x:0:0::/root:/bin/sh\n")
}

#[test]
fn the_shell_brings_its_linker_and_libraries() {
    let expected = ["etc/passwd", "usr/lib64/ld.so", "usr/lib/x86_64-linux-gnu/libc-2.so", "usr/bin/dash"];
    assert_eq!(system().found("missing", u64::MAX), expected);
    assert_eq!((shell(&system()), shell(&Table::default())), (Some(&b"bin/sh"[..]), None));
    assert!(Table::default().found("sh", u64::MAX).is_empty());
}

#[test]
fn libraries_are_found_where_the_linker_looks() {
    let app = [(RUNPATH, "$ORIGIN/../own"), (NEEDED, "own.so"), (NEEDED, "conf.so"), (NEEDED, "none.so")];
    let mut other_machine = program(None, &[]);
    other_machine[18] = 183;
    let table = Table::default()
        .file("opt/bin/app", program(None, &app))
        .file("opt/own/own.so", program(None, &[(NEEDED, "local.so")]))
        .file("etc/ld.so.conf", "# all\ninclude ld.so.conf.d/*.conf\n/wrong\n")
        .file("etc/ld.so.conf.d/a.conf", "/srv/lib # ours\ninclude /etc/ld.so.conf\n")
        .file("etc/ld.so.conf.d/b.txt", "/not/read\n")
        .file("wrong/conf.so", other_machine)
        .file("srv/lib/conf.so", program(None, &[(NEEDED, "own.so")]))
        .file("usr/local/lib/local.so", program(None, &[]));
    let expected = ["opt/own/own.so", "srv/lib/conf.so", "usr/local/lib/local.so", "opt/bin/app"];
    assert_eq!(table.found("app", u64::MAX), expected);
    assert_eq!(table.found("/opt/bin/app", u64::MAX), expected);
}

#[test]
fn scripts_bring_what_runs_them() {
    let table = system()
        .file("opt/bin/run", "#!/usr/bin/env -S python3 -u\nprint()\n")
        .file("usr/bin/env", program(None, &[]))
        .file("usr/bin/python3", program(None, &[]))
        .file("opt/bin/self", "#!/opt/bin/self\n");
    let found = table.found("run", u64::MAX);
    assert_eq!(found[1..4], ["opt/bin/run", "usr/bin/env", "usr/bin/python3"]);
    assert_eq!(table.found("self", u64::MAX)[1], "opt/bin/self");
}

#[test]
fn what_the_budget_does_not_hold_is_left_out() {
    let big = [program(None, &[(NEEDED, "libc.so.6")]), vec![0; 100_000]].concat();
    let table = system().file("opt/bin/app", big);
    let found = table.found("app", 50_000);
    assert!(!found.contains(&"opt/bin/app".to_owned()) && found.contains(&"usr/bin/dash".to_owned()), "{found:?}");
    assert!(table.found("app", 0).is_empty());
}

#[test]
fn links_are_followed_inside_and_not_forever() {
    let table =
        system().link("a", "b").link("b", "a").link("up", "../../../etc/passwd").link("through", "etc/passwd/x");
    assert_eq!(resolve(&table, b"a"), None);
    assert_eq!(resolve(&table, b"/up").unwrap().0, b"etc/passwd");
    assert_eq!(resolve(&table, b"through"), None);
    assert_eq!(resolve(&table, b"//lib64/./../lib64/ld.so").unwrap().0, b"usr/lib64/ld.so");
    assert_eq!(resolve(&table, b"/").unwrap(), (Vec::new(), Entry::Directory));
}

#[test]
fn what_a_run_has_read_goes_first_in_its_order() {
    let table = system().file("opt/big", vec![0; 100_000]).file("opt/small", "x").link("opt/link", "small");
    let read = ["opt/small", "opt/big", "usr/lib/x86_64-linux-gnu/libc-2.so", "gone", "opt", "opt/small"];
    let opened = |budget| -> Vec<String> {
        let first = table.first("missing", &read, budget).into_iter();
        first.map(|first| String::from_utf8(first.opened).unwrap()).collect()
    };
    let all = opened(u64::MAX);
    // The library is opened by the name that a start knows it by.
    assert_eq!(all[..3], ["opt/small", "opt/big", "lib/x86_64-linux-gnu/libc.so.6"]);
    assert_eq!(all.iter().filter(|path| *path == "opt/small").count(), 1);
    assert!(all.contains(&"bin/sh".to_owned()), "{all:?}");
    // One large file does not keep the others out.
    let some = opened(90_000);
    assert_eq!(some[..2], ["opt/small", "lib/x86_64-linux-gnu/libc.so.6"]);
    assert!(!some.contains(&"opt/big".to_owned()) && some.contains(&"bin/sh".to_owned()), "{some:?}");
}
