//! Binding the TCP address, and the token that guards it.

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt, path::Path};

use tokio::net::TcpListener;

use super::guard::Guard;
use crate::exit::{Exit, Failure};

/// The fewest letters of a token: at four bits each, as random hex digits have, 64 bits.
const TOKEN_LETTERS_MIN: usize = 16;

/// Binds `address`. One that other machines reach is refused without a token.
pub(crate) async fn bind(address: SocketAddr, token_file: Option<&Path>) -> Result<(TcpListener, Guard), Failure> {
    if !address.ip().is_loopback() && token_file.is_none() {
        let sentence =
            format!("--http {address} can be reached from other machines, so it needs --http-token-file FILE");
        return Err(Failure::new(Exit::Config, sentence));
    }
    let token = token_file.map(token).transpose()?;
    let listener = TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            Failure::new(Exit::Unavailable, format!("{address} is taken; choose another one with --http IP:PORT"))
        }
        _ => Failure::io(format_args!("listen on {address}"), &error),
    })?;
    Ok((listener, Guard::new(address, token.as_deref())))
}

/// The token of `file`, without the space around it. A file that others could read is refused.
pub(crate) fn token(file: &Path) -> Result<String, Failure> {
    let shown = file.display();
    let read = |error: &std::io::Error| Failure::io(format_args!("read the token file {shown}"), error);
    let mode = fs::metadata(file).map_err(|error| read(&error))?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        let sentence = format!("{shown} has mode {mode:04o}, so others may read the token; run: chmod 600 {shown}");
        return Err(Failure::new(Exit::Permission, sentence));
    }
    let text = fs::read_to_string(file).map_err(|error| read(&error))?;
    let token = text.trim();
    if token.len() < TOKEN_LETTERS_MIN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        let sentence = format!(
            "{shown} holds no token; expected at least {TOKEN_LETTERS_MIN} letters and digits on one line, such as \
             those of `openssl rand -hex 32`"
        );
        return Err(Failure::new(Exit::Config, sentence));
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_for_other_machines_needs_a_token() {
        let failure = bind("0.0.0.0:0".parse().unwrap(), None).await.unwrap_err();
        assert_eq!(failure.exit, Exit::Config);
        assert!(failure.sentence.contains("needs --http-token-file"), "{failure}");
        assert!(bind("127.0.0.1:0".parse().unwrap(), None).await.is_ok());
    }

    #[tokio::test]
    async fn a_taken_address_is_told_from_one_that_cannot_be() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        assert_eq!(bind(address, None).await.unwrap_err().exit, Exit::Unavailable);
    }

    #[test]
    fn a_token_is_private_and_long_enough() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        let write = |text: &str, mode| {
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            token(&file).map_err(|failure| failure.exit)
        };
        assert_eq!(write("0123456789abcdef\n", 0o600), Ok("0123456789abcdef".into()));
        assert_eq!(write("0123456789abcdef\n", 0o640), Err(Exit::Permission));
        for text in ["", "short\n", "0123456789 abcdef", "0123456789abcde\u{e9}"] {
            assert_eq!(write(text, 0o600), Err(Exit::Config), "{text:?}");
        }
        assert_eq!(token(&dir.path().join("none")).unwrap_err().exit, Exit::Io);
    }
}
