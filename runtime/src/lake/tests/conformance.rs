//! object_store's own tests of what a store does, with every store that stands around another, in memory and on a disk.

use std::sync::Mutex;

use object_store::integration as expect;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;

use super::stores::{Store, wrappers};
use super::*;

/// What lies behind a store.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Behind {
    Memory,
    Disk,
}

/// Runs `check` with each store that stands around an empty one, and with the store of a lake.
async fn with_each(check: impl AsyncFn(&dyn object_store::ObjectStore, Behind)) {
    let folders = Mutex::new(Vec::new());
    let disk = || {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalFileSystem::new_with_prefix(folder.path()).unwrap();
        folders.lock().unwrap().push(folder);
        Arc::new(store) as Store
    };
    let (_folder, lake) = lake();
    let in_memory = Location::open("memory:///lake", &HashMap::new()).unwrap();
    let own = [(Behind::Memory, in_memory), (Behind::Disk, lake)];
    let own = own.map(|(behind, lake)| (behind, "a lake's own", lake.store().unwrap()));
    let around_memory = wrappers(|| Arc::new(InMemory::new())).into_iter().map(|(name, s)| (Behind::Memory, name, s));
    let around_disk = wrappers(disk).into_iter().map(|(name, store)| (Behind::Disk, name, store));
    for (behind, name, store) in around_memory.chain(around_disk).chain(own) {
        // told with a failure, which is in object_store's code
        println!("{name}, {behind:?}");
        check(store.as_ref(), behind).await;
    }
}

macro_rules! with_each_store {
    ($($test:ident $check:expr;)*) => {
        $(#[tokio::test] async fn $test() { with_each($check).await })*
    };
}

with_each_store! {
    what_is_put_is_got_and_listed_until_it_is_deleted async |store, _| expect::put_get_delete_list(store).await;
    attributes_are_kept async |store, _| expect::put_get_attributes(store).await;
    what_is_got_is_what_was_asked_for async |store, _| expect::get_opts(store).await;
    // no other process is kept out of a file of a disk, so an update by its tag is none there
    a_put_is_done_under_its_condition_only async |store, behind| {
        expect::put_opts(store, behind == Behind::Memory).await;
    };
    an_upload_in_parts_is_there_whole_or_not_at_all async |store, _| expect::stream_get(store).await;
    parts_may_arrive_in_any_order async |store, _| expect::multipart_out_of_order(store).await;
    of_two_uploads_the_last_one_stays async |store, _| expect::multipart_race_condition(store, true).await;
    a_folder_is_listed_by_its_whole_name async |store, _| expect::list_uses_directories_correctly(store).await;
    folders_are_listed_without_what_is_in_them async |store, _| expect::list_with_delimiter(store).await;
    a_listing_begins_after_its_offset async |store, _| expect::list_with_offset_exclusivity(store).await;
    a_copy_leaves_what_a_renaming_moves async |store, _| expect::rename_and_copy(store).await;
    a_copy_that_must_not_overwrite_does_not async |store, _| expect::copy_if_not_exists(store).await;
    what_is_not_there_is_not_copied async |store, _| expect::copy_rename_nonexistent_object(store).await;
    what_is_not_there_is_not_found async |store, _| {
        let error = expect::get_nonexistent_object(store, None).await.unwrap_err();
        assert!(matches!(error, object_store::Error::NotFound { .. }), "{error}");
    };
}
