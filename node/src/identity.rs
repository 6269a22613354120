//! Who this node is: a key file, `IROH_SECRET`, or a fresh key that is forgotten with the process.
//!
//! A key file is one line of 64 hex digits, readable by its owner only. It is never overwritten.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use iroh::SecretKey;

use crate::exit::{Exit, Failure};

/// The environment variable other iroh tools read their key from.
pub(crate) const SECRET_VARIABLE: &str = "IROH_SECRET";

/// A key, and where it came from.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) key: SecretKey,
    pub(crate) source: Source,
}

/// Where a key came from. `up` tells the user, because only one of the four is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    KeyFile,
    NewKeyFile,
    Environment,
    Ephemeral,
}

impl Identity {
    /// The key of `key_file`, which is created where it is missing; else of `secret`; else a fresh one.
    pub(crate) fn resolve(key_file: Option<&Path>, secret: Option<&str>) -> Result<Self, Failure> {
        match (key_file, secret) {
            (Some(path), _) if path.exists() => Ok(Self { key: load(path)?, source: Source::KeyFile }),
            (Some(path), _) => Ok(Self { key: generate(path)?, source: Source::NewKeyFile }),
            (None, Some(secret)) => Ok(Self { key: from_environment(secret)?, source: Source::Environment }),
            (None, None) => Ok(Self { key: SecretKey::generate(), source: Source::Ephemeral }),
        }
    }

    /// The key of `key_file`, else of `secret`; nothing is created.
    pub(crate) fn existing(key_file: Option<&Path>, secret: Option<&str>) -> Result<Option<SecretKey>, Failure> {
        match (key_file, secret) {
            (Some(path), _) => load(path).map(Some),
            (None, Some(secret)) => from_environment(secret).map(Some),
            (None, None) => Ok(None),
        }
    }
}

/// The value of `IROH_SECRET`, where it is set to something.
pub(crate) fn secret_from_environment() -> Option<String> {
    std::env::var(SECRET_VARIABLE).ok().filter(|secret| !secret.is_empty())
}

/// Creates `path` with a fresh key, mode 0600. An existing file is an error, whatever it holds.
pub(crate) fn generate(path: &Path) -> Result<SecretKey, Failure> {
    let key = SecretKey::generate();
    let shown = path.display();
    let mut file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(Failure::new(
                Exit::Io,
                format!("{shown} exists and is not overwritten; remove it first or choose another name"),
            ));
        }
        Err(error) => return Err(Failure::io(format_args!("create key file {shown}"), &error)),
    };
    let text = secret_hex(&key) + "\n";
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    if let Err(error) = written {
        // Half a key is worse than none: the next start would refuse it.
        let _ = std::fs::remove_file(path);
        return Err(Failure::io(format_args!("write key file {shown}"), &error));
    }
    Ok(key)
}

/// Reads a key file. Looser modes than 0600 are refused: whoever reads the key is this node.
pub(crate) fn load(path: &Path) -> Result<SecretKey, Failure> {
    let shown = path.display();
    let mut file = File::open(path).map_err(|error| Failure::io(format_args!("open key file {shown}"), &error))?;
    // Asked of the open file, so that the file checked is the file read.
    let metadata = file.metadata().map_err(|error| Failure::io(format_args!("inspect key file {shown}"), &error))?;
    let mode = metadata.permissions().mode() & 0o7777;
    if !metadata.is_file() {
        return Err(Failure::new(Exit::Config, format!("key file {shown} is not a regular file")));
    }
    if mode & 0o077 != 0 {
        return Err(Failure::new(
            Exit::Permission,
            format!("key file {shown} has mode {mode:04o}, so others may use the key; run: chmod 600 {shown}"),
        ));
    }
    let mut text = String::new();
    // A key is 65 bytes. Reading little keeps a mistyped path to a large file harmless.
    Read::by_ref(&mut file)
        .take(1024)
        .read_to_string(&mut text)
        .map_err(|error| Failure::io(format_args!("read key file {shown}"), &error))?;
    parse_secret(text.trim())
        .ok_or_else(|| Failure::new(Exit::Config, format!("key file {shown} does not hold 64 hex digits")))
}

/// A secret key as the 64 hex digits of a key file and of `IROH_SECRET`.
pub(crate) fn secret_hex(key: &SecretKey) -> String {
    HEXLOWER.encode(&key.to_bytes())
}

fn from_environment(secret: &str) -> Result<SecretKey, Failure> {
    // The value is a secret, even a mistyped one: it is not repeated.
    parse_secret(secret.trim())
        .ok_or_else(|| Failure::new(Exit::Config, format!("{SECRET_VARIABLE} does not hold 64 hex digits")))
}

/// Hex, or the base32 some iroh tools print.
fn parse_secret(text: &str) -> Option<SecretKey> {
    match HEXLOWER_PERMISSIVE.decode(text.as_bytes()) {
        Ok(bytes) => Some(SecretKey::from(<[u8; 32]>::try_from(bytes).ok()?)),
        Err(_) => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_key_file_is_private_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let first = Identity::resolve(Some(&path), None).unwrap();
        assert_eq!(first.source, Source::NewKeyFile);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let again = Identity::resolve(Some(&path), Some("ignored: a flag wins")).unwrap();
        assert_eq!((again.key.public(), again.source), (first.key.public(), Source::KeyFile));
        assert_eq!(generate(&path).unwrap_err().exit, Exit::Io, "a key is never overwritten");
    }

    #[test]
    fn a_key_file_that_others_may_read_is_refused_with_the_cure() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        generate(&path).unwrap();
        for mode in [0o640, 0o604, 0o620] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let failure = load(&path).unwrap_err();
            assert_eq!(failure.exit, Exit::Permission);
            assert!(failure.sentence.ends_with(&format!("run: chmod 600 {}", path.display())), "{failure}");
        }
    }

    #[test]
    fn a_file_without_a_key_is_a_configuration_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        for content in ["", "hello", &"a".repeat(63), &"a".repeat(2000)] {
            let _ = std::fs::remove_file(&path);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap();
            file.write_all(content.as_bytes()).unwrap();
            assert_eq!(load(&path).unwrap_err().exit, Exit::Config, "{content:?}");
        }
    }

    #[test]
    fn the_environment_gives_a_key_and_is_never_repeated_in_an_error() {
        let key = SecretKey::generate();
        let identity = Identity::resolve(None, Some(&secret_hex(&key))).unwrap();
        assert_eq!((identity.key.public(), identity.source), (key.public(), Source::Environment));
        let failure = Identity::resolve(None, Some("not-a-secret")).unwrap_err();
        assert!(!failure.sentence.contains("not-a-secret"));
        assert_eq!(Identity::resolve(None, None).unwrap().source, Source::Ephemeral);
    }
}
