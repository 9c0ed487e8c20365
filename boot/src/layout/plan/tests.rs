use super::*;

fn places() -> Places {
    Places {
        root: "/run/fim/root".into(),
        data: "/run/fim/data/1/system".into(),
        common: "/run/fim/data/common/system".into(),
    }
}

/// A layout as on the command line.
fn layout(line: &str) -> Layout {
    let words: Vec<&str> = line.split_whitespace().collect();
    let kind = LayoutKind::ALL.into_iter().find(|kind| kind.name() == words[1]).unwrap();
    let source = words.get(2).map(|word| word.as_bytes().to_vec()).unwrap_or_default();
    Layout { target: words[0].into(), kind, source, replace: false }
}

fn planned(lines: &[&str]) -> Result<Vec<String>, Vec<String>> {
    let layouts: Vec<Layout> = lines.iter().map(|line| layout(line)).collect();
    let planned = plan(&layouts, &places(), &[]);
    planned
        .map(|layouts| layouts.entries.into_iter().map(|entry| entry.name).collect())
        .map_err(|problems| problems.0.iter().map(ToString::to_string).collect())
}

#[test]
fn the_examples_of_the_documentation() {
    let layouts = [
        "/var/lib/foo bind $SNAP_DATA/var/lib/foo",
        "/usr/share/foo bind $SNAP/usr/share/foo",
        "/etc/foo.conf bind-file $SNAP_DATA/etc/foo.conf",
        "/usr/lib/x86_64-linux-gnu/libEGL.so symlink $SNAP/usr/lib/x86_64-linux-gnu/libEGL.so",
        "/foo bind $SNAP/foo",
        "/var/cache/foo tmpfs",
    ]
    .map(layout);
    let planned = plan(&layouts, &places(), &[]).unwrap();
    let source =
        |name: &str, base: &str, rest: &str| Source { name: name.into(), base: base.into(), rest: rest.into() };
    let expected = [
        ("/etc/foo.conf", What::File(source("$FIM_DATA/etc/foo.conf", "/run/fim/data/1/system", "etc/foo.conf"))),
        ("/foo", What::Directory(source("$FIM_ROOT_DIR/foo", "/run/fim/root", "foo"))),
        (
            "/usr/lib/x86_64-linux-gnu/libEGL.so",
            What::Symlink("/run/fim/root/usr/lib/x86_64-linux-gnu/libEGL.so".into()),
        ),
        ("/usr/share/foo", What::Directory(source("$FIM_ROOT_DIR/usr/share/foo", "/run/fim/root", "usr/share/foo"))),
        ("/var/cache/foo", What::Tmpfs),
        ("/var/lib/foo", What::Directory(source("$FIM_DATA/var/lib/foo", "/run/fim/data/1/system", "var/lib/foo"))),
    ];
    let found: Vec<_> = planned.entries.iter().map(|entry| (entry.name.as_str(), entry.what.clone())).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_name_that_begins_like_another_is_another() {
    let lines = [
        "$SNAP/api/Gemfile.lock bind-file $SNAP_DATA/Gemfile.lock",
        "$SNAP/api/Gemfile bind-file $SNAP_DATA/Gemfile",
        "$SNAP/folder.suffix bind $SNAP_DATA/folder.suffix",
        "$SNAP/folder bind $SNAP_DATA/folder",
    ];
    let order = planned(&lines).unwrap();
    assert_eq!(
        order,
        ["api/Gemfile", "api/Gemfile.lock", "folder", "folder.suffix"].map(|name| format!("$FIM_ROOT_DIR/{name}"))
    );
}

#[test]
fn parents_come_before_children_and_sources_before_what_shows_them() {
    for (lines, order) in [
        (&["/a/b/c tmpfs", "/a/b bind $FIM_DATA/b", "/a tmpfs"][..], &["/a", "/a/b", "/a/b/c"][..]),
        // The source lies in the target of another.
        (&["/a bind $FIM_DATA/x/y", "$FIM_DATA/x tmpfs"], &["$FIM_DATA/x", "/a"]),
        // The target of another lies in the source.
        (&["/a bind $FIM_DATA/x", "$FIM_DATA/x/y tmpfs"], &["$FIM_DATA/x/y", "/a"]),
        (&["/z tmpfs", "/b tmpfs"], &["/b", "/z"]),
    ] {
        assert_eq!(planned(lines).unwrap(), order, "{lines:?}");
    }
}

#[test]
fn circles_are_found() {
    for (lines, circle) in [
        (
            &["$FIM_ROOT_DIR/a bind $FIM_ROOT_DIR/b", "$FIM_ROOT_DIR/b bind $FIM_ROOT_DIR/a"][..],
            "$FIM_ROOT_DIR/a -> $FIM_ROOT_DIR/b -> $FIM_ROOT_DIR/a",
        ),
        (&["$FIM_DATA/a bind $FIM_DATA/a"], "$FIM_DATA/a -> $FIM_DATA/a"),
        (&["$FIM_DATA/a/b bind $FIM_DATA/a"], "$FIM_DATA/a/b -> $FIM_DATA/a/b"),
        (&["$FIM_DATA/a bind $FIM_DATA/a/b"], "$FIM_DATA/a -> $FIM_DATA/a"),
        (
            &["$FIM_DATA/a/x bind $FIM_DATA/b", "$FIM_DATA/b/x bind $FIM_DATA/a"],
            "$FIM_DATA/a/x -> $FIM_DATA/b/x -> $FIM_DATA/a/x",
        ),
        (
            &["$FIM_DATA/a symlink $FIM_DATA/b/x", "$FIM_DATA/b symlink $FIM_DATA/a"],
            "$FIM_DATA/a -> $FIM_DATA/b -> $FIM_DATA/a",
        ),
        (&["$FIM_DATA/a symlink $FIM_DATA/a"], "$FIM_DATA/a -> $FIM_DATA/a"),
    ] {
        let problems = planned(lines).unwrap_err();
        assert!(problems[0].contains("in a circle") && problems[0].contains(circle), "{lines:?}: {problems:?}");
        assert_eq!(problems.len(), 1, "{problems:?}");
    }
    // The same name is no circle where the one is the guest's and the other the application's.
    planned(&["/usr/share/foo bind $FIM_ROOT_DIR/usr/share/foo"]).unwrap();
}

#[test]
fn one_target_in_two_spellings_is_one() {
    for lines in [
        ["/a tmpfs", "//a/./ tmpfs"],
        ["$SNAP/a tmpfs", "$FIM_ROOT_DIR/a bind $FIM_DATA/a"],
        ["${SNAP_DATA}/a tmpfs", "$FIM_DATA//a tmpfs"],
    ] {
        let problems = planned(&lines).unwrap_err();
        assert!(problems[0].starts_with("there is a layout for '"), "{problems:?}");
    }
}

#[test]
fn every_place_of_the_documentation_is_kept_with_a_reason() {
    for place in [
        "/boot",
        "/dev",
        "/home",
        "/lib/firmware",
        "/usr/lib/firmware",
        "/lib/modules",
        "/usr/lib/modules",
        "/lost+found",
        "/media",
        "/proc",
        "/run",
        "/var/run",
        "/sys",
        "/tmp",
        "/var/lib/snapd",
        "/var/snap",
        "/run/fim",
    ] {
        for target in [place.to_owned(), format!("{place}/x"), format!("/.{place}/./x")] {
            let problems = planned(&[&format!("{target} tmpfs")]).unwrap_err();
            assert!(
                problems.len() == 1 && problems[0].contains("no layout may be at or below /"),
                "{target}: {problems:?}"
            );
        }
        let beside = format!("{place}x tmpfs");
        if place != "/run/fim" {
            planned(&[&beside]).unwrap();
        }
    }
    for target in ["/", "$FIM_ROOT_DIR", "$FIM_DATA/", "$SNAP_COMMON"] {
        assert!(planned(&[&format!("{target} tmpfs")]).unwrap_err()[0].contains("no layout may be"), "{target}");
    }
}

#[test]
fn words_that_lead_elsewhere_are_refused() {
    for (line, text) in [
        ("/a bind /etc", "must begin with $FIM_ROOT_DIR"),
        ("/a symlink /etc/passwd", "must begin with $FIM_ROOT_DIR"),
        ("/a bind $HOME/x", "must begin with / or with"),
        ("/a bind $FIM_DATA/../../x", "'..'"),
        ("/a/../b tmpfs", "'..'"),
        ("/usr/lib/../../proc tmpfs", "'..'"),
        ("a tmpfs", "must begin with /"),
        ("/a bind", "must begin with / or with"),
    ] {
        let problems = planned(&[line]).unwrap_err();
        assert!(problems.len() == 1 && problems[0].contains(text), "{line}: {problems:?}");
    }
}

#[test]
fn nothing_lies_in_a_link_or_a_file() {
    for (lines, text) in [
        (["/a symlink $FIM_DATA/a", "/a/b tmpfs"], "'/a/b': it lies below layout '/a', which is a symbolic link"),
        (["/a bind-file $FIM_DATA/a", "/a/b tmpfs"], "'/a/b': it lies below layout '/a', which is a file"),
        (["$FIM_DATA/l symlink $FIM_COMMON", "/b bind $FIM_DATA/l/x"], "lies behind layout '$FIM_DATA/l'"),
    ] {
        let problems = planned(&lines).unwrap_err();
        assert!(problems.len() == 1 && problems[0].contains(text), "{lines:?}: {problems:?}");
    }
}

#[test]
fn what_is_shared_with_the_host_is_left_alone() {
    let shared = [Shared { path: "/mnt/host".into(), owner: "bind 0 shares".into() }];
    let problem = |line: &str| plan(&[layout(line)], &places(), &shared).map_err(|problems| problems.to_string());
    for line in ["/mnt/host tmpfs", "/mnt/host/x tmpfs"] {
        assert!(problem(line).unwrap_err().contains("lies in /mnt/host, which bind 0 shares"), "{line}");
    }
    assert!(problem("/mnt tmpfs").unwrap_err().contains("would hide /mnt/host, which bind 0 shares"));
    problem("/mnt/hostx tmpfs").unwrap();
}

#[test]
fn every_problem_is_told() {
    let problems = planned(&["/proc/x tmpfs", "/a bind /b", "/ok tmpfs", "/ok tmpfs"]).unwrap_err();
    assert_eq!(problems.len(), 3, "{problems:?}");
    let many: Vec<Layout> = (0..=MAX).map(|number| layout(&format!("/{number} tmpfs"))).collect();
    assert_eq!(plan(&many, &places(), &[]), Err(Problems(vec![Problem::Many(MAX + 1)])));
    assert!(plan(&many[1..], &places(), &[]).is_ok());
}
