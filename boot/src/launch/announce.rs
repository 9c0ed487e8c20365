//! Telling the desktop of a start (`fim-notify on`): with the host's notify-send(1), for applications that have set up
//! desktop integration.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::unistd::Pid;
use runtime::image::Config;

/// Name of the application as desktops know it, when starts are to be told.
fn name(config: &Config) -> Option<String> {
    let desktop = config.desktop.as_ref().filter(|_| config.notify)?;
    let desktop: serde_json::Value = serde_json::from_str(desktop).ok()?;
    desktop["name"].as_str().filter(|name| !name.is_empty()).map(str::to_owned)
}

/// Starts notify-send and does not wait for it; returns its process, a child of this one.
pub(super) fn announce(config: &Config) -> Option<Pid> {
    let name = name(config)?;
    // A process group of its own: keys of the terminal are the command's.
    let spawned = Command::new("notify-send")
        .arg("-i")
        .arg(format!("flatimage_{name}"))
        .args(["--", &format!("Started '{name}' FlatImage")])
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    match spawned {
        Ok(child) => i32::try_from(child.id()).ok().map(Pid::from_raw),
        Err(error) => {
            log::debug!("cannot tell the desktop of the start: notify-send: {error}");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_told_by_applications_of_the_desktop_that_ask_for_it() {
        let told = |notify: bool, desktop: Option<&str>| {
            name(&Config { notify, desktop: desktop.map(str::to_owned), ..Config::default() })
        };
        assert_eq!(told(true, Some("{\"name\": \"App\"}")).as_deref(), Some("App"));
        assert_eq!(told(false, Some("{\"name\": \"App\"}")), None);
        for desktop in [None, Some(""), Some("{}"), Some("{\"name\": 1}"), Some("{\"name\": \"\"}")] {
            assert_eq!(told(true, desktop), None, "{desktop:?}");
        }
    }
}
