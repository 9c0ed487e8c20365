//! What of the host the granted permissions need to know. Only what is granted is looked at.

use std::fs;
use std::path::{Path, PathBuf};

use runtime::image::{Permission, PermissionSet};

use super::super::bus;
use super::super::facts::Caller;
use super::super::ld_cache;

/// Facts about the host; everything is empty where no granted permission asks for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    /// Names in /dev.
    pub devices: Vec<String>,
    /// Name and path of each library of NVIDIA's driver.
    pub libraries: Vec<(String, PathBuf)>,
    /// Description of NVIDIA's driver for Vulkan.
    pub vulkan: Option<PathBuf>,
    /// Description of NVIDIA's driver for EGL.
    pub egl: Option<PathBuf>,
    /// The X authority file.
    pub authority: Option<PathBuf>,
    /// Whether the X display listens on an abstract socket only.
    pub abstract_display_only: bool,
    /// The filter of D-Bus messages, xdg-dbus-proxy(1).
    pub proxy: Option<PathBuf>,
    /// All CA certificates in one file.
    pub certificates: Option<PathBuf>,
    /// Directories of fonts.
    pub fonts: Vec<PathBuf>,
    /// The locale archive, and locales in directories of their own.
    pub locales: Vec<PathBuf>,
}

/// Where glibc keeps locale data.
pub(super) const LOCALES: &str = "/usr/lib/locale";

/// CA certificates as Debian, Fedora, openSUSE, Alpine and others keep them.
const CERTIFICATES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Beginnings of the names of libraries that come with NVIDIA's driver.
const NVIDIA: [&str; 10] = [
    "libnvidia-",
    "libcuda.",
    "libcudadebugger.",
    "libnvcuvid.",
    "libnvoptix.",
    "libGLX_nvidia.",
    "libEGL_nvidia.",
    "libGLESv1_CM_nvidia.",
    "libGLESv2_nvidia.",
    "libvdpau_nvidia.",
];

/// Looks at the host for what these permissions give.
#[must_use]
pub fn look(permissions: PermissionSet, caller: &Caller) -> Host {
    let mut host = Host::default();
    let asked = |permission| permissions.contains(permission);
    if asked(Permission::Gpu) || asked(Permission::Optical) {
        host.devices = names("/dev");
    }
    if asked(Permission::Gpu) {
        let cache = fs::read("/etc/ld.so.cache").unwrap_or_default();
        let ours = |(name, _): &(String, PathBuf)| NVIDIA.iter().any(|beginning| name.starts_with(beginning));
        host.libraries = ld_cache::libraries(&cache).into_iter().filter(ours).collect();
        let vulkan = ["/usr/share/vulkan/icd.d/nvidia_icd.json", "/etc/vulkan/icd.d/nvidia_icd.json"];
        host.vulkan = first(&vulkan);
        host.egl = first(&["/usr/share/glvnd/egl_vendor.d/10_nvidia.json"]);
    }
    if asked(Permission::Xorg) {
        let named = caller.variable("XAUTHORITY").map(PathBuf::from);
        let usual = || caller.variable("HOME").map(|home| Path::new(home).join(".Xauthority"));
        host.authority = named.or_else(usual).filter(|path| path.is_absolute() && path.is_file());
        host.abstract_display_only =
            caller.variable("DISPLAY").and_then(std::ffi::OsStr::to_str).is_some_and(|display| {
                let number = display.rsplit(':').next().and_then(|rest| rest.split('.').next()).unwrap_or_default();
                let socket = format!("/tmp/.X11-unix/X{number}");
                let sockets = fs::read_to_string("/proc/net/unix").unwrap_or_default();
                !Path::new(&socket).exists() && sockets.lines().any(|line| line.ends_with(&format!("@{socket}")))
            });
    }
    if asked(Permission::DbusUser) || asked(Permission::DbusSystem) {
        let path = caller.variable("PATH").map(std::env::split_paths).into_iter().flatten();
        let mut programs =
            path.filter(|directory| directory.is_absolute()).map(|directory| directory.join(bus::PROGRAM));
        host.proxy = programs.find(|program| program.is_file());
    }
    if asked(Permission::Certs) {
        host.certificates = first(&CERTIFICATES);
    }
    if asked(Permission::Fonts) {
        let home = caller.variable("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
        let of_home = home.iter().flat_map(|home| [home.join(".local/share/fonts"), home.join(".fonts")]);
        let of_host = ["/usr/share/fonts", "/usr/local/share/fonts"].map(PathBuf::from);
        host.fonts = of_host.into_iter().chain(of_home).filter(|path| path.is_dir()).collect();
    }
    if asked(Permission::Locale) {
        host.locales = names(LOCALES).iter().map(|name| Path::new(LOCALES).join(name)).collect();
    }
    host
}

/// Names in a directory, sorted; none when it cannot be read.
fn names(directory: &str) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names
}

fn first(paths: &[&str]) -> Option<PathBuf> {
    paths.iter().map(PathBuf::from).find(|path| path.is_file())
}
