//! The pages of `docs/commands`, made from the definitions that help is made from. The test keeps them equal;
//! `BLESS=1 cargo test -p boot pages` writes them anew.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use clap::CommandFactory;

use super::help;
use super::spec::{COMMANDS, Spec};
use super::tool::Tool;

/// Page of a command of an image.
fn image_page(spec: &Spec) -> String {
    let help = help::topic(spec);
    format!(
        "# fim-{}\n\n{}.\n\n```text\n$ ./app.flatimage fim-{} --help\n{help}```\n",
        spec.name, spec.summary, spec.name
    )
}

/// Page of a command of the builder.
fn tool_page(command: &mut clap::Command) -> String {
    let name = command.get_name().to_owned();
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let help = command.clone().bin_name(format!("fim {name}")).term_width(100).render_long_help().to_string();
    let help: Vec<&str> = help.lines().map(str::trim_end).collect();
    format!("# fim {name}\n\n{about}.\n\n```text\n$ fim {name} --help\n{}\n```\n", help.join("\n").trim_end())
}

/// Every page by its file name, and the index that lists them.
fn pages() -> BTreeMap<String, String> {
    let mut pages = BTreeMap::new();
    let mut index = String::from("# Commands\n\nMade from what `--help` prints.\n\nOf the builder:\n\n");
    for command in Tool::command().get_subcommands_mut() {
        let name = command.get_name().to_owned();
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = writeln!(index, "- [`fim {name}`]({name}.md): {about}");
        pages.insert(format!("{name}.md"), tool_page(command));
    }
    index.push_str("\nOf an image; without one of them, the boot command runs:\n\n");
    for spec in COMMANDS {
        let _ = writeln!(index, "- [`fim-{0}`](fim-{0}.md): {1}", spec.name, spec.summary);
        pages.insert(format!("fim-{}.md", spec.name), image_page(spec));
    }
    pages.insert("README.md".to_owned(), index);
    pages
}

#[test]
fn command_pages_are_what_help_prints() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/commands");
    let pages = pages();
    if std::env::var_os("BLESS").is_some() {
        for (name, page) in &pages {
            fs::write(directory.join(name), page).unwrap();
        }
    }
    for (name, page) in &pages {
        let stored = fs::read_to_string(directory.join(name)).unwrap_or_default();
        assert_eq!(&stored, page, "docs/commands/{name} is not current; run: BLESS=1 cargo test -p boot pages");
    }
    for entry in fs::read_dir(&directory).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(pages.contains_key(&name), "docs/commands/{name} is of no command; remove it");
    }
}
