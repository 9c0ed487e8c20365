//! Names and ways by which an image is called.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

use super::harness::world::copy;
use super::host::Host;

#[test]
fn relative_path() {
    let host = Host::new().env("IMAGE", "./app.flatimage");
    host.runs("odd-names");
    let host = Host::new();
    fs::create_dir(host.world.path("sub")).unwrap();
    host.through(&["sh", "-c", "cd sub; IMAGE=../app.flatimage exec sh -c \"$0\""]).runs("odd-names");
}

#[test]
fn path_lookup() {
    let host = Host::new();
    let path = format!("{}:/usr/bin:/bin", host.world.path("").display());
    host.env("PATH", &path).env("IMAGE", "app.flatimage").runs("odd-names");
}

#[test]
fn symlink_to_the_image() {
    let host = Host::new();
    fs::create_dir(host.world.path("links")).unwrap();
    symlink("../app.flatimage", host.world.path("links/link")).unwrap();
    let image = host.world.path("links/link").to_str().unwrap().to_owned();
    let host = host.env("IMAGE", &image);
    host.run("\"$IMAGE\" fim-exec true").succeeds().quietly();
    assert!(host.world.data().is_dir(), "data lies beside the file, not beside the link");
    host.runs("odd-names");
}

#[test]
fn another_argv0() {
    let host = Host::new();
    host.run("exec bash -c 'exec -a \"strange name\" \"$IMAGE\" fim-exec echo hello'")
        .succeeds()
        .with_stdout("hello\n")
        .quietly();
    host.run("exec bash -c 'exec -a \"\" \"$IMAGE\" fim-exec echo hello'").succeeds().with_stdout("hello\n").quietly();
}

#[test]
fn any_bytes() {
    for name in
        [&b"a b  c"[..], b"new\nline", b"tab\t'\"$HOME\\", b"\xff\xfe not UTF-8", "grün, :=,".as_bytes(), b"-rf"]
    {
        let host = Host::new();
        let mut path = OsString::from(host.world.path(OsStr::from_bytes(name)));
        copy(host.world.image(), path.as_ref());
        let through = [
            "sh",
            "-c",
            "for IMAGE in ./*; do test -f \"$IMAGE\" && test \"$IMAGE\" != ./app.flatimage && export IMAGE && exec sh -c \"$0\"; done",
        ];
        host.through(&through).runs("odd-names");
        path.push("x");
    }
}
