//! A sign-in plugin that panics: a test subject of the loader. It leaves out everything useful.

use bastide_plugin_abi::{Call, Failure, Plugin, Token, TokenRequest, export_plugin};

struct Panics;

impl Plugin for Panics {
    const NAME: &'static std::ffi::CStr = c"panics";

    #[expect(clippy::panic, reason = "it is what this plugin is for")]
    fn open(call: &Call<'_>) -> Result<Self, Failure> {
        match call.setting("when").as_deref() {
            Some("open") => panic!("the lid is stuck"),
            _ => Ok(Self),
        }
    }

    #[expect(clippy::panic, reason = "it is what this plugin is for")]
    fn access_token(&mut self, _: &Call<'_>, request: &TokenRequest<'_>) -> Result<Token, Failure> {
        panic!("no token for {}", request.scope);
    }
}

export_plugin!(Panics);
