//! Lets the binary find libtorch: beside itself in an image, in LIBTORCH on a developer's machine.

#[expect(clippy::disallowed_methods, reason = "a build script's arguments are its environment")]
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // The image: /app/bin/anneal-trainer and /app/lib/*.so
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib");
    if let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    }
}
