//! The bill of materials: CycloneDX, every crate in what is shipped, where it comes from, its sum, its licence, and what
//! it needs. It leaves out the texts of the licences.

use anyhow::{Context, Result, ensure};
use cyclonedx_bom::external_models::uri::{Purl, Uri};
use cyclonedx_bom::models::component::{Classification, Component, Components};
use cyclonedx_bom::models::dependency::{Dependencies, Dependency};
use cyclonedx_bom::models::external_reference::{
    self, ExternalReference, ExternalReferenceType, ExternalReferences,
};
use cyclonedx_bom::models::hash::{Hash, HashAlgorithm, HashValue, Hashes};
use cyclonedx_bom::models::license::{LicenseChoice, Licenses};
use cyclonedx_bom::models::metadata::Metadata;
use cyclonedx_bom::models::tool::{Tool, Tools};
use cyclonedx_bom::prelude::{
    Bom, DateTime, NormalizedString, SpdxExpression, SpecVersion, UrnUuid, Validate as _,
};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Release;
use super::closure::{Crate, SHIPPED};
use super::target::Toolchain;

/// The bill as JSON.
pub(super) fn write(release: &Release, crates: &[Crate]) -> Result<Vec<u8>> {
    let bom = bom(release, crates, &Toolchain::look()?.version)?;
    let result = bom.validate_version(SPECIFICATION);
    ensure!(result.passed(), "the bill of materials is not valid: {:?}", result.errors().collect::<Vec<_>>());
    let mut json = Vec::new();
    bom.output_as_json(&mut json, SPECIFICATION).context("cannot write the bill of materials")?;
    json.push(b'\n');
    Ok(json)
}

const SPECIFICATION: SpecVersion = SpecVersion::V1_5;

fn bom(release: &Release, crates: &[Crate], compiler: &str) -> Result<Bom> {
    let epoch = i64::try_from(release.epoch).context("the commit is not of this age")?;
    let made = OffsetDateTime::from_unix_timestamp(epoch)?.format(&Rfc3339)?;
    let mut product =
        Component::new(Classification::Application, "bastide", release.version, Some(PRODUCT.to_owned()));
    product.licenses = Some(Licenses(vec![expression("MIT OR Apache-2.0")?]));
    product.purl = Some(Purl::new("generic", "bastide", release.version)?);
    let metadata = Metadata {
        timestamp: Some(DateTime::try_from(made)?),
        tools: Some(Tools::List(vec![
            Tool::new("bastide", "cargo xtask dist", release.version),
            Tool::new("Rust", "rustc", compiler.trim_start_matches("rustc ")),
        ])),
        component: Some(product),
        ..Metadata::default()
    };
    let roots = crates.iter().filter(|one| SHIPPED.contains(&one.name.as_str()));
    let mut dependencies =
        vec![Dependency { dependency_ref: PRODUCT.to_owned(), dependencies: roots.map(reference).collect() }];
    dependencies.extend(crates.iter().map(|one| Dependency {
        dependency_ref: reference(one),
        dependencies: one.dependencies.iter().map(|(name, version)| written(name, version)).collect(),
    }));
    Ok(Bom {
        version: 1,
        serial_number: Some(serial(release, crates)?),
        metadata: Some(metadata),
        components: Some(Components(crates.iter().map(component).collect::<Result<_>>()?)),
        services: None,
        external_references: None,
        dependencies: Some(Dependencies(dependencies)),
        compositions: None,
        properties: None,
        vulnerabilities: None,
        signature: None,
        annotations: None,
        formulation: None,
        spec_version: SPECIFICATION,
    })
}

/// What everything else is part of.
const PRODUCT: &str = "bastide";

fn component(one: &Crate) -> Result<Component> {
    let mut component =
        Component::new(Classification::Library, &one.name, &one.version, Some(reference(one)));
    component.purl = Some(Purl::new("cargo", &one.name, &one.version)?);
    component.licenses = Some(Licenses(vec![
        expression(&one.license).with_context(|| format!("{} has no licence in SPDX", one.name))?,
    ]));
    if !one.authors.is_empty() {
        component.author = Some(NormalizedString::new(&one.authors.join(", ")));
    }
    if let Some(sum) = &one.checksum {
        let hash = Hash { alg: HashAlgorithm::SHA_256, content: HashValue(sum.clone()) };
        component.hashes = Some(Hashes(vec![hash]));
    }
    if let Some(repository) = &one.repository {
        let url = external_reference::Uri::Url(Uri::new(repository));
        component.external_references =
            Some(ExternalReferences(vec![ExternalReference::new(ExternalReferenceType::Vcs, url)]));
    }
    Ok(component)
}

fn expression(license: &str) -> Result<LicenseChoice> {
    let read = SpdxExpression::parse_lax(license.to_owned()).map_err(anyhow::Error::new)?;
    Ok(LicenseChoice::Expression(read))
}

fn reference(one: &Crate) -> String {
    written(&one.name, &one.version)
}

fn written(name: &str, version: &str) -> String {
    format!("{name}@{version}")
}

/// A number for the same crates at the same time on the same target, as a UUID of its own making (RFC 9562, version 8).
fn serial(release: &Release, crates: &[Crate]) -> Result<UrnUuid> {
    let all: Vec<String> =
        crates.iter().map(|one| format!("{} {:?}", reference(one), one.checksum)).collect();
    let sum = super::sum(format!("{} {} {}", release.name(), release.epoch, all.join(" ")).as_bytes());
    let part = |range| sum.get(range).unwrap_or_default();
    let text = format!(
        "urn:uuid:{}-{}-8{}-8{}-{}",
        part(0..8),
        part(8..12),
        part(12..15),
        part(15..18),
        part(18..30)
    );
    UrnUuid::new(text).map_err(|error| anyhow::anyhow!("no UUID: {error:?}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::dist::tests::release;

    #[test]
    fn says_what_is_in_it_and_always_the_same() -> Result<()> {
        let one = |name: &str, checksum: Option<&str>, needs: &[&str]| Crate {
            name: name.to_owned(),
            version: "1.2.3".to_owned(),
            license: "MIT OR Apache-2.0".to_owned(),
            authors: vec!["Ada <ada@example.org>".to_owned()],
            repository: Some("https://example.org/repository".to_owned()),
            checksum: checksum.map(str::to_owned),
            dependencies: needs
                .iter()
                .map(|name| ((*name).to_owned(), "1.2.3".to_owned()))
                .collect::<BTreeSet<_>>(),
            ..Crate::default()
        };
        let crates = [one("bastide-cli", None, &["tokio"]), one("tokio", Some(&"5a".repeat(32)), &[])];
        let json = write(&release()?, &crates)?;
        assert!(json == write(&release()?, &crates)?);
        let bill: serde_json::Value = serde_json::from_slice(&json)?;
        assert_eq!((&bill["bomFormat"], &bill["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
        assert_eq!(bill["components"][1]["purl"], "pkg:cargo/tokio@1.2.3");
        assert_eq!(bill["components"][1]["hashes"][0]["alg"], "SHA-256");
        assert_eq!(bill["dependencies"][0]["dependsOn"], serde_json::json!(["bastide-cli@1.2.3"]));
        assert_eq!(bill["dependencies"][1]["dependsOn"], serde_json::json!(["tokio@1.2.3"]));
        assert_eq!(bill["metadata"]["timestamp"], "2026-01-02T03:04:05Z");
        Ok(())
    }
}
