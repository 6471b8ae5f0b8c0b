//! Where the object with the XDP programs is.

use std::path::{Path, PathBuf};

use super::BpfError;

const FILE: &str = "portcullis-xdp.o";
/// Names the object, before any other place.
const VARIABLE: &str = "PORTCULLIS_XDP_OBJECT";

/// The configured object, or the first that exists: what `PORTCULLIS_XDP_OBJECT` names, beside the running
/// program, `/usr/lib/portcullis`, and `target/bpf` of the workspace that the program was built in.
///
/// # Errors
/// [`BpfError::ObjectMissing`], naming every place; what the configuration or the variable names must exist.
pub fn find_object(configured: Option<&Path>) -> Result<PathBuf, BpfError> {
    let named = configured.map(Path::to_owned).or_else(|| std::env::var_os(VARIABLE).map(PathBuf::from));
    let searched = named.map_or_else(default_places, |named| vec![named]);
    match searched.iter().find(|path| path.is_file()) {
        Some(path) => Ok(path.clone()),
        None => Err(BpfError::ObjectMissing { searched }),
    }
}

fn default_places() -> Vec<PathBuf> {
    let program = std::env::current_exe().ok();
    let beside = program.as_deref().and_then(Path::parent).map(|directory| directory.join(FILE));
    // target/release/portcullis and target/debug/deps/test: `bpf` is beside one of the directories above.
    let built = program
        .as_deref()
        .into_iter()
        .flat_map(Path::ancestors)
        .map(|directory| directory.join("bpf").join(FILE))
        .find(|path| path.is_file());
    let installed = Path::new("/usr/lib/portcullis").join(FILE);
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf").join(FILE);
    beside.into_iter().chain([installed]).chain(built).chain([workspace]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_configuration_names_is_taken_or_missed_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("x.o");
        let missing = find_object(Some(&file)).unwrap_err().to_string();
        assert!(missing.contains("x.o") && missing.contains("build-ebpf"), "{missing}");
        std::fs::write(&file, b"").unwrap();
        assert_eq!(find_object(Some(&file)).unwrap(), file);
    }
}
