//! How the shared library is linked: its name and version for the loader. It leaves out what is in it.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    if is("CARGO_CFG_TARGET_OS", "macos") {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-install_name,@rpath/libbastide.0.dylib");
    }
    if is("CARGO_CFG_TARGET_OS", "linux") {
        // The number grows when something in bastide.h is taken back or changes its meaning. `nodelete`: threads and
        // their variables outlive a dlclose(3), so that the code has to stay.
        println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libbastide.so.0,-z,nodelete");
        if is("CARGO_CFG_TARGET_ENV", "gnu") {
            // Every symbol gets the version `libbastide.so.0`, so that two generations of the library can be in one
            // process. rustc hides what is not ours by an anonymous version script, beside which ld takes no other
            // one; but GNU ld, not lld, can name the versions after the library.
            println!("cargo::rustc-cdylib-link-arg=-fuse-ld=bfd");
            println!("cargo::rustc-cdylib-link-arg=-Wl,--default-symver");
        }
    }
}
