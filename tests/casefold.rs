//! `fim-casefold`: names are found in any case, and keep the one they were made with.

mod harness;

use std::fs;

use harness::World;

/// A world whose image asks for it, with a prefix as Wine makes one.
fn folding() -> World {
    let world = World::with_tree(
        |tree| {
            for directory in ["c/windows/system32", "c/Program Files/Some App", "c/users/ann"] {
                fs::create_dir_all(tree.join(directory)).unwrap();
            }
            for (name, content) in [
                ("c/windows/system32/KERNEL32.dll", "kernel\n"),
                ("c/windows/system32/User32.DLL", "user\n"),
                ("c/windows/win.ini", "ini\n"),
                ("c/Program Files/Some App/Ünïcode Straße.txt", "text\n"),
                ("c/both", "lower case\n"),
                ("c/BOTH", "upper case\n"),
            ] {
                fs::write(tree.join(name), content).unwrap();
            }
        },
        &[],
    );
    world.app(&["fim-overlay", "set", "unionfs"]).run().succeeds().quietly();
    world.app(&["fim-casefold", "on"]).run().succeeds().quietly();
    world
}

#[test]
fn names_are_found_in_any_case_and_keep_their_own() {
    let world = folding();
    let script = "cd /C/WINDOWS && cat SYSTEM32/kernel32.DLL system32/USER32.dll Win.INI && ls /c/Windows/System32 \
                  && cat '/c/PROGRAM FILES/some app/üNÏCODE sTRAßE.TXT' && echo new > /C/Users/ANN/Made.Txt \
                  && cat /c/users/Ann/MADE.TXT && ls /c/users/ann";
    let expected = "kernel\nuser\nini\nKERNEL32.dll\nUser32.DLL\ntext\nnew\nMade.Txt";
    assert_eq!(world.sh(script).prints(), expected);
    world.wait_for_end();
    // On the disk, too.
    assert!(world.upper("c/users/ann/Made.Txt").is_file());
}

#[test]
fn an_exact_match_comes_first() {
    let world = folding();
    assert_eq!(world.sh("cat /c/both /c/BOTH").prints(), "lower case\nupper case");
    // And any other finds one of the two, always the same.
    assert_eq!(world.sh("cat /c/Both /c/bOTH; rm /c/BOTH; cat /c/Both").prints(), "upper case\nupper case\nlower case");
}

#[test]
fn what_exists_in_another_case_is_opened_or_collides() {
    let world = folding();
    let script = "cd /c/windows; echo over > WIN.INI; cat win.ini; ls | grep -ci win.ini; \
                  mkdir SYSTEM32 2>/dev/null || echo collides; (set -C; : > Win.Ini) 2>/dev/null || echo exists; \
                  ln win.ini WIN.ini 2>/dev/null || echo links; ln -s x WIN.INI 2>/dev/null || echo symlinks";
    assert_eq!(world.sh(script).prints(), "over\n1\ncollides\nexists\nlinks\nsymlinks");
}

#[test]
fn what_was_missing_is_found_once_it_is_made_and_missed_once_it_is_gone() {
    let world = folding();
    // Each name is looked up, in several cases, before and after every change: what was remembered must be right.
    let script = r#"cd /c
        look() { for name in Thing THING thing; do [ -e "$name" ] && printf + || printf -; done; echo; }
        look; echo x > THING; look; mv thing Other; look; mv OTHER tHING; look; rm Thing; look
        mkdir thing; look; echo y > Thing/inner; cat THING/INNER; mv thing/Inner thing/two; cat Thing/TWO
        [ -e THING/inner ] || echo gone; rm -r THING; look"#;
    assert_eq!(world.sh(script).prints(), "---\n+++\n---\n+++\n---\n+++\ny\ny\ngone\n---");
}

#[test]
fn what_is_replaced_has_another_case() {
    let world = folding();
    let script = "cd /c/windows; echo draft > tmp; mv tmp WIN.INI; ls; cat win.ini; cd system32; rm USER32.DLL; ls; \
                  mv kernel32.dll /c/KERNEL.old; ls; cat /c/kernel.OLD";
    let shown = "WIN.INI\nsystem32\ndraft\nKERNEL32.dll\nkernel";
    assert_eq!(world.sh(script).prints(), shown);
    world.wait_for_end();
    // With regard to case nothing has come back.
    let exact = world.sh("ls /c/windows /c/windows/system32").env("FIM_OVERLAY", "bwrap");
    world.app(&["fim-casefold", "off"]).run().succeeds().quietly();
    assert_eq!(exact.prints(), "/c/windows:\nWIN.INI\nsystem32\n\n/c/windows/system32:");
}

#[test]
fn a_hundred_thousand_names_in_one_directory() {
    let world = World::with_tree(
        |tree| {
            fs::create_dir(tree.join("large")).unwrap();
            for number in 0..100_000 {
                fs::write(tree.join(format!("large/File{number:06}.Dat")), "").unwrap();
            }
        },
        &[],
    );
    // Lookups that each read the directory would take hours.
    let script = "cd /LARGE; i=0; found=0; while [ $i -lt 2000 ]; do [ -e fILE09$i.dAT ] && found=$((found+1)); \
                  [ -e missing$i ] && echo wrong; i=$((i+1)); done; echo $found found; \
                  : > FILE099999.DAT; : > New.File; [ -e NEW.file ] && echo new; set -- *; echo $#; echo end";
    let mut running = world.sh(script).env("FIM_CASEFOLD", "1").spawn();
    for told in ["1000 found\n", "new\n", "100001\nend\n"] {
        running.expect(told);
    }
    running.wait().succeeds().quietly();
}

#[test]
fn casefold_takes_the_place_of_the_kernels_overlay() {
    let world = World::new();
    const TEXT: &str = "casefold cannot be used with bwrap overlayfs, falling back to unionfs";
    world.app(&["fim-casefold", "on"]).run().succeeds().with_stdout("").complains_of(&["fim: ", TEXT]);
    let show = || world.app(&["fim-overlay", "show"]);
    show().run().succeeds().with_stdout("UNIONFS\n").complains_of(&["fim: ", TEXT]);
    show().env("FIM_OVERLAY", "overlayfs").run().succeeds().with_stdout("OVERLAYFS\n").quietly();
    // A run says nothing of it.
    world.exec(&["cat", "/ETC/Release"]).run().succeeds().with_stdout("small\n").quietly();
    world.wait_for_end();
    // The variable can turn it on, not off.
    assert_eq!(world.exec(&["cat", "/ETC/Release"]).env("FIM_CASEFOLD", "0").prints(), "small");
    world.wait_for_end();
    world.app(&["fim-casefold", "off"]).run().succeeds().quietly();
    world.exec(&["cat", "/ETC/Release"]).run().exits(1);
    world.wait_for_end();
    assert_eq!(world.exec(&["cat", "/ETC/Release"]).env("FIM_CASEFOLD", "1").prints(), "small");
    assert_eq!(show().prints(), "BWRAP");
}
