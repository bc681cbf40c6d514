//! Compiled modules kept between runs, so that a start or a swap back costs no compilation.
//!
//! A compiled file is machine code with all of the host's rights, and nothing in it can be checked. So it is taken from a
//! folder alone that belongs to us and that nobody else may write to: what lies there was written by this user's `lode`.
//! Where there is no such folder, modules are compiled at each start. wasmtime names the files by the module's bytes, its
//! own version and every setting that decides about the code, and clears away what is not used.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use wasmtime::{Cache, CacheConfig};

/// Bits of a folder's mode by which others may write to it.
const OTHERS_WRITE: u32 = 0o022;

/// The cache of this user, `None` where there can be none.
pub(super) fn open() -> Option<Cache> {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let base = base.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    open_at(&base.join("lodestream/modules"))
}

fn open_at(folder: &Path) -> Option<Cache> {
    if let Err(error) = make_own(folder) {
        tracing::info!(folder = %folder.display(), %error, "compiled modules are not kept: compiling them at each start");
        return None;
    }
    let mut config = CacheConfig::new();
    config.with_directory(folder);
    Cache::new(config)
        .inspect_err(|error| tracing::info!(folder = %folder.display(), error = format!("{error:#}"), "compiled modules are not kept"))
        .ok()
}

/// Makes the folder, and refuses one that is not ours alone.
fn make_own(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let found = fs::symlink_metadata(folder)?;
    if !found.is_dir() {
        return Err(io::Error::other("it is not a folder"));
    }
    // Who we are is whose a new file of ours is.
    let probe = folder.join(format!(".{}", uuid::Uuid::new_v4().simple()));
    let ours = File::create_new(&probe)?.metadata()?.uid();
    fs::remove_file(&probe)?;
    if found.uid() != ours {
        return Err(io::Error::other("it belongs to another user"));
    }
    if found.mode() & OTHERS_WRITE != 0 {
        return Err(io::Error::other("others may write to it"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_folder_that_others_may_write_to_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let ours = folder.path().join("lodestream/modules");
        assert!(open_at(&ours).is_some());
        assert_eq!(fs::metadata(&ours).unwrap().mode() & 0o777, 0o700);
        for mode in [0o720, 0o702, 0o777] {
            fs::set_permissions(&ours, fs::Permissions::from_mode(mode)).unwrap();
            assert!(open_at(&ours).is_none(), "{mode:o}");
        }
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        assert!(open_at(&link).is_none(), "a link may lead anywhere");
        File::create(folder.path().join("file")).unwrap();
        assert!(open_at(&folder.path().join("file/modules")).is_none());
    }
}
