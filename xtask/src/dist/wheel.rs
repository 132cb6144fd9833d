//! The wheel: the Python package with the library in it, as the binary distribution format has it (packaging.python.org).
//! What it says of itself stands in `pyproject.toml`. It leaves out the modules.

use std::io::{Cursor, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use object::Endianness;
use object::elf::FileHeader64;
use object::read::elf::FileHeader as _;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use super::Release;
use super::layout::Layout;
use super::product::{self, Product, SONAME};

/// Writes `bastide-VERSION-py3-none-PLATFORM.whl`.
pub(super) fn write(release: &Release, product: &Product, out: &Path) -> Result<PathBuf> {
    let library = std::fs::read(&product.built.shared).context("cannot read the library")?;
    let minor = glibc(&library)?;
    let tag = format!("py3-none-manylinux_2_{minor}_{}", release.target.python);
    let mut layout = product::python(release)?;
    layout.file(format!("bastide/{SONAME}"), &product.built.shared);
    let about = format!("bastide-{}.dist-info", release.version);
    layout.text(format!("{about}/METADATA"), metadata(release)?);
    layout.text(
        format!("{about}/WHEEL"),
        format!(
            "Wheel-Version: 1.0\nGenerator: bastide {}\nRoot-Is-Purelib: false\nTag: {tag}\n",
            release.version
        ),
    );
    for name in ["LICENSE-APACHE", "LICENSE-MIT"] {
        layout.file(format!("{about}/licenses/{name}"), &release.root.join(name));
    }
    layout.text(format!("{about}/licenses/THIRD-PARTY.txt"), product.documents.notices.clone());
    let standard_library = &product.documents.standard_library;
    layout.file(format!("{about}/licenses/rust-standard-library.html"), standard_library);
    layout.text(format!("{about}/sboms/bastide.cdx.json"), product.documents.sbom.clone());

    let path = out.join(format!("bastide-{}-{tag}.whl", release.version));
    let bytes = packed(&layout, &about, release.epoch)?;
    std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// The files, and at last the list of them with their sums.
fn packed(layout: &Layout, about: &str, epoch: u64) -> Result<Vec<u8>> {
    let made = OffsetDateTime::from_unix_timestamp(i64::try_from(epoch)?)?;
    let time = DateTime::from_date_and_time(
        u16::try_from(made.year())?,
        made.month().into(),
        made.day(),
        made.hour(),
        made.minute(),
        made.second(),
    )
    .context("zip knows no time before 1980")?;
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .compression_level(Some(9))
        .last_modified_time(time);
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let record = format!("{about}/RECORD");
    let mut lines = String::new();
    for file in layout.files() {
        let (path, bytes) = file?;
        let sum = URL_SAFE_NO_PAD.encode(Sha256::digest(&bytes));
        lines += &format!("{path},sha256={sum},{}\n", bytes.len());
        zip.start_file(path, options.unix_permissions(0o644))?;
        zip.write_all(&bytes)?;
    }
    lines += &format!("{record},,\n");
    zip.start_file(record, options.unix_permissions(0o644))?;
    zip.write_all(lines.as_bytes())?;
    Ok(zip.finish()?.into_inner())
}

/// The core metadata, version 2.4.
fn metadata(release: &Release) -> Result<String> {
    let folder = release.root.join("crates/ffi/python");
    let text =
        std::fs::read_to_string(folder.join("pyproject.toml")).context("cannot read pyproject.toml")?;
    let project: toml::Table = text.parse().context("pyproject.toml is no TOML")?;
    let project = project.get("project").context("pyproject.toml has no [project]")?;
    let word = |key: &str| {
        let value = project.get(key).and_then(toml::Value::as_str);
        value.with_context(|| format!("pyproject.toml does not say its {key}"))
    };
    ensure!(
        word("version")? == release.version,
        "pyproject.toml says {}, and this is {}: make them one",
        word("version")?,
        release.version
    );
    let classifiers = project.get("classifiers").and_then(toml::Value::as_array).into_iter().flatten();
    let classifiers: String = classifiers
        .filter_map(toml::Value::as_str)
        .flat_map(|classifier| ["Classifier: ", classifier, "\n"])
        .collect();
    let readme = std::fs::read_to_string(folder.join(word("readme")?)).context("cannot read the readme")?;
    Ok(format!(
        "Metadata-Version: 2.4\n\
         Name: {}\n\
         Version: {}\n\
         Summary: {}\n\
         Requires-Python: {}\n\
         License-Expression: MIT OR Apache-2.0\n\
         License-File: LICENSE-APACHE\n\
         License-File: LICENSE-MIT\n\
         License-File: THIRD-PARTY.txt\n\
         License-File: rust-standard-library.html\n\
         {classifiers}\
         Description-Content-Type: text/markdown\n\n\
         {readme}",
        word("name")?,
        release.version,
        word("description")?,
        word("requires-python")?,
    ))
}

/// The oldest glibc 2.x that has everything that a library wants (PEP 600).
fn glibc(library: &[u8]) -> Result<u32> {
    let header = FileHeader64::<Endianness>::parse(library).context("the library is no ELF file")?;
    let endian = header.endian()?;
    let sections = header.sections(endian, library)?;
    let (mut files, link) =
        sections.gnu_verneed(endian, library)?.context("the library says no versions of what it needs")?;
    let strings = sections.strings(endian, library, link)?;
    let mut newest = None;
    while let Some((_, mut versions)) = files.next()? {
        while let Some(version) = versions.next()? {
            let name = String::from_utf8_lossy(version.name(endian, strings)?).into_owned();
            newest = newest.max(minor(&name));
        }
    }
    newest.context("the library needs no glibc")
}

/// 34 of `GLIBC_2.34`, and 2 of `GLIBC_2.2.5`.
fn minor(version: &str) -> Option<u32> {
    version.strip_prefix("GLIBC_2.")?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dist::tests::release;

    #[test]
    fn a_wheel_lists_what_is_in_it() -> Result<()> {
        let mut layout = Layout::default();
        layout.text("bastide/__init__.py", "x = 1\n");
        layout.link("not-in-wheels", "a");
        let bytes = packed(&layout, "bastide-1.dist-info", release()?.epoch)?;
        assert!(bytes == packed(&layout, "bastide-1.dist-info", release()?.epoch)?);
        let mut zip = zip::ZipArchive::new(Cursor::new(bytes))?;
        let record = std::io::read_to_string(zip.by_name("bastide-1.dist-info/RECORD")?)?;
        let expected = "bastide/__init__.py,sha256=nia_NpkRxFwkPGhBR7I_yeHc_PJX0pmhxjIBam_NM_Q,6\n\
                        bastide-1.dist-info/RECORD,,\n";
        assert_eq!(record, expected);
        assert_eq!(zip.by_index(0)?.last_modified().map(|time| (time.year(), time.hour())), Some((2026, 3)));
        assert_eq!(zip.len(), 2);
        Ok(())
    }

    #[test]
    fn metadata_is_that_of_the_project() -> Result<()> {
        let text = metadata(&release()?)?;
        for line in
            ["Name: bastide\n", "Requires-Python: >=3.9\n", "Classifier: Typing :: Typed\n", "\n\n# bastide"]
        {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        Ok(())
    }

    #[test]
    fn reads_versions() -> Result<()> {
        assert_eq!([minor("GLIBC_2.34"), minor("GLIBC_2.2.5"), minor("GCC_3.0")], [Some(34), Some(2), None]);
        let this = std::fs::read(std::env::current_exe()?)?;
        assert!(glibc(&this)? >= 17, "Rust itself needs 2.17");
        Ok(())
    }
}
