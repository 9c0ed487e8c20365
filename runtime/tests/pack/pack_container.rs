//! Container images that are made by hand, most of them hostile.

use crate::pack_tar::{add, add_with, file};
use crate::{chain, listing, options, run};
use runtime::image::Config;
use runtime::pack::{Choice, Error, Input, Intake, Platform, Source};
use serde_json::{Value, json};
use sha2::Digest;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use tar::{Builder, EntryType};
use tempfile::TempDir;

type Make = fn(&mut Builder<Vec<u8>>);

fn tar_of(make: impl FnOnce(&mut Builder<Vec<u8>>)) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    make(&mut tar);
    tar.into_inner().unwrap()
}

fn hex(bytes: &[u8]) -> String {
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(zstd_safe::compress_bound(bytes.len()));
    zstd_safe::compress(&mut out, bytes, 3).unwrap();
    out
}

/// An image layout that is being made.
struct Layout {
    work: TempDir,
    manifests: Vec<Value>,
}

impl Layout {
    fn new() -> Self {
        let work = tempfile::tempdir().unwrap();
        fs::create_dir_all(work.path().join("layout/blobs/sha256")).unwrap();
        fs::write(work.path().join("layout/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Self { work, manifests: Vec::new() }
    }

    fn path(&self) -> PathBuf {
        self.work.path().join("layout")
    }

    /// Where the blob of these bytes lies.
    fn blob_path(&self, bytes: &[u8]) -> PathBuf {
        self.path().join("blobs/sha256").join(hex(bytes))
    }

    /// Stores a blob and returns its descriptor.
    fn blob(&self, bytes: &[u8], media_type: &str) -> Value {
        fs::write(self.blob_path(bytes), bytes).unwrap();
        json!({ "mediaType": media_type, "digest": format!("sha256:{}", hex(bytes)), "size": bytes.len() })
    }

    fn json(&self, value: &Value, media_type: &str) -> Value {
        self.blob(value.to_string().as_bytes(), media_type)
    }

    /// Stores an image of these layers: bytes in the store, and the tar in them.
    fn image(&self, layers: &[(Vec<u8>, Vec<u8>)], run: Value, architecture: &str) -> Value {
        let ids: Vec<String> = layers.iter().map(|(_, tar)| format!("sha256:{}", hex(tar))).collect();
        let config = json!({
            "os": "linux", "architecture": architecture, "config": run,
            "rootfs": { "type": "layers", "diff_ids": ids },
        });
        let config = self.json(&config, "application/vnd.oci.image.config.v1+json");
        let layers: Vec<Value> =
            layers.iter().map(|(bytes, _)| self.blob(bytes, "application/vnd.oci.image.layer.v1.tar")).collect();
        let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers });
        self.json(&manifest, "application/vnd.oci.image.manifest.v1+json")
    }

    /// Adds an image of plain layers to the index.
    fn plain(mut self, layers: &[Vec<u8>]) -> Self {
        let layers: Vec<_> = layers.iter().map(|tar| (tar.clone(), tar.clone())).collect();
        self.manifests.push(self.image(&layers, json!({}), &Platform::own().architecture));
        self
    }

    fn write_index(&self) {
        let index = json!({ "schemaVersion": 2, "manifests": self.manifests });
        fs::write(self.path().join("index.json"), index.to_string()).unwrap();
    }

    fn open(&self, choice: Choice, limit: Option<u64>) -> Result<Input, Error> {
        self.write_index();
        open(&self.path(), choice, limit)
    }

    /// The listing of the squashfs that the only image becomes, or the error.
    fn packed(&self) -> Result<String, String> {
        let input = self.open(Choice::default(), None).map_err(|error| chain(&error))?;
        packed(input, self.work.path())
    }

    #[track_caller]
    fn fails(&self, words: &[&str]) {
        let error = self.packed().unwrap_err();
        for word in words {
            assert!(error.contains(word), "{word:?} is not in: {error}");
        }
    }
}

fn open(path: &Path, choice: Choice, limit: Option<u64>) -> Result<Input, Error> {
    let intake = Intake { scratch: tempfile::tempfile().unwrap(), limit, choice };
    Source::detect(path)?.open(intake, &mut ())
}

fn packed(mut input: Input, work: &Path) -> Result<String, String> {
    assert_eq!(input.layers.len(), 1);
    let image = work.join("image");
    let out = File::options().read(true).write(true).create(true).truncate(true).open(&image).unwrap();
    input.layers.remove(0).pack(&out, 0, &options(2), &mut ()).map_err(|error| chain(&error))?;
    Ok(listing(&image))
}

/// The names in a listing, sorted, without the root.
fn names(list: &str) -> Vec<&str> {
    let mut names: Vec<&str> =
        list.lines().filter_map(|line| line.split_once(" root/").map(|(_, name)| name)).collect();
    names.sort_unstable();
    names
}

fn directory(tar: &mut Builder<Vec<u8>>, name: &str) {
    add(tar, EntryType::Directory, name, "", b"");
}

#[test]
fn container_layers_are_merged_in_order_with_whiteouts() {
    let lower = tar_of(|tar| {
        for name in ["etc/kept", "etc/replaced", "etc/gone", "opaque/old", "opaque/sub/old", "whole/a/b"] {
            file(tar, name, name.as_bytes());
        }
        directory(tar, "swap");
        file(tar, "swap/x", b"");
        file(tar, "becomes-dir", b"");
        add(tar, EntryType::Link, "hard", "etc/gone", b"");
        add(tar, EntryType::Symlink, "lib", "usr/lib", b"");
        file(tar, "usr/lib/old", b"");
        add(tar, EntryType::Symlink, "abs", "/usr/lib", b"");
    });
    let upper = tar_of(|tar| {
        // A whiteout concerns lower layers only, even behind the new file of that name.
        file(tar, "etc/gone-and-new", b"new");
        file(tar, "etc/.wh.gone-and-new", b"");
        file(tar, "etc/.wh.gone", b"");
        file(tar, "etc/.wh.never-was", b"");
        file(tar, "no/such/.wh.place", b"");
        file(tar, "etc/replaced", b"longer than before");
        file(tar, "opaque/new", b"");
        file(tar, "opaque/.wh..wh..opq", b"");
        file(tar, ".wh.whole", b"");
        file(tar, "swap", b"a file now");
        directory(tar, "becomes-dir");
        file(tar, "becomes-dir/x", b"");
        file(tar, ".wh..wh.plnk/12.34", b"");
        // Through links that lower layers made, as every container engine does.
        file(tar, "lib/new", b"");
        file(tar, "abs/newer", b"");
    });
    let layout = Layout::new().plain(&[lower.clone(), upper.clone()]);
    let list = layout.packed().unwrap();
    let expected = [
        "abs -> /usr/lib",
        "becomes-dir",
        "becomes-dir/x",
        "etc",
        "etc/gone-and-new",
        "etc/kept",
        "etc/replaced",
        "hard",
        "lib -> usr/lib",
        "opaque",
        "opaque/new",
        "swap",
        "usr",
        "usr/lib",
        "usr/lib/new",
        "usr/lib/newer",
        "usr/lib/old",
    ];
    assert_eq!(names(&list), expected, "{list}");
    assert!(list.contains(" 18 ") && list.lines().any(|line| line.contains(" 8 ") && line.ends_with("root/hard")));

    // In the other order, nothing of it is lost.
    let list = Layout::new().plain(&[upper, lower]).packed().unwrap();
    assert!(names(&list).contains(&"etc/gone") && names(&list).contains(&"swap/x"), "{list}");
}

#[test]
fn every_way_to_store_an_image_gives_the_same_bytes() {
    let layers = [tar_of(|tar| file(tar, "a", &[b'a'; 5000])), tar_of(|tar| file(tar, "b", &[b'b'; 5000]))];
    let mut expected: Option<Vec<u8>> = None;
    for compress in [<[u8]>::to_vec as fn(&[u8]) -> Vec<u8>, gzip, zstd] {
        let mut layout = Layout::new();
        let stored: Vec<_> = layers.iter().map(|tar| (compress(tar), tar.clone())).collect();
        layout.manifests.push(layout.image(&stored, json!({ "Cmd": ["x"] }), &Platform::own().architecture));
        layout.write_index();
        // What docker writes, with the layers behind links as old versions do.
        let saved = layout.work.path().join("saved");
        fs::create_dir_all(saved.join("one")).unwrap();
        let ids: Vec<String> = layers.iter().map(|tar| format!("sha256:{}", hex(tar))).collect();
        let config = json!({ "config": { "Cmd": ["x"] }, "rootfs": { "diff_ids": ids } }).to_string();
        fs::write(saved.join(format!("{}.json", hex(config.as_bytes()))), &config).unwrap();
        fs::write(saved.join("0.tar"), &stored[0].0).unwrap();
        symlink("../0.tar", saved.join("one/layer.tar")).unwrap();
        fs::write(saved.join("1.tar"), &stored[1].0).unwrap();
        let manifest = json!([{
            "Config": format!("{}.json", hex(config.as_bytes())), "RepoTags": null,
            "Layers": ["one/layer.tar", "1.tar"],
        }]);
        fs::write(saved.join("manifest.json"), manifest.to_string()).unwrap();
        let mut sources = vec![layout.path()];
        for (name, tree) in [("layout.tar", layout.path()), ("saved.tar", saved)] {
            let tar = layout.work.path().join(name);
            run(Command::new("tar").arg("-C").arg(tree).arg("-cf").arg(&tar).arg("."), "tar");
            let packed = layout.work.path().join(format!("{name}.gz"));
            fs::write(&packed, gzip(&fs::read(&tar).unwrap())).unwrap();
            sources.extend([tar, packed]);
        }
        for source in sources {
            let input = open(&source, Choice::default(), None).unwrap();
            assert_eq!(input.config.boot.as_ref().unwrap().program, b"x", "{}", source.display());
            packed(input, layout.work.path()).unwrap();
            let bytes = fs::read(layout.work.path().join("image")).unwrap();
            assert!(*expected.get_or_insert_with(|| bytes.clone()) == bytes, "{}", source.display());
        }
    }
}

#[test]
fn hostile_layers_are_contained_or_refused_by_name() {
    let cases: [(Make, &[&str]); 9] = [
        (|tar| file(tar, "../outside", b""), &["../outside", "leads outside"]),
        (|tar| file(tar, "a/../../b", b""), &["a/../../b", "leads outside"]),
        (|tar| file(tar, "a/.wh...", b""), &[".wh...", "whiteout of no name"]),
        (|tar| file(tar, ".wh.etc/passwd", b""), &[".wh.etc/passwd", "below a whiteout"]),
        (|tar| add(tar, EntryType::Link, "hard", "../../etc/shadow", b""), &["hard", "outside the archive"]),
        (|tar| add(tar, EntryType::Link, "hard", "missing", b""), &["hard", "which no earlier entry has"]),
        (
            |tar| {
                add(tar, EntryType::Symlink, "way", "/nowhere", b"");
                file(tar, "way/file", b"");
            },
            &["way/file", "a symbolic link"],
        ),
        (
            |tar| {
                add(tar, EntryType::Symlink, "a", "b", b"");
                add(tar, EntryType::Symlink, "b", "a", b"");
                file(tar, "a/file", b"");
            },
            &["a/file", "a symbolic link"],
        ),
        (|tar| add(tar, EntryType::new(b'M'), "part", "", b""), &["part", "type 'M'"]),
    ];
    for (make, words) in cases {
        Layout::new().plain(&[tar_of(make)]).fails(words);
    }
    // Names from the root, links that leave it, and devices stay what they are inside.
    let list = Layout::new()
        .plain(&[tar_of(|tar| {
            file(tar, "/etc/passwd", b"inside");
            add(tar, EntryType::Symlink, "up", "../../../etc", b"");
            file(tar, "up/shadow", b"inside");
            file(tar, "twice", b"1");
            file(tar, "twice", b"22");
            add_with(tar, EntryType::Block, "dev/sda", "", b"", |header| {
                header.set_device_major(8).unwrap();
                header.set_device_minor(0).unwrap();
            });
        })])
        .packed()
        .unwrap();
    let expected = ["dev", "dev/sda", "etc", "etc/passwd", "etc/shadow", "twice", "up -> ../../../etc"];
    assert_eq!(names(&list), expected, "{list}");
}

#[test]
fn damage_in_any_blob_is_named() {
    let one = tar_of(|tar| file(tar, "one", b"1"));
    let two = tar_of(|tar| file(tar, "two", b"2"));
    let layout = || Layout::new().plain(&[one.clone(), two.clone()]);
    layout().packed().unwrap();

    // The same number of bytes, and fewer.
    let changed = layout();
    let mut bytes = two.clone();
    bytes[600] ^= 1;
    fs::write(changed.blob_path(&two), &bytes).unwrap();
    changed.fails(&[&hex(&two), "do not have the digest", "damaged or replaced"]);
    fs::write(changed.blob_path(&two), &two[..1000]).unwrap();
    changed.fails(&[&hex(&two), "1000 bytes where", "announced"]);
    fs::remove_file(changed.blob_path(&two)).unwrap();
    changed.fails(&[&hex(&two), "missing"]);
    // Something that never answers, and something outside.
    nix::unistd::mkfifo(&changed.blob_path(&two), nix::sys::stat::Mode::S_IRUSR).unwrap();
    changed.fails(&[&hex(&two), "no regular file"]);
    fs::remove_file(changed.blob_path(&two)).unwrap();
    symlink("/etc/passwd", changed.blob_path(&two)).unwrap();
    changed.fails(&[&hex(&two), "leads out of the directory"]);

    // Layers that are sound but not in the order of the configuration.
    let own = Platform::own().architecture;
    let mut swapped = Layout::new();
    swapped.manifests.push(swapped.image(&[(one.clone(), two.clone()), (two.clone(), one.clone())], json!({}), &own));
    swapped.fails(&[&hex(&one), "do not have the digest"]);
    let mut bad = Layout::new();
    bad.manifests.push(bad.image(&[(gzip(&one), two.clone())], json!({}), &own));
    bad.fails(&[&hex(&gzip(&one)), "do not have the digest"]);
    let mut cut = Layout::new();
    let half = gzip(&one)[..60].to_vec();
    cut.manifests.push(cut.image(&[(half.clone(), one.clone())], json!({}), &own));
    cut.fails(&[&hex(&half), "cannot read the tar"]);
}

#[test]
fn documents_that_lie_are_refused() {
    let layer = tar_of(|tar| file(tar, "file", b""));
    let own = Platform::own().architecture;
    let with_manifest = |change: &dyn Fn(&mut Value)| {
        let mut layout = Layout::new();
        let image = layout.image(&[(layer.clone(), layer.clone())], json!({}), &own);
        let digest = image["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap().to_owned();
        let path = layout.path().join("blobs/sha256").join(digest);
        let mut manifest: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        change(&mut manifest);
        layout.manifests.push(layout.json(&manifest, "application/vnd.oci.image.manifest.v1+json"));
        layout
    };
    with_manifest(&|_| ()).packed().unwrap();
    let set = |pointer: &'static str, value: Value| {
        with_manifest(&move |manifest| *manifest.pointer_mut(pointer).unwrap() = value.clone())
    };
    set("/layers", json!([])).fails(&["0 layers and its configuration 1"]);
    set("/layers/0/digest", json!("sha256:../../../etc/passwd")).fails(&["no digest that can be checked"]);
    set("/layers/0/digest", json!("md5:d41d8cd98f00b204e9800998ecf8427e")).fails(&["no digest that can be checked"]);
    set("/layers/0/size", json!(u64::MAX)).fails(&["are announced"]);
    set("/layers/0/mediaType", json!("application/vnd.oci.image.layer.v1.tar+encrypted")).fails(&["encrypted"]);
    set("/config/mediaType", json!("application/vnd.cncf.helm.config.v1+json")).fails(&["holds no image"]);
    set("/layers/0", json!(7)).fails(&["is not as it should be"]);

    let mut layout = Layout::new().plain(std::slice::from_ref(&layer));
    layout.manifests[0]["size"] = json!(1);
    layout.fails(&["are announced"]);
    let layout = Layout::new().plain(&[layer]);
    layout.write_index();
    fs::write(layout.path().join("index.json"), "{").unwrap();
    let error = chain(&open(&layout.path(), Choice::default(), None).err().unwrap());
    assert!(error.contains("index.json") && error.contains("not as it should be"), "{error}");
    // Indices of indices of indices: without an end, each would be read again and again.
    let mut deep = Layout::new();
    let mut below = deep.json(&json!({ "manifests": [] }), "application/vnd.oci.image.index.v1+json");
    for _ in 0..40 {
        let index = json!({ "manifests": [below, below, below] });
        below = deep.json(&index, "application/vnd.oci.image.index.v1+json");
    }
    deep.manifests.push(below);
    deep.fails(&["leads to more than"]);
}

#[test]
fn one_of_several_images_is_chosen_by_name_and_platform() {
    let mut layout = Layout::new();
    let own = Platform::own();
    let layer = |name: &str| tar_of(|tar| file(tar, name, b""));
    for (name, architecture) in
        [("app:latest", own.architecture.as_str()), ("reg.io/x/app:2", &own.architecture), ("app:latest", "s390x")]
    {
        let tar = layer(&format!("{}-{architecture}", name.replace(['/', ':'], "-")));
        let mut image = layout.image(&[(tar.clone(), tar)], json!({}), architecture);
        image["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
        layout.manifests.push(image);
    }
    let chosen = |name: Option<&str>, platform: Option<&str>| -> Result<String, String> {
        let platform = platform.map_or_else(Platform::own, |text| Platform::parse(text).unwrap());
        let choice = Choice { name: name.map(str::to_owned), platform };
        let input = layout.open(choice, None).map_err(|error| chain(&error))?;
        Ok(names(&packed(input, layout.work.path())?).join(" "))
    };
    let arch = &own.architecture;
    assert_eq!(chosen(Some("app"), None), Ok(format!("app-latest-{arch}")));
    assert_eq!(chosen(Some("x/app:2"), None), Ok(format!("reg.io-x-app-2-{arch}")));
    assert_eq!(chosen(Some("2"), None), Ok(format!("reg.io-x-app-2-{arch}")));
    assert_eq!(chosen(None, Some("linux/s390x")), Ok("app-latest-s390x".to_owned()));
    let error = chosen(None, None).unwrap_err();
    assert!(error.contains("several images") && error.contains("reg.io/x/app:2") && error.contains("--tag"), "{error}");
    for (name, platform) in [(Some("pp"), None), (None, Some("windows/amd64"))] {
        let error = chosen(name, platform).unwrap_err();
        assert!(error.contains("holds no image") && error.contains("app:latest"), "{error}");
    }
}

#[test]
fn what_a_source_unpacks_to_is_bounded() {
    // 2 GiB of zeros in few bytes, and as a hole in none.
    let mut zeros = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let mut header = tar::Header::new_gnu();
    header.set_path("zeros").unwrap();
    header.set_size(2 << 30);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    zeros.write_all(header.as_bytes()).unwrap();
    for _ in 0..2 << 10 {
        zeros.write_all(&vec![0; 1 << 20]).unwrap();
    }
    let bomb = zeros.finish().unwrap();
    let hole = tar_of(|tar| {
        add_with(tar, EntryType::GNUSparse, "hole", "", b"", |header| {
            header.as_gnu_mut().unwrap().set_real_size(1 << 50);
        });
    });
    let work = tempfile::tempdir().unwrap();
    for (name, bytes, entry) in [("bomb", &bomb, "zeros"), ("hole", &hole, "hole")] {
        let path = work.path().join(name);
        fs::write(&path, bytes).unwrap();
        for error in [
            open(&path, Choice::default(), None).err().unwrap(),
            open(&path, Choice::default(), Some(1 << 20)).err().unwrap(),
        ] {
            let Error::TooLarge { entry: found, .. } = &error else { panic!("{error}") };
            assert_eq!(found, entry, "{error}");
            assert!(chain(&error).contains("--max-unpacked"), "{error}");
        }
    }
    // The same as layers; and what fits into the limit is packed.
    let mut layout = Layout::new().plain(&[hole]);
    layout.fails(&["hole", "--max-unpacked"]);
    layout.manifests = vec![layout.image(&[(bomb, Vec::new())], json!({}), &Platform::own().architecture)];
    layout.fails(&["zeros", "--max-unpacked"]);
    let path = work.path().join("small");
    fs::write(&path, gzip(&tar_of(|tar| file(tar, "small", &[0; 4096])))).unwrap();
    let size = tar_of(|tar| file(tar, "small", &[0; 4096])).len() as u64;
    open(&path, Choice::default(), Some(size)).unwrap();
    assert!(matches!(open(&path, Choice::default(), Some(size - 1)), Err(Error::TooLarge { .. })));
}

#[test]
fn a_root_file_system_may_look_a_little_like_an_image() {
    let work = tempfile::tempdir().unwrap();
    let path = work.path().join("rootfs.tar");
    fs::write(&path, tar_of(|tar| file(tar, "manifest.json", b"{\"name\":\"web app\"}"))).unwrap();
    let input = open(&path, Choice::default(), None).unwrap();
    assert_eq!(input.config, Config::default());
    assert_eq!(names(&packed(input, work.path()).unwrap()), ["manifest.json"]);
}
