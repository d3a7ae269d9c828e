//! Which files `-f` names.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::ManifestError;

/// The text of one manifest, and what to call it in messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub name: String,
    pub text: String,
}

/// What kubectl reads of a directory.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// Reads every file that `paths` name: a file whatever it is called, of a
/// directory those ending in .yaml, .yml or .json, sorted by name (its
/// directories are left out, as `kubectl apply -f` does), `-` for standard input.
///
/// # Errors
/// One for each path that cannot be read or has no manifest in it.
pub fn read_all(paths: &[PathBuf]) -> Result<Vec<Source>, Vec<ManifestError>> {
    let mut sources = Vec::new();
    let mut errors = Vec::new();
    for path in paths {
        match expand(path) {
            Ok(files) => {
                for file in files {
                    match read(&file) {
                        Ok(source) => sources.push(source),
                        Err(error) => errors.push(error),
                    }
                }
            }
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() {
        Ok(sources)
    } else {
        Err(errors)
    }
}

fn expand(path: &Path) -> Result<Vec<PathBuf>, ManifestError> {
    if path == Path::new("-") || !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let failed = |error: std::io::Error| ManifestError::new(path.display(), None, error);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        let extension = file.extension().and_then(|e| e.to_str());
        if EXTENSIONS.contains(&extension.unwrap_or_default()) && file.is_file() {
            files.push(file);
        }
    }
    if files.is_empty() {
        let message = "expected a file ending in .yaml, .yml or .json in this directory";
        return Err(ManifestError::new(path.display(), None, message));
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<Source, ManifestError> {
    let mut bytes = Vec::new();
    let (name, result) = if path == Path::new("-") {
        let read = std::io::stdin().lock().read_to_end(&mut bytes);
        ("standard input".to_owned(), read)
    } else {
        let opened = std::fs::File::open(path);
        let read = opened.and_then(|mut file| file.read_to_end(&mut bytes));
        (path.display().to_string(), read)
    };
    result.map_err(|error| ManifestError::new(&name, None, error))?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Source { name, text }),
        Err(error) => {
            let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
            let message = "expected text in UTF-8";
            Err(ManifestError::new(name, Some(line as u64), message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_gives_its_manifests_sorted() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.yaml", "a.yml", "c.json", "README.md", "d.yaml.bak"] {
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        std::fs::create_dir(dir.path().join("e.yaml")).unwrap();
        let sources = read_all(&[dir.path().to_owned()]).unwrap();
        let texts: Vec<_> = sources.iter().map(|s| s.text.as_str()).collect();
        assert_eq!(texts, ["a.yml", "b.yaml", "c.json"]);
        let named = read_all(&[dir.path().join("README.md")]).unwrap();
        assert_eq!(named[0].text, "README.md");
    }

    #[test]
    fn every_unreadable_path_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        let latin = dir.path().join("latin.txt");
        std::fs::write(&latin, b"a: 1\nb: \xe4\n").unwrap();
        let missing = dir.path().join("missing.yaml");
        let errors = read_all(&[missing, dir.path().to_owned(), latin]).unwrap_err();
        let messages: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert!(messages[0].ends_with("missing.yaml: No such file or directory (os error 2)"));
        assert!(messages[1].contains("expected a file ending in .yaml"));
        assert!(messages[2].ends_with("latin.txt:2: expected text in UTF-8"));
    }
}
