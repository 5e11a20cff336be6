//! Adds the CUDA half of libtorch to the running process.
//!
//! The binary is linked with the CPU half only, so one binary serves both kinds of image and a pod without GPU does not
//! map a gigabyte for nothing. Called by `device`, before libtorch is first asked for devices.

use std::ffi::CStr;

/// Loads `libtorch_cuda.so`, which registers its kernels with libtorch as it is loaded.
///
/// # Errors
/// The loader's own words when the library, or one that it needs, is missing.
#[expect(unsafe_code, reason = "a library can only be loaded through the C interface of the dynamic loader")]
pub(super) fn load() -> Result<(), String> {
    // SAFETY: the name is a NUL-terminated constant. Initialisers of libtorch_cuda.so run in this call; they are made for
    // this libtorch (both come from one wheel) and no other thread uses libtorch yet. The handle is never closed, so
    // nothing that the library registers can dangle.
    let handle = unsafe { libc::dlopen(c"libtorch_cuda.so".as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    if !handle.is_null() {
        return Ok(());
    }
    // SAFETY: dlerror returns null or a NUL-terminated text that is valid until this thread's next call to the loader.
    let text = unsafe {
        let text = libc::dlerror();
        if text.is_null() { None } else { Some(CStr::from_ptr(text).to_string_lossy().into_owned()) }
    };
    Err(text.unwrap_or_else(|| "the loader gave no reason".to_owned()))
}
