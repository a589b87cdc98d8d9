//! Loading compiled programs into the kernel.

use std::sync::{LazyLock, Mutex, PoisonError};

use aya::{Ebpf, EbpfError, EbpfLoader};

/// Made once: a new one reads and parses the types of the whole kernel, tens of milliseconds in which a daemon that starts
/// forwards nothing. Our programs refer to none of them.
static LOADER: LazyLock<Mutex<EbpfLoader<'static>>> = LazyLock::new(|| {
    let mut loader = EbpfLoader::new();
    loader.btf(None);
    Mutex::new(loader)
});

/// Makes the maps of `object` and reads its programs, which are loaded one by one.
pub(crate) fn load(object: &[u8]) -> Result<Ebpf, EbpfError> {
    // What a panic would have left half-done is the object's, not the loader's.
    LOADER.lock().unwrap_or_else(PoisonError::into_inner).load(object)
}
