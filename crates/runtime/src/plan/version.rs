//! The version of the specification that a configuration is written in, and its annotations
//! (config.md, "Specification version" and "Annotations").

use ponton_oci::runtime::Spec;

use super::PlanError;

/// The major version that is implemented; all of its minor versions are compatible.
const MAJOR: u64 = 1;

pub(super) fn check(spec: &Spec) -> Result<(), PlanError> {
    let version = spec.oci_version.as_str();
    let refused = |message| Err(PlanError::invalid("ociVersion", message));
    match major(version) {
        None if version.is_empty() => refused("is missing".to_owned()),
        None => refused(format!("{version:?} is not a version, such as 1.2.0")),
        Some(MAJOR) if spec.annotations.contains_key("") => {
            Err(PlanError::invalid("annotations", "a key is empty"))
        }
        Some(MAJOR) => Ok(()),
        Some(_) => refused(format!("{version} is not known, 1.x is")),
    }
}

/// The first number of a semantic version.
fn major(version: &str) -> Option<u64> {
    let core = version.split(['-', '+']).next()?;
    let numbers: Vec<u64> = core.split('.').map(str::parse).collect::<Result<_, _>>().ok()?;
    (numbers.len() == 3).then(|| numbers[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_versions_of_one_major_number_are_taken() {
        let checked = |version: &str| check(&Spec { oci_version: version.to_owned(), ..Spec::default() });
        for version in ["1.0.0", "1.2.1", "1.0.2-dev", "1.1.0+build", "1.99.0-rc.1+x"] {
            checked(version).unwrap();
        }
        for version in ["", "1", "1.2", "1.2.x", "2.0.0", "0.9.0", "one", "1.2.0.0"] {
            let error = checked(version).unwrap_err().to_string();
            assert!(error.starts_with("ociVersion: "), "{version}: {error}");
        }
    }
}
