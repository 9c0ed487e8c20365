//! Grants of devices, with the parts of /sys by which programs find them.

use std::path::Path;

use runtime::sandbox::plan::Access;

use super::host::Host;
use super::{Gifts, OWN};

/// Shows parts of the host's /sys, which tell of all its devices.
fn sys(gifts: &mut Gifts, names: &[&str]) {
    names.iter().for_each(|name| gifts.share(Path::new("/sys").join(name), Access::ReadOnly));
}

pub(super) fn udev(gifts: &mut Gifts) {
    gifts.share("/run/udev", Access::ReadOnly);
    sys(gifts, &["devices", "bus", "class", "dev"]);
    gifts.note("events of the kernel take the permission network");
}

pub(super) fn usb(gifts: &mut Gifts) {
    gifts.share("/dev/bus/usb", Access::Device);
    gifts.share("/dev/usb", Access::Device);
    sys(gifts, &["devices", "bus/usb", "dev"]);
}

pub(super) fn input(gifts: &mut Gifts) {
    gifts.share("/dev/input", Access::Device);
    gifts.share("/dev/uinput", Access::Device);
    sys(gifts, &["devices", "class/input"]);
}

pub(super) fn gpu(gifts: &mut Gifts, host: &Host) {
    for name in ["/dev/dri", "/dev/kfd"] {
        gifts.share(name, Access::Device);
    }
    for name in host.devices.iter().filter(|name| name.starts_with("nvidia")) {
        gifts.share(Path::new("/dev").join(name), Access::Device);
    }
    sys(gifts, &["devices", "dev", "class/drm", "bus/pci"]);
    // The user-space half of NVIDIA's driver has to be that of the host's kernel.
    let directory = Path::new(OWN).join("gpu");
    for (name, path) in &host.libraries {
        gifts.mount(path, directory.join(name), Access::ReadOnly);
    }
    if !host.libraries.is_empty() {
        gifts.set("LD_LIBRARY_PATH", directory.clone());
    }
    if let Some(path) = &host.vulkan {
        let target = directory.join("vulkan.json");
        gifts.mount(path, &target, Access::ReadOnly);
        gifts.set("VK_ADD_DRIVER_FILES", target);
    }
    if let Some(path) = &host.egl {
        gifts.mount(path, directory.join("egl/10_nvidia.json"), Access::ReadOnly);
        let directories = format!("{}:/usr/share/glvnd/egl_vendor.d", directory.join("egl").display());
        gifts.set("__EGL_VENDOR_LIBRARY_DIRS", directories);
    }
}

pub(super) fn dev(gifts: &mut Gifts) {
    gifts.share("/dev", Access::Device);
    gifts.note("terminals (/dev/pts) and, without the permission shm, /dev/shm stay the instance's own");
}

/// Drives: `sr` followed by a number, and the generic SCSI devices `sg`.
pub(super) fn optical(gifts: &mut Gifts, host: &Host) {
    let is_drive = |name: &&String| {
        let number = name.strip_prefix("sr").or_else(|| name.strip_prefix("sg"));
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let mut drives = host.devices.iter().filter(is_drive).peekable();
    if drives.peek().is_none() {
        gifts.note("the host has no optical drive");
    }
    drives.for_each(|name| gifts.share(Path::new("/dev").join(name), Access::Device));
}
