//! Programs of the host that commands of ours run.

use std::path::PathBuf;

/// The program of this name in the directories of PATH, also where administrators' programs lie. A relative directory
/// would be meant relative to one that the user may not be in, and is passed over.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let executable =
        |path: &PathBuf| nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok() && path.is_file();
    let directories = std::env::split_paths(&path).filter(|directory| directory.is_absolute()).chain(more);
    directories.map(|directory| directory.join(name)).find(executable)
}
