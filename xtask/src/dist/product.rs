//! Where everything goes: in the archive, which is unpacked anywhere, and in Debian's file system. It leaves out how
//! either is packed.

use std::io::Write as _;

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use tempfile::TempDir;

use super::Release;
use super::build::{self, Built, Symbols};
use super::deb;
use super::documents::Documents;
use super::layout::Layout;

/// All that is shipped.
pub(super) struct Product {
    /// Programs and libraries without what only a debugger would read.
    pub built: Built,
    pub documents: Documents,
    /// Where those are.
    _folder: TempDir,
}

impl Product {
    /// Makes what is missing of what was built.
    pub(super) fn new(release: &Release, built: Built) -> Result<Product> {
        let documents = Documents::new(release, &built)?;
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let stripped = Built::within(folder.path());
        for (from, to, what) in [
            (&built.client, &stripped.client, Symbols::Unneeded),
            (&built.emulator, &stripped.emulator, Symbols::Unneeded),
            (&built.shared, &stripped.shared, Symbols::Unneeded),
            (&built.archive, &stripped.archive, Symbols::Debug),
            (&built.keyvault, &stripped.keyvault, Symbols::Unneeded),
        ] {
            build::strip(&release.target, from, to, what)?;
        }
        Ok(Product { built: stripped, documents, _folder: folder })
    }

    /// What the archive holds.
    pub(super) fn archive(&self, release: &Release) -> Result<Layout> {
        let mut layout = Layout::default();
        self.common(release, &mut layout, "")?;
        self.libraries(
            release,
            &mut layout,
            "lib",
            PkgConfig { prefix: "${pcfiledir}/../..", libraries: "lib" },
        )?;
        for (name, page) in &self.documents.manual {
            layout.text(format!("share/man/man1/{name}"), page.clone());
        }
        layout.text("share/zsh/site-functions/_bastide", self.completion("zsh")?);
        let documents = "share/doc/bastide";
        for name in ["LICENSE-APACHE", "LICENSE-MIT"] {
            layout.file(format!("{documents}/{name}"), &release.root.join(name));
        }
        Ok(layout)
    }

    /// What the Debian package installs.
    pub(super) fn debian(&self, release: &Release) -> Result<Layout> {
        let mut layout = Layout::default();
        self.common(release, &mut layout, "usr/")?;
        let libraries = format!("lib/{}", release.target.gnu);
        let written = PkgConfig { prefix: "/usr", libraries: &libraries };
        self.libraries(release, &mut layout, &format!("usr/{libraries}"), written)?;
        for (name, page) in &self.documents.manual {
            layout.text(format!("usr/share/man/man1/{name}.gz"), compressed(page)?);
        }
        layout.text("usr/share/zsh/vendor-completions/_bastide", self.completion("zsh")?);
        // Who wants it says so: `systemctl --user enable bastide-up`.
        layout.file(
            "usr/lib/systemd/user/bastide-up.service",
            &release.root.join("docs/systemd/bastide-up.service"),
        );
        let documents = "usr/share/doc/bastide";
        let changes = std::fs::read(release.root.join("CHANGELOG.md"))?;
        layout.text(format!("{documents}/changelog.gz"), compressed(&changes)?);
        let of_package = deb::changes(release)?;
        layout.text(format!("{documents}/changelog.Debian.gz"), compressed(of_package.as_bytes())?);
        layout.text("usr/share/lintian/overrides/bastide", deb::on_purpose(release)?);
        let license = std::fs::read_to_string(release.root.join("LICENSE-MIT"))?;
        layout.text(format!("{documents}/copyright"), copyright(&license));
        layout.below("usr/lib/python3/dist-packages", &python(release)?);
        Ok(layout)
    }

    /// What has the same place everywhere, below `top`.
    fn common(&self, release: &Release, layout: &mut Layout, top: &str) -> Result<()> {
        let from = |path: &str| release.root.join(path);
        layout.program(format!("{top}bin/bastide"), &self.built.client);
        layout.program(format!("{top}bin/bastide-emulator"), &self.built.emulator);
        // Named in a user's configuration by its whole path, so the same one on all kinds of machines.
        layout.file(format!("{top}lib/bastide/libbastide_keyvault.so"), &self.built.keyvault);
        layout.file(format!("{top}include/bastide.h"), &from("crates/ffi/include/bastide.h"));
        layout.file(
            format!("{top}include/bastide_plugin.h"),
            &from("crates/plugin-abi/include/bastide_plugin.h"),
        );
        layout.text(format!("{top}share/bash-completion/completions/bastide"), self.completion("bash")?);
        layout.text(format!("{top}share/fish/vendor_completions.d/bastide.fish"), self.completion("fish")?);
        layout.text(format!("{top}share/bastide/completions/bastide.ps1"), self.completion("powershell")?);
        layout.text(format!("{top}share/bastide/completions/bastide.elv"), self.completion("elvish")?);
        layout.below(&format!("{top}share/bastide/plugin-sdk"), &self.documents.kit);
        let documents = format!("{top}share/doc/bastide");
        for name in ["README.md", "ARCHITECTURE.md", "BENCHMARKS.md", "CHANGELOG.md"] {
            let page = std::fs::read_to_string(from(name)).with_context(|| format!("cannot read {name}"))?;
            // What they link to lies beside them here.
            let page =
                page.replace("](docs/", "](").replace("](crates/emulator/README.md)", "](emulator.md)");
            layout.text(format!("{documents}/{name}"), page);
        }
        layout.file(format!("{documents}/emulator.md"), &from("crates/emulator/README.md"));
        layout.folder(&documents, &from("docs"), |_| true)?;
        layout.folder(&format!("{documents}/examples"), &from("crates/ffi/examples"), |_| true)?;
        layout.text(format!("{documents}/THIRD-PARTY.txt"), self.documents.notices.clone());
        layout.file(format!("{documents}/rust-standard-library.html"), &self.documents.standard_library);
        layout.text(format!("{documents}/bastide.cdx.json"), self.documents.sbom.clone());
        Ok(())
    }

    /// The library in a folder, for the loader, for both linkers, and for pkg-config.
    fn libraries(
        &self,
        release: &Release,
        layout: &mut Layout,
        folder: &str,
        written: PkgConfig<'_>,
    ) -> Result<()> {
        layout.file(format!("{folder}/{SONAME}"), &self.built.shared);
        layout.link(format!("{folder}/libbastide.so"), SONAME);
        layout.file(format!("{folder}/libbastide.a"), &self.built.archive);
        let template = std::fs::read_to_string(release.root.join("crates/ffi/bastide.pc.in"))?;
        let filled = template
            .replace("@prefix@", written.prefix)
            .replace("@libdir@", &format!("${{prefix}}/{}", written.libraries))
            .replace("@version@", release.version);
        // Comments there are for whoever fills it in.
        let lines = filled.lines().filter(|line| !line.starts_with('#'));
        let text: String = lines.flat_map(|line| [line, "\n"]).collect();
        layout.text(format!("{folder}/pkgconfig/bastide.pc"), text);
        Ok(())
    }

    fn completion(&self, shell: &str) -> Result<Vec<u8>> {
        let found = self.documents.completions.iter().find(|(name, _)| *name == shell);
        found.map(|(_, script)| script.clone()).with_context(|| format!("there is no completion for {shell}"))
    }
}

/// What a `.pc` file says.
struct PkgConfig<'a> {
    prefix: &'a str,
    /// Below the prefix.
    libraries: &'a str,
}

/// As `crates/ffi/build.rs` has it.
pub(super) const SONAME: &str = "libbastide.so.0";

/// The package for Python, without the library.
pub(super) fn python(release: &Release) -> Result<Layout> {
    let mut layout = Layout::default();
    let modules = release.root.join("crates/ffi/python/bastide");
    layout.folder("bastide", &modules, |name| name.ends_with(".py") || name == "py.typed")?;
    Ok(layout)
}

/// As `gzip -9n`: Debian's policy, and no time in it.
fn compressed(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut writer = GzBuilder::new().write(Vec::new(), Compression::best());
    writer.write_all(bytes)?;
    writer.finish().context("cannot compress")
}

/// Debian's copyright file (copyright-format 1.0).
fn copyright(license: &str) -> String {
    let owner = license.lines().find(|line| line.starts_with("Copyright")).unwrap_or_default();
    let indented: String = license
        .lines()
        .map(|line| if line.trim().is_empty() { " .\n".to_owned() } else { format!(" {line}\n") })
        .collect();
    format!(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\
         Upstream-Name: bastide\n\
         Comment: The programs contain work of others. THIRD-PARTY.txt and rust-standard-library.html in this\n \
         folder have their notices.\n\n\
         Files: *\n\
         Copyright: {}\n\
         License: Expat or Apache-2.0\n\n\
         License: Expat\n{indented}\n\
         License: Apache-2.0\n \
         On Debian systems the text is in /usr/share/common-licenses/Apache-2.0.\n",
        owner.trim_start_matches("Copyright").trim_start_matches(" (c)").trim(),
    )
}
